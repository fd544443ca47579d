"""Write the table of every architecture's parameter shapes: `python docs/generate_shapes.py` (some minutes)."""

from __future__ import annotations

from pathlib import Path

from zoo.catalog.architectures import architectures, config
from zoo.catalog.state_dict_shapes import Shape, written
from zoo.materialize.skeleton import skeleton

TABLE = Path(__file__).parents[1] / "zoo" / "zoo" / "parameter_shapes.txt"


def shapes(name: str) -> dict[str, Shape]:
    """Return what the state dict of an architecture holds, built without its memory."""
    return {key: tuple(value.shape) for key, value in skeleton(config(name)).state_dict().items()}


if __name__ == "__main__":
    TABLE.write_text(written({entry.name: shapes(entry.name) for entry in architectures().entries}), encoding="utf-8")
