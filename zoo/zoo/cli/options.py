"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo_core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import torch

    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["EXAMPLES", "Device", "Dtype", "MaxPixels", "Model", "ModelChoice", "Pretrained", "dtype_named"]

Model = Annotated[
    str | None, typer.Option(help="NAME:TAG, an architecture and its weights (see zoo info), or a saved folder.")
]
Pretrained = Annotated[str | None, typer.Option(help="A tag or a file of weights, where --model names none.")]
Device = Annotated[str | None, typer.Option(help="Where the model computes: cpu, cuda, cuda:1.")]
Dtype = Annotated[str | None, typer.Option(help="What it computes in: float32, bfloat16, float16.")]
MaxPixels = Annotated[
    int | None, typer.Option(min=1, help="Pixels of the largest image to decode, where that is not 64000000.")
]

DTYPES = ("float32", "bfloat16", "float16")
"""Those that are offered; any other floating-point dtype of torch is taken too."""

EXAMPLES = ("vit-b32:laion2b_s34b_b79k", "vit-b16-siglip2:webli", "vit-l14:laion2b_s32b_b82k", "digits-tiny:demo")
"""What to compute with where no model is named; the last one ships with zoo."""


@dataclass(frozen=True)
class ModelChoice:
    """The model that a command computes with, and its weights: a tag, a file, or None for those of a folder."""

    source: str
    pretrained: str | None

    @classmethod
    def of(cls, model: str | None, pretrained: str | None) -> ModelChoice:
        """Return what `--model` and `--pretrained` name.

        Raises:
            InputError: no model is named, or its weights are named twice.
        """
        if model is None:
            *published, demo = EXAMPLES
            raise InputError(
                f"name the model to compute with: --model {published[0]}, {', '.join(published[1:])}, any other that "
                f"`zoo list --pretrained` shows, or a saved folder; {demo} ships with zoo, and knows digits alone"
            )
        from zoo.building.source import split_tag

        name, tag = split_tag(model)
        if tag is None:
            return cls(name, pretrained)
        if pretrained is not None:
            raise InputError(f"--model {model} names its weights already; leave out --pretrained {pretrained}")
        return cls(name, tag)

    def open(self, *, device: str | None, dtype: str | None, max_pixels: int | None) -> DualEncoder:
        """Build the model.

        Raises:
            ZooError: as `zoo.embeddings.encode.open_model`.
        """
        from zoo.embeddings.encode import open_model

        built = open_model(self.source, self.pretrained, device=device, dtype=dtype_named(dtype))
        if max_pixels is not None and built.preprocess is not None:
            built.preprocess.max_pixels = max_pixels
        return built

    def to_dict(self) -> dict[str, str]:
        """Return model and weights, ready for JSON; a saved folder is both."""
        return {"model": self.source, "weights": self.pretrained or self.source}

    def __str__(self) -> str:
        weights = f", weights: {self.pretrained}" if self.pretrained else ""
        return f"model: {self.source}{weights}"


def dtype_named(name: str | None) -> torch.dtype | None:
    """Return the dtype of a name.

    Raises:
        InputError: it is none that a model computes in.
    """
    import torch

    if name is None:
        return None
    dtype: Any = getattr(torch, name, None)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"--dtype '{name}'{did_you_mean(name, DTYPES, cutoff=0.4)}")
    return dtype
