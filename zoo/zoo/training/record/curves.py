"""A picture of the curves of a run, from its record."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.training.record.jsonl import METRICS, read_metrics
from zoo_core.errors import DataError, MissingDependencyError
from zoo_core.files.atomic import atomic_write

__all__ = ["CURVES", "draw_curves"]

CURVES = "curves.png"
"""Name of the picture in the folder of a run."""

COLUMNS = 3
FIELDS = {"event", "step", "steps", "samples", "time"}
"""What a line of the record holds beside metrics."""

Curve = dict[int, float]
"""Values by step; of a step that came twice, as after a resume, the last counts."""


def draw_curves(folder: Path) -> Path:
    """Draw `curves.png` from the record in the folder of a run, and return its path.

    One panel shows all losses, one each other metric of steps, and one the metrics of each evaluator.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        DataError: no metric is recorded.
        SaveError: the picture cannot be written.
    """
    backend, figures = _matplotlib("matplotlib.backends.backend_agg"), _matplotlib("matplotlib.figure")
    panels = _panels(folder / METRICS)
    rows = -(-len(panels) // COLUMNS)
    figure = figures.Figure(figsize=(4.8 * min(COLUMNS, len(panels)), 3.2 * rows), dpi=110, layout="constrained")
    backend.FigureCanvasAgg(figure)
    for number, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, min(COLUMNS, len(panels)), number)
        for name, curve in curves.items():
            steps = sorted(curve)
            style = {"marker": "o", "markersize": 3} if "/" in name or len(steps) == 1 else {}
            axes.plot(steps, [curve[step] for step in steps], linewidth=1.2, label=name, **style)
        axes.set_title(title, size=10)
        axes.set_xlabel("step", size=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        if len(curves) > 1:
            axes.legend(fontsize=7)
    with atomic_write(folder / CURVES) as (scratch,):
        figure.savefig(scratch, format="png")
    return folder / CURVES


def _matplotlib(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"curves need matplotlib: {error}; run: pip install matplotlib") from error


def _panels(path: Path) -> dict[str, dict[str, Curve]]:
    """Return the curves of each panel by name."""
    panels: defaultdict[str, defaultdict[str, Curve]] = defaultdict(lambda: defaultdict(dict))
    for entry in read_metrics(path) if path.is_file() else ():
        if entry.get("event") in ("step", "evaluate"):
            for name, value in _metrics(entry).items():
                panels[_panel(name)][name][entry["step"]] = value
    if not panels:
        raise DataError(f"{path} holds no metrics to draw; a run writes them every log.every steps")
    return {title: dict(curves) for title, curves in panels.items()}


def _metrics(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a line; those that are not finite are gaps in a curve."""
    numbers = {"nan": float("nan"), "inf": float("nan"), "-inf": float("nan")}
    values = {name: numbers.get(value, value) if isinstance(value, str) else value for name, value in entry.items()}
    return {name: value for name, value in values.items() if name not in FIELDS and isinstance(value, int | float)}


def _panel(name: str) -> str:
    return "loss" if name.endswith("loss") else name.partition("/")[0]
