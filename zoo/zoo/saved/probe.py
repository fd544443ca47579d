"""Probes: a fixed picture and fixed captions, and what a model made of them when it was saved.

A digest tells that the bytes are the same; a probe tells that they still mean the same: that preprocessing, tokenizer
and towers on this machine, with these versions, device and dtype, give the features that they gave where the model was
saved. The picture has edges, slopes and unequal sides, so that another size, interpolation or normalisation shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from zoo.saved.origin import ImageProbe, Probe, TextProbe
from zoo_core.errors import ConfigError, DownloadError, InputError, NotFiniteError, ZooError
from zoo_core.models.dual_encoder import DualEncoder
from zoo_core.models.text_inputs import check_tokenizer
from zoo_core.nn.eval_mode import evaluating

__all__ = ["PART_NAMES", "Finding", "check_probe", "environment", "make_probe"]

CAPTIONS = ("a photo of a cat, and 2 dogs", "Zwei Hünde & ein 猫!", "a")
"""They hold upper case, marks, a digit, and letters beyond ASCII: cleaning shows in the ids. Behind the shortest there
is padding in every row that is longer than a few ids."""

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Largest distance `1 - cosine` between recorded features and those here, by the coarser of the two dtypes."""
PIXELS = 64
"""How many values of the preprocessed picture are recorded, evenly spaced."""
PIXEL_TOLERANCE = 0.05
"""Largest difference of a preprocessed value: decoders and resizers differ by at most 1 in 255, before the division."""

PART_NAMES = ("preprocess", "image tower", "tokenizer", "text tower")


@dataclass(frozen=True)
class Finding:
    """What became of one part: whether it is as it was, and the figures.

    `ok` is None where the part could not be looked at, and `detail` says why.
    """

    part: str
    ok: bool | None
    detail: str


def environment(model: DualEncoder) -> dict[str, str]:
    """Return what features depend on beyond the model: versions of torch and Pillow, device and dtype."""
    parameter = next(model.parameters())
    return {
        "torch": torch.__version__,
        "pillow": Image.__version__,
        "device": parameter.device.type,
        "dtype": str(_main_dtype(model)).removeprefix("torch."),
    }


def make_probe(model: DualEncoder) -> dict[str, Any]:
    """Return what the model makes of the probe, as plain data.

    A tokenizer or preprocessing that cannot be had here (a missing package, no network) is recorded as such.

    Raises:
        NotFiniteError: a feature is not finite, so the weights hold NaN or infinity.
    """
    probe: dict[str, Any] = {"environment": environment(model)}
    with evaluating(model), torch.no_grad():
        try:
            picture = _prepared(model)
        except ZooError as error:
            probe["image"] = {"unavailable": str(error)}
        else:
            features = _features("image", model.encode_image(_to(picture, model), normalize=True))
            probe["image"] = {"pixels": _sample(picture), "features": features}
        try:
            ids = _ids(model, CAPTIONS)
        except (ConfigError, DownloadError):  # which would tell folders of this machine
            probe["text"] = {"unavailable": "the tokenizer could not be loaded where the model was saved"}
        except ZooError as error:
            probe["text"] = {"unavailable": str(error)}
        else:
            features = _features("text", model.encode_text(_to(ids, model), normalize=True))
            probe["text"] = {
                "captions": list(CAPTIONS),
                "ids": _plain(ids),
                "features": features,
            }
    return probe


def check_probe(model: DualEncoder, probe: Probe) -> list[Finding]:
    """Return how each part of the model compares with its probe; those it was built without are left out."""
    recorded_in = _DTYPES[probe.environment.dtype]
    tolerance = max(TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16]) for dtype in (recorded_in, _main_dtype(model)))
    findings: list[Finding] = []
    with evaluating(model), torch.no_grad():
        if model.visual is not None:
            findings += _check_image(model, probe.image, tolerance)
        if model.text is not None:
            findings += _check_text(model, probe.text, tolerance)
    return findings


def _check_image(model: DualEncoder, recorded: ImageProbe, tolerance: float) -> list[Finding]:
    if recorded.unavailable is not None:
        return [Finding(part, None, f"not recorded: {recorded.unavailable}") for part in PART_NAMES[:2]]
    try:
        picture = _prepared(model)
    except ZooError as error:
        return [Finding(part, None, str(error)) for part in PART_NAMES[:2]]
    found = torch.tensor(_sample(picture), dtype=torch.float64)
    expected = torch.tensor(recorded.pixels or [], dtype=torch.float64)
    difference = float((found - expected).abs().max()) if found.shape == expected.shape else float("inf")
    return [
        Finding("preprocess", difference <= PIXEL_TOLERANCE, f"largest difference of a pixel {difference:.3g}"),
        _compared(
            "image tower",
            model.encode_image(_to(picture, model), normalize=True),
            recorded.features or [],
            tolerance,
        ),
    ]


def _check_text(model: DualEncoder, recorded: TextProbe, tolerance: float) -> list[Finding]:
    if recorded.unavailable is not None:
        return [Finding(part, None, f"not recorded: {recorded.unavailable}") for part in PART_NAMES[2:]]
    ids = torch.tensor(recorded.ids or [])
    tokenizer = _check_tokenizer(model, recorded.captions or [], ids)
    try:
        features = model.encode_text(_to(ids, model), normalize=True)
    except InputError as error:
        return [tokenizer, Finding("text tower", False, f"it does not take the ids that were recorded: {error}")]
    return [tokenizer, _compared("text tower", features, recorded.features or [], tolerance)]


def _check_tokenizer(model: DualEncoder, captions: Sequence[str], recorded: Tensor) -> Finding:
    try:
        ids = _ids(model, captions)
    except ZooError as error:
        return Finding("tokenizer", None, str(error))
    assert model.tokenizer is not None
    assert model.text is not None
    try:
        check_tokenizer(model.tokenizer, model.text, model.config)
    except ConfigError as error:
        return Finding("tokenizer", False, str(error))
    same = torch.equal(ids, recorded)
    return Finding("tokenizer", same, "equal ids" if same else "other ids than those recorded")


def _compared(part: str, features: Tensor, recorded: list[list[float]], tolerance: float) -> Finding:
    found, expected = features.double().cpu(), torch.tensor(recorded, dtype=torch.float64)
    if found.shape != expected.shape:
        return Finding(part, False, f"features {list(found.shape)}, recorded {list(expected.shape)}")
    drift = float((1 - F.cosine_similarity(found, expected, dim=-1)).clamp(min=0).max())
    return Finding(part, drift <= tolerance, f"1 - cosine {drift:.2g}, allowed {tolerance:g}")


def _prepared(model: DualEncoder) -> Any:
    if model.preprocess is None:
        raise InputError("the model has no preprocessing")
    return model.preprocess.batch([_picture()])


def _ids(model: DualEncoder, captions: Sequence[str]) -> Tensor:
    if model.tokenizer is None:
        raise InputError("the model has no tokenizer")
    return model.tokenizer(captions, overflow="truncate")  # the captions are ours: whoever saves cannot shorten them


def _picture() -> Image.Image:
    """Return 120 x 90 pixels: slopes of red and green, and blue squares that shrink towards the right."""
    y, x = numpy.mgrid[0:90, 0:120]
    blue = 255 * ((x // (3 + (119 - x) // 12) + y // 7) % 2)
    return Image.fromarray(numpy.stack([x * 255 // 119, y * 255 // 89, blue], axis=-1).astype(numpy.uint8))


def _sample(picture: Any) -> list[float]:
    tensors = cast("Mapping[str, Tensor]", picture).values() if isinstance(picture, Mapping) else [picture]
    values = torch.cat([one.flatten().double() for one in tensors])
    places = torch.linspace(0, len(values) - 1, PIXELS).long()
    return [round(value, 6) for value in _plain(values[places])]


def _features(side: str, features: Tensor) -> list[list[float]]:
    if not bool(features.isfinite().all()):
        raise NotFiniteError(f"the {side} features of the probe are not finite: the weights hold NaN or infinity")
    return [[float(f"{value:.8g}") for value in row] for row in _plain(features.double().cpu())]


def _plain(values: Tensor) -> list[Any]:
    return values.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _to(inputs: Any, model: DualEncoder) -> Any:
    """Return inputs on the model's device, pixels in its dtype."""
    device = next(model.parameters()).device
    if isinstance(inputs, Mapping):
        return {key: _to(value, model) for key, value in cast("Mapping[str, Any]", inputs).items()}
    return inputs.to(device, _main_dtype(model)) if inputs.is_floating_point() else inputs.to(device)


def _main_dtype(model: DualEncoder) -> torch.dtype:
    """Return the dtype of most parameters: norms may stay in float32."""
    counts: dict[torch.dtype, int] = {}
    for parameter in model.parameters():
        counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=lambda dtype: counts[dtype])
