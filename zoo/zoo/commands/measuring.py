"""`zoo profile`: what a model costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.commands.output import count, fields, show, show_json, table

__all__ = ["profile_command"]


def profile_command(
    name: Annotated[str, typer.Argument(help="An architecture, a YAML file, or a saved folder.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Images, and texts, in a batch.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Batches that are timed.")] = 5,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda.")] = "cpu",
    trace: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a trace for TensorBoard to this folder.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what a model costs on this machine.

    Parameters, multiply-adds, latency and memory of each tower.
    """
    import zoo
    from zoo.profiling import profile_model

    model = zoo.build(name, device=device)
    assert model.config is not None  # zoo.build gives every model its config
    found = profile_model(
        model,
        image_size=model.config.vision.image_size,
        context_length=model.config.text.context_length,
        vocab_size=model.config.text.vocab_size,
        batch_size=batch_size,
        steps=steps,
        device=device,
        trace_dir=trace,
    ).to_dict()
    if json:
        show_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    hardware = found["hardware"]
    rows = [
        (
            tower,
            count(cost["parameters"]),
            count(cost["macs"]),
            f"{cost['latency'] * 1e3:.1f}",
            f"{cost['samples_per_second']:.1f}",
            f"{cost['peak_activation_bytes'] / 2**20:.1f}",
        )
        for tower, cost in found["towers"].items()
    ]
    columns = ("TOWER", "PARAMETERS", "MACS/SAMPLE", "MS/BATCH", "SAMPLES/S", "ACTIVATIONS MIB")
    show(
        table(columns, rows, right=columns[1:]),
        "",
        fields(
            (
                ("parameters", f"{found['parameters']:,} ({found['parameter_bytes'] / 2**20:.1f} MiB)"),
                ("latency", f"median of {found['steps']} batches"),
                *((key, value) for key, value in hardware.items()),
                ("trace", found["trace"]),
            )
        ),
    )
