"""The preprocessor_config.json of transformers.

A folder that has none says nothing of its preprocessing, and is refused: a guess would be wrong in silence. A key that
is missing has the value of the class that reads the file, which an old file names as a feature extractor or not at all.
A key that is null is as good as false there, and has no such value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from zoo_core.config import Config
from zoo_core.documents import Document
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError, Problem, describe

__all__ = ["PROCESSORS", "image_file", "patch_image_file", "patch_preprocessing", "preprocessing"]

Json = dict[str, Any]
FILES = ("processor_config.json", "preprocessor_config.json")
"""The first holds all processors of a folder, by name, and counts where it holds one of images."""
RESAMPLES = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the two ways to resample that we have."""
_PASSED_OVER = """
    _valid_processor_keys data_format device feature_extractor_type image_processor_type input_data_format
    processor_class return_tensors disable_grouping
"""
PASSED_OVER = frozenset(_PASSED_OVER.split())
"""Keys that say who reads the file, or what the tensors come in."""
PLAIN = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]

_CLIP: Json = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "default_to_square": False,
}
_SIGLIP: Json = {
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "default_to_square": False,
}
PROCESSORS: Mapping[str, Json] = {
    "CLIPImageProcessor": _CLIP,
    "ChineseCLIPImageProcessor": _CLIP,
    "BitImageProcessor": _CLIP,
    "SiglipImageProcessor": _SIGLIP,
    "ViTImageProcessor": _SIGLIP | {"resample": 2, "default_to_square": True},
    "Siglip2ImageProcessor": _SIGLIP | {"resample": 2, "patch_size": 16, "max_num_patches": 256},
}
"""The classes that read these files, and their own values of the keys."""


class _Images(Config):
    """What an image processor is told."""

    size: dict[str, int | None] | list[int] | int | None = None
    crop_size: dict[str, int | None] | list[int] | int | None = None
    default_to_square: bool | None = False
    resample: int | Literal["bilinear", "bicubic"]
    rescale_factor: float = 1 / 255
    image_mean: Annotated[list[float], Field(min_length=3, max_length=3)] | float | None = None
    image_std: Annotated[list[float], Field(min_length=3, max_length=3)] | float | None = None
    do_resize: bool | None = True
    do_center_crop: bool | None = None
    do_rescale: bool | None = True
    do_normalize: bool | None = True
    do_convert_rgb: bool | None = None
    """Of pictures that are not RGB, transformers can use none where this is not set."""
    do_pad: bool | None = None
    pad_size: dict[str, int | None] | list[int] | int | None = None
    patch_size: int | None = None
    max_num_patches: int | None = None

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse what our preprocessing has not."""
        yield from super().rules()
        for key in ("do_resize", "do_rescale"):
            if not getattr(self, key):
                yield key, "cannot be expressed: our images are resized and scaled to 0..1"
        if abs(self.rescale_factor * 255 - 1) > 1e-6:
            yield "rescale_factor", f"cannot be expressed: pixels are divided by 255, found {self.rescale_factor:g}"
        if self.resample not in (*RESAMPLES, *RESAMPLES.values()):
            yield "resample", f"cannot be expressed; allowed: 2 (bilinear), 3 (bicubic), found {self.resample}"
        if self.do_normalize and (self.image_mean is None or self.image_std is None):
            yield "image_mean", "with do_normalize, image_mean and image_std have to be there"


def preprocessing(folder: Path, image_size: int, processor: str) -> Json:
    """Return the `preprocess` section that a folder states, for images of a size.

    Args:
        folder: of a model.
        image_size: of its tower.
        processor: the class that reads the file where that names none.

    Raises:
        ConfigError: the folder has no such file, or it states what cannot be expressed.
    """

    def section(file: _Images) -> Json:
        for key in ("patch_size", "max_num_patches"):
            if getattr(file, key) is not None:
                raise ConfigError(Problem("is for towers that take patches, and this one does not", key))
        if file.do_pad and file.pad_size is not None and _edges(file.pad_size, square=True) != _square(image_size):
            message = f"cannot be expressed: nothing is padded here, found {file.pad_size}"
            raise ConfigError(Problem(message, "pad_size"))
        return {**_colours(file), "resize_mode": _resize_mode(file, image_size)}

    return _parsed(folder, processor, section)


def patch_preprocessing(folder: Path, patch_size: int) -> Json:
    """Return the `preprocess` section of a folder whose pictures become patches of a size.

    Raises:
        ConfigError: the folder has no such file, or it states what cannot be expressed.
    """

    def section(file: _Images) -> Json:
        if file.patch_size != patch_size:
            raise ConfigError(
                Problem(f"{file.patch_size} is not the patch_size {patch_size} of the tower", "patch_size")
            )
        if file.max_num_patches is None:
            raise ConfigError(Problem("required key is missing", "max_num_patches"))
        colours = {key: value for key, value in _colours(file).items() if key != "type"}
        return {"type": "naflex", "patch_size": patch_size, "image_seq_len": file.max_num_patches, **colours}

    return _parsed(folder, "Siglip2ImageProcessor", section)


def _parsed(folder: Path, processor: str, section: Callable[[_Images], Json]) -> Json:
    document, above, data = _read(folder)
    fields = _Images.model_fields.keys()
    values = {
        key: value for key, value in data.items() if key not in PASSED_OVER and (key in fields or value is not None)
    }
    try:
        return section(_Images.parse({**_class_values(data, processor), **values}))
    except ConfigError as error:
        raise document.locate(error, above) from None


def _class_values(data: Mapping[str, Any], processor: str) -> Json:
    """Return the values that the class which reads a file has for the keys that are not there."""
    keys = ("image_processor_type", "feature_extractor_type")
    key = next((key for key in keys if data.get(key) is not None), "")
    named = data.get(key, processor)
    name = str(named).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if name not in PROCESSORS:
        raise ConfigError(Problem(f"{describe(named)} is not read (allowed: {', '.join(PROCESSORS)})", key))
    return PROCESSORS[name]


def image_file(preprocess: Mapping[str, Any], image_size: int, kind: str) -> Json:
    """Return the `preprocessor_config.json` of a `preprocess` section; `longest` becomes nothing that it can say."""
    square = _square(image_size)
    shortest = preprocess["resize_mode"] == "shortest"
    return {
        **_colour_file(preprocess, kind),
        "size": {"shortest_edge": image_size} if shortest else square,
        **({"do_center_crop": True, "crop_size": square} if shortest else {"do_center_crop": False}),
    }


def patch_image_file(preprocess: Mapping[str, Any], patches: int) -> Json:
    """Return the `preprocessor_config.json` of a `preprocess` section whose images become so many patches."""
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


def _read(folder: Path) -> tuple[Document, tuple[str, ...], Mapping[str, Any]]:
    """Return the file that states how images are prepared, and what it states below which keys."""
    for name in FILES:
        if (folder / name).is_file():
            document = read_json(folder / name)
            above = ("image_processor",) if name == FILES[0] else ()
            data = document.data.get("image_processor") if above else document.data
            if isinstance(data, Mapping):
                return document, above, data
    message = (
        f"holds no {FILES[1]}, so how its images were prepared is unknown; put the file there, or name an "
        "architecture and give the file of its weights as pretrained="
    )
    raise ConfigError(Problem(message, source=str(folder)))


def _colours(file: _Images) -> Json:
    mean, std = (file.image_mean, file.image_std) if file.do_normalize else PLAIN
    return {
        "type": "image",
        "mean": [mean] * 3 if isinstance(mean, float) else mean,
        "std": [std] * 3 if isinstance(std, float) else std,
        "interpolation": file.resample if isinstance(file.resample, str) else RESAMPLES[file.resample],
        "alpha": "white",
    }


def _resize_mode(file: _Images, image_size: int) -> str:
    """Return our resize mode that brings an image to `image_size` as theirs does."""
    square, crops = _square(image_size), bool(file.do_center_crop)
    size = _edges(file.size, square=bool(file.default_to_square))
    fits = not crops or _edges(file.crop_size, square=True) == square
    if size == {"shortest_edge": image_size} and crops and fits:
        return "shortest"
    if size == square and fits:
        return "squash"
    sizes = f"size {file.size}" + (f" with crop_size {file.crop_size}" if crops else " without a crop")
    message = f"{sizes} cannot be expressed: expected the image_size {image_size} of the tower in both"
    raise ConfigError(Problem(message, "size"))


def _edges(size: dict[str, int | None] | list[int] | int | None, *, square: bool) -> dict[str, int]:
    """Return a size as edges by their names; old files write a number, or height and width."""
    if isinstance(size, int):
        return _square(size) if square else {"shortest_edge": size}
    if isinstance(size, list):
        return {"height": size[0], "width": size[1]} if len(size) == 2 else {}
    return {name: edge for name, edge in (size or {}).items() if edge is not None}


def _square(edge: int) -> dict[str, int]:
    return {"height": edge, "width": edge}
