"""Config of a timm backbone.

Nothing of timm is imported here. Whether a backbone exists, and takes these options, is therefore seen when it is
built: still before its weights are read, and with the same kind of error.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from zoo_core.config import Size, VisionTowerConfig

ATTENTION_POOLS = ("abs_attn", "rot_attn")
"""Pools that stand behind the backbone instead of inside it, and project by themselves."""

Scalar = bool | int | float | str
Option = Scalar | list[Scalar | list[Scalar]]

_KEYS = {
    "img_size": "image_size",
    "global_pool": "pool",
    "num_classes": "proj",
    "drop_path_rate": "drop_path",
    "patch_drop_rate": "patch_dropout",
}
"""Options of timm that have a key of their own here."""
_REFUSED = {
    "pretrained": "an architecture loads no weights",
    "pretrained_cfg": "an architecture loads no weights",
    "pretrained_cfg_overlay": "an architecture loads no weights",
    "pretrained_strict": "an architecture loads no weights",
    "checkpoint_path": "an architecture loads no weights",
    "cache_dir": "an architecture loads no weights",
    "features_only": "a tower gives one feature",
    "out_indices": "a tower gives one feature",
    "in_chans": "a tower takes images of 3 channels",
    "device": "zoo.build has a device",
    "dtype": "zoo.build has a dtype",
}
"""Options of timm that cannot be set, and why."""
_REFUSED_PATCHES = {
    "embed_proj_type": "patches are projected by one linear layer",
    "patchify_channels_last": "the channels of a patch come last",
    "enable_patch_interpolator": "patches have one size",
    "dynamic_img_pad": "images are whole patches",
    "input_norm_layer": "timm does not read it",
}
"""Options of NaFlex backbones that cannot be set, and why."""


LARGEST = 65_536
"""The largest number in options of timm. What it counts is built one by one, before parameters can be counted."""


def _numbers(option: Option) -> Iterator[float]:
    """Yield the numbers of an option."""
    for value in option if isinstance(option, list) else [option]:
        if isinstance(value, list):
            yield from _numbers(list(value))
        elif isinstance(value, int | float):
            yield value


class TimmConfig(VisionTowerConfig):
    """A timm backbone, its pooling, and the projection to the embedding."""

    other_names: ClassVar[Mapping[str, str]] = {
        "timm_model_name": "name",
        "timm_model_kwargs": "kwargs",
        **{f"timm_{key}": key for key in ("pool", "proj", "proj_bias", "drop", "drop_path")},
    }
    tower: str = "timm"
    name: Annotated[str, Field(min_length=1, max_length=200)]
    """Name of the backbone in timm, such as convnext_base, without a tag of weights."""
    image_size: Size = (224, 224)
    """Height and width in pixels of the images; backbones with position embeddings are built for it."""
    pool: Literal["avg", "max", "avgmax", "catavgmax", "token", "map", "abs_attn", "rot_attn"] | None = None
    """How the backbone's output becomes one feature; the backbone's own way where null. abs_attn and rot_attn attend
    over the output map, with learned or rotary positions."""
    proj: Literal["linear", "mlp", "head", "none"] = "linear"
    """What maps the feature to the embedding: one layer or two, timm's own classifier, or nothing at all."""
    proj_bias: bool = False
    """Give the last layer of a linear or mlp projection a bias."""
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of a linear or mlp projection, while training."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Stochastic depth, while training; the backbone's own default where null."""
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the patches that training leaves out at random (Li et al. 2023)."""
    kwargs: dict[str, Option] = {}
    """Further options of the backbone, passed to timm.create_model."""

    def options(self) -> dict[str, Any]:
        """Return what the backbone is built with, but for its size, pool and classifier."""
        rates = {"drop_path_rate": self.drop_path, "patch_drop_rate": self.patch_dropout or None}
        return self.kwargs | {name: value for name, value in rates.items() if value is not None}

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse what would be ignored, and names that mean more than a backbone."""
        yield from super().rules()
        name, dot, tag = self.name.partition(".")
        if ":" in self.name:
            yield "name", f"{self.name!r} names a place to load from; write a backbone's name, such as convnext_base"
        elif dot:
            yield "name", f"'.{tag}' names weights, which an architecture does not load; write {name!r}"
        if self.pool in ATTENTION_POOLS and self.proj == "head":
            yield "proj", f"pool '{self.pool}' leaves no classifier to project with; allowed: linear, mlp, none"
        if self.proj not in ("linear", "mlp"):
            if self.proj_bias:
                yield "proj_bias", f"does nothing with proj '{self.proj}'; leave it out"
            if self.drop:
                yield "drop", f"does nothing with proj '{self.proj}'; leave it out"
        for key in self.kwargs:
            if key in _KEYS:
                yield f"kwargs.{key}", f"is written as '{_KEYS[key]}', beside kwargs"
            elif key in _REFUSED:
                yield f"kwargs.{key}", f"cannot be set: {_REFUSED[key]}"
            elif (largest := max(map(abs, _numbers(self.kwargs[key])), default=0)) > LARGEST:
                yield f"kwargs.{key}", f"holds {largest:g}, and no backbone is that large; at most {LARGEST:,}"


class NaFlexConfig(TimmConfig):
    """A timm backbone that takes patches of pictures in their own aspect ratio, or images of any size (NaFlex)."""

    tower: str = "naflex"
    name: Annotated[str, Field(min_length=1, max_length=200)]
    """Name of the backbone in timm, such as naflexvit_base_patch16_gap, without a tag of weights."""
    image_size: Size = (224, 224)
    """Height and width in pixels of the images that an image tensor usually holds; any whole patches will do."""
    patch_size: Size = (16, 16)
    """Height and width in pixels of a patch."""
    pool: Literal["avg", "max", "avgmax", "token", "map"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """How the patches become one feature; the backbone's own way where null."""

    def options(self) -> dict[str, Any]:
        """Return what the backbone is built with, but for its size, pool and classifier."""
        return super().options() | {"patch_size": self.patch_size}

    def takes_patches(self) -> tuple[int, int]:
        """Return the size of a patch."""
        return self.patch_size

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold images to whole patches, and refuse options that patches leave no room for."""
        yield from super().rules()
        (height, width), (rows, columns) = self.image_size, self.patch_size
        if height % rows or width % columns:
            yield "image_size", f"patches of {rows} x {columns} pixels do not divide images of {height} x {width}"
        for key in self.kwargs:
            if key == "patch_size":
                yield "kwargs.patch_size", "is written as 'patch_size', beside kwargs"
            elif key in _REFUSED_PATCHES:
                yield f"kwargs.{key}", f"cannot be set: {_REFUSED_PATCHES[key]}"
