"""The preprocessor_config.json of transformers: how its pictures become tensors, in our words and back.

A folder that has none says nothing of its preprocessing, and is refused: a guess would be wrong in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from zoo_core.config import Config
from zoo_core.documents import Document
from zoo_core.errors import ConfigError, Problem
from zoo_core.json_files import read_json

__all__ = ["image_file", "patch_image_file", "patch_preprocessing", "preprocessing"]

Json = dict[str, Any]
FILES = ("preprocessor_config.json", "processor_config.json")
RESAMPLES = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the two ways to resample that we have."""
_PASSED_OVER = """
    _valid_processor_keys data_format default_to_square device feature_extractor_type image_processor_type
    input_data_format processor_class return_tensors disable_grouping
"""
PASSED_OVER = frozenset(_PASSED_OVER.split())
"""Keys that say who reads the file, or what the tensors come in."""
PLAIN = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]


class _Images(Config):
    """The image processors of CLIP and SigLIP."""

    size: dict[str, int] | int = {}
    crop_size: dict[str, int] | int | None = None
    resample: int = 3
    rescale_factor: float = 1 / 255
    image_mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    image_std: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    do_resize: bool = True
    do_center_crop: bool | None = None
    do_rescale: bool = True
    do_normalize: bool = True
    do_convert_rgb: bool | None = True
    do_pad: bool | None = None
    pad_size: dict[str, int] | None = None
    patch_size: int | None = None
    max_num_patches: int | None = None

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse what our preprocessing has not."""
        yield from super().rules()
        for key in ("do_resize", "do_rescale", "do_convert_rgb"):
            if not getattr(self, key):
                yield key, "cannot be expressed: our images are resized, scaled to 0..1 and RGB"
        if abs(self.rescale_factor * 255 - 1) > 1e-6:
            yield "rescale_factor", f"cannot be expressed: pixels are divided by 255, found {self.rescale_factor:g}"
        if self.do_pad:
            yield "do_pad", "cannot be expressed"
        if self.resample not in RESAMPLES:
            yield "resample", f"cannot be expressed; allowed: 2 (bilinear), 3 (bicubic), found {self.resample}"
        if self.do_normalize and (self.image_mean is None or self.image_std is None):
            yield "image_mean", "with do_normalize, image_mean and image_std have to be there"


def preprocessing(folder: Path, image_size: int) -> Json:
    """Return the `preprocess` section that a folder states, for images of a size.

    Raises:
        ConfigError: the folder has no such file, or it states what cannot be expressed.
    """
    return _parsed(folder, lambda given: _section(given, image_size))


def patch_preprocessing(folder: Path, patch_size: int) -> Json:
    """Return the `preprocess` section of a folder whose pictures become patches of a size.

    Raises:
        ConfigError: the folder has no such file, or it states what cannot be expressed.
    """

    def section(given: _Images) -> Json:
        if given.patch_size != patch_size:
            raise ConfigError(
                Problem(f"{given.patch_size} is not the patch_size {patch_size} of the tower", "patch_size")
            )
        if given.max_num_patches is None:
            raise ConfigError(Problem("required key is missing", "max_num_patches"))
        colours = {key: value for key, value in _colours(given).items() if key != "type"}
        return {"type": "naflex", "patch_size": patch_size, "image_seq_len": given.max_num_patches, **colours}

    return _parsed(folder, section)


def _parsed(folder: Path, section: Callable[[_Images], Json]) -> Json:
    document, data = _read(folder)
    try:
        return section(_Images.parse({key: value for key, value in data.items() if key not in PASSED_OVER}))
    except ConfigError as error:
        raise ConfigError([document.mark((one.key,)).problem(one.message, one.key) for one in error.problems]) from None


def image_file(preprocess: Mapping[str, Any], image_size: int, kind: str) -> Json:
    """Return the `preprocessor_config.json` of a `preprocess` section; `longest` becomes nothing that it can say."""
    square = {"height": image_size, "width": image_size}
    shortest = preprocess["resize_mode"] == "shortest"
    return {
        **_colour_file(preprocess, kind),
        "size": {"shortest_edge": image_size} if shortest else square,
        **({"do_center_crop": True, "crop_size": square} if shortest else {"do_center_crop": False}),
    }


def patch_image_file(preprocess: Mapping[str, Any], patches: int) -> Json:
    """Return the `preprocessor_config.json` of a `preprocess` section whose pictures become so many patches."""
    return {
        **_colour_file(preprocess, "Siglip2ImageProcessor"),
        "patch_size": preprocess["patch_size"][0],
        "max_num_patches": patches,
    }


def _colour_file(preprocess: Mapping[str, Any], kind: str) -> Json:
    return {
        "image_processor_type": kind,
        "image_mean": list(preprocess["mean"]),
        "image_std": list(preprocess["std"]),
        "resample": {name: number for number, name in RESAMPLES.items()}[preprocess["interpolation"]],
        "rescale_factor": 1 / 255,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
    }


def _read(folder: Path) -> tuple[Document, Mapping[str, Any]]:
    for name in FILES:
        if (folder / name).is_file():
            document = read_json(folder / name)
            data = document.data if name == FILES[0] else document.data.get("image_processor")
            if isinstance(data, Mapping):
                return document, data
    message = (
        f"holds no {FILES[0]}, so how its images were prepared is unknown; put the file there, or name an "
        "architecture and give the file of its weights as pretrained="
    )
    raise ConfigError(Problem(message, source=str(folder)))


def _section(given: _Images, image_size: int) -> Json:
    for key in ("patch_size", "max_num_patches"):
        if getattr(given, key) is not None:
            raise ConfigError(Problem("is for towers that take patches, and this one does not", key))
    return {**_colours(given), "resize_mode": _resize_mode(given, image_size)}


def _colours(given: _Images) -> Json:
    mean, std = (given.image_mean, given.image_std) if given.do_normalize else PLAIN
    return {
        "type": "image",
        "mean": mean,
        "std": std,
        "interpolation": RESAMPLES[given.resample],
        "alpha": "white",
    }


def _resize_mode(given: _Images, image_size: int) -> str:
    """Return which of our ways brings a picture to `image_size` as theirs does; old files write sizes as a number."""
    square = {"height": image_size, "width": image_size}
    size = {"shortest_edge": given.size} if isinstance(given.size, int) else given.size
    crop = (
        {"height": given.crop_size, "width": given.crop_size} if isinstance(given.crop_size, int) else given.crop_size
    )
    crops = crop is not None if given.do_center_crop is None else given.do_center_crop
    if size == {"shortest_edge": image_size} and crops and crop == square:
        return "shortest"
    if size == square and (not crops or crop == square):
        return "squash"
    told = f"size {given.size}" + (f" with crop_size {given.crop_size}" if crops else " without a crop")
    message = f"{told} cannot be expressed: expected the image_size {image_size} of the tower in both"
    raise ConfigError(Problem(message, "size"))
