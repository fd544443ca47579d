"""Types of config fields: sizes, ratios, widths, commits, digests, files."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from zoo_core.config.messages import wrong
from zoo_core.errors import describe

__all__ = ["Commit", "EmbedDim", "FileName", "Ratio", "Sha256", "Size"]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


def _as_file_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or set(name) & set("\\\0:"):
        raise wrong(f"names a file outside of the folder: {describe(name)}")
    return name


FileName = Annotated[str, AfterValidator(_as_file_name)]
"""Path of a file below the folder of a model, with forward slashes."""


def _as_pair(value: Any) -> tuple[int, int]:
    """Turn `224` and `[224, 336]` into a (height, width) pair."""
    text = describe(cast("object", value))
    pair = list(cast("list[Any]", value)) if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2 or any(type(side) is not int for side in pair):
        raise wrong(f"expected a size such as 224 or [224, 336], found {text}")
    if not all(1 <= side <= MAX_IMAGE_SIDE for side in pair):
        raise wrong(f"each side must be from 1 to {MAX_IMAGE_SIDE} pixels, found {text}")
    return pair[0], pair[1]


MAX_IMAGE_SIDE = 16_384

Size = Annotated[
    tuple[int, int],
    BeforeValidator(_as_pair),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_IMAGE_SIDE},
                {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2},
            ]
        }
    ),
]
"""Height and width in pixels: one number, or a pair."""

Ratio = Annotated[float, Field(gt=0, le=64)]
"""A width as a multiple of another."""

EmbedDim = Annotated[int, Field(ge=1, le=65_536)]
"""Width of a joint embedding space."""
