"""The command `zoo profile`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.options import Device, Dtype, dtype_named
from zoo.cli.output import count, show, show_json
from zoo.cli.tables import fields, table

__all__ = ["profile_command"]


def profile_command(
    name: Annotated[str, typer.Argument(help="NAME or NAME:TAG, a YAML file, a folder with a model, or hf-hub:.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs of each tower in a batch.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Batches that are timed.")] = 5,
    device: Device = None,
    dtype: Dtype = None,
    trace: Annotated[Path, typer.Option(metavar="DIR", help="Where a trace for TensorBoard goes.")] = Path(
        "zoo-profile"
    ),
    no_trace: Annotated[bool, typer.Option("--no-trace", help="Write no trace.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what a model costs on this machine.

    Parameters, multiply-adds, FLOPs, latency and memory of each tower, and a trace of both.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes of its own affairs to stderr otherwise
    from zoo.building.build import build_source
    from zoo.building.source import resolve
    from zoo.inference.profiling import profile_towers

    model = build_source(resolve(name), target={"device": device, "dtype": dtype_named(dtype)})
    examples = {key: model.modalities[key].example(tower, batch_size) for key, tower in model.towers.items()}
    batches = {
        key: batch.to(model.logit_scale.device, model.dtype if batch.is_floating_point() else None)
        for key, batch in examples.items()
    }
    profile = profile_towers(
        model,
        model.towers,
        batches,
        steps=steps,
        device=device or "cpu",
        trace_dir=None if no_trace else trace,
    ).to_dict()
    profile = {"model": name, **profile}
    if json:
        show_json(profile)
    else:
        _show(profile)


def _show(profile: dict[str, Any]) -> None:
    rows = [
        (
            tower,
            count(cost["parameters"]),
            count(cost["macs"]),
            count(cost["flops"]),
            f"{cost['latency'] * 1e3:.1f}",
            f"{cost['samples_per_second']:.1f}",
            f"{cost['peak_activation_bytes'] / 2**20:.1f}",
        )
        for tower, cost in profile["towers"].items()
    ]
    columns = ("TOWER", "PARAMETERS", "MACS", "FLOPS", "MS/BATCH", "SAMPLES/S", "MIB")
    show(
        table(columns, rows, right=columns[1:]),
        "",
        fields(
            (
                ("model", profile["model"]),
                ("parameters", f"{profile['parameters']:,} ({profile['parameter_bytes'] / 2**20:.1f} MiB)"),
                ("latency", f"median of {profile['steps']} batches"),
                *((key, value) for key, value in profile["hardware"].items()),
                ("MACs, FLOPs", "of one sample; a multiply-add is two FLOPs"),
                ("MiB", "peak of the activations of a batch"),
                ("trace", profile["trace"]),
            )
        ),
        *(
            ["", "next:", shlex.join(["tensorboard", "--logdir", str(Path(profile["trace"]).parent)])]
            if profile["trace"]
            else []
        ),
    )
