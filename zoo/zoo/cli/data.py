"""The command `zoo data`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.output import progress, report, show, show_json
from zoo.cli.tables import fields
from zoo_core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from zoo.training.data.open import Part, TrainingData
    from zoo.training.recipe.sections import Data
    from zoo_core.config import ModelConfig

__all__ = ["data_command"]

ACTIONS = ("check", "index", "stats")
MODEL = "vit-b32"
"""Whose preprocessing and tokenizer look at samples where none is named."""
SAMPLED = 1000
"""Samples that `stats` reads."""
SHOWN = 10
"""Bad samples, and pairs of equal ones, that are listed; --json lists all."""


def data_command(
    action: Annotated[str, typer.Argument(metavar="check|index|stats", help="What is done.")],
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA...", help="A recipe, a YAML file with its section data, or type=tar path=..."),
    ],
    model: Annotated[str | None, typer.Option(help="Whose preprocessing; the recipe's, or vit-b32.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Samples of each data set, evenly spaced.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read; as many as there are cores.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at data before a model is trained on it.

    check reads every sample and lists those that cannot be used, with file and row, and those that are there twice;
    it exits with 1 where it lists one. stats reads a thousand: lengths of captions in tokens, the share that is cut,
    samples a second, ids. index reads none, and makes the index of tar shards, which training makes otherwise.
    """
    from zoo.training.data.check import report_on
    from zoo.training.data.open import open_data

    if action not in ACTIONS:
        raise InputError(f"zoo data: no action '{action}'{did_you_mean(action, ACTIONS)}")
    section, config = _read(data, model)
    reports: dict[str, dict[str, Any]] = {}
    parts: Sequence[Part] = ("train", "validation") if section.validation else ("train",)
    for part in parts:
        opened = open_data(section, model=config, batch=1, part=part, try_samples=False)
        for index in range(len(opened.sources)):
            name = f"{part}[{index}]"
            if action == "index":
                reports[name] = _size_of(opened, index)
            else:
                most = limit or (SAMPLED if action == "stats" else None)
                with progress(name) as advance:
                    of_source = report_on(opened, index, limit=most, workers=_workers(workers), advance=advance)
                reports[name] = of_source.to_dict()
    if json:
        show_json(reports)
    else:
        for name, values in reports.items():
            show(f"{name}:", fields(_lines(values)), "")
    bad = sum(len(values.get("bad", ())) for values in reports.values())
    if bad and action == "check":
        report(f"{bad:,} samples cannot be used; training takes others in their place")
        raise typer.Exit(1)


def _read(data: Sequence[str], model: str | None) -> tuple[Data, ModelConfig]:
    """Return the section that arguments state, and the architecture that looks at samples."""
    from zoo.building.source import resolve
    from zoo.catalog.architectures import load_config
    from zoo.training.recipe.load import read_recipe
    from zoo.training.recipe.sections import Data
    from zoo_core.documents.overrides import read_overrides
    from zoo_core.documents.yaml_reader import read_document

    def config(source: str) -> ModelConfig:
        return resolve(source).config

    if all("=" in argument for argument in data):
        values: dict[str, Any] = {}
        for document in read_overrides(data):
            values |= document.data
        return Data.parse({"train": [values]}), config(model or MODEL)
    if len(data) > 1:
        raise InputError(
            "zoo data: DATA is one recipe or file, or several key=value such as type=tar path=shards/*.tar"
        )
    path = Path(data[0])
    document = read_document(path) if path.is_file() else None
    if document is not None and "data" not in document.data and "extends" not in document.data:
        if "train" in document.data:
            return Data.from_document(document), config(model or MODEL)
        return Data.parse({"train": [document.data]}), config(model or MODEL)
    recipe = read_recipe(path if document is not None else data[0])
    if model is not None:
        return recipe.datasets, config(model)
    source = recipe.model
    return recipe.datasets, load_config(source, recipe.overrides) if isinstance(source, Mapping) else config(source)


def _workers(workers: int | None) -> int:
    import torch

    from zoo.training.data.loader import workers_for

    return workers_for(torch.device("cuda")) if workers is None else workers  # nothing else computes


def _size_of(data: TrainingData, index: int) -> dict[str, Any]:
    """Return how large a data set is, and its digest."""
    from zoo_core.training import Dataset

    source = data.sources[index]
    blocks = source.blocks() if isinstance(source, Dataset) else None
    return {
        "samples": len(source) if isinstance(source, Dataset) else None,
        "blocks": None if blocks is None else len(blocks),
        "digest": source.digest(),
    }


def _lines(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a report as names and what stands beside them."""
    lines = [("samples", "not known of a stream" if values["samples"] is None else f"{values['samples']:,}")]
    if "digest" in values:
        return [*lines, ("blocks", str(values["blocks"] or "none")), ("digest", values["digest"])]
    lines.append(("read", f"{values['read']:,}"))
    lines += _listed("bad", [f"{entry['location']}: {entry['reason']}" for entry in values["bad"]])
    pairs = [f"{entry['location']} is {entry['of']}" for entry in values["duplicates"]]
    lines += _listed("there twice", pairs)
    if values["ids"] is not None:
        lines.append(("ids", f"{values['ids']:,}"))
    if values["tokens"] is not None:
        lengths = ", ".join(f"{name} {length:.0f}" for name, length in values["tokens"].items())
        lines.append(("tokens of a caption", f"{lengths}; {values['cut']:.1%} are cut"))
    if values["samples_per_second"] is not None:
        lines.append(("rate", f"{values['samples_per_second']:.0f} samples/s a core"))
    return lines


def _listed(name: str, entries: Sequence[str]) -> list[tuple[str, str]]:
    more = [("", f"and {len(entries) - SHOWN:,} more")] if len(entries) > SHOWN else []
    return [(name, f"{len(entries):,}"), *(("", entry) for entry in entries[:SHOWN]), *more]
