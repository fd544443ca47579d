"""Probes: fixed inputs of each modality, and their recorded features.

A digest tells that the bytes are the same; a probe tells that they still mean the same: that preprocessing, tokenizer
and towers on this machine, with these versions, device and dtype, give the features that they gave where the model was
saved. `Modality.probe_inputs` gives the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from zoo.catalog.architectures import registry
from zoo.saved.origin import ImageProbe, Origin, Probe, TextProbe, ValuesProbe
from zoo_core.errors import ConfigError, DownloadError, InputError, NotFiniteError, ZooError
from zoo_core.models.dual_encoder import DualEncoder
from zoo_core.models.modality import Modality
from zoo_core.models.text_inputs import check_tokenizer
from zoo_core.nn.eval_mode import evaluating
from zoo_core.plugin import ModalitySpec

__all__ = ["Finding", "check_probe", "environment", "make_probe", "part_names"]

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
VALUES = 64
"""How many values of the prepared inputs are recorded, evenly spaced."""
VALUE_TOLERANCE = 0.05
"""Largest difference of a preprocessed value: decoders and resizers differ by at most 1 in 255, before the division."""


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


def part_names(origin: Origin) -> list[str]:
    """Return the parts of a saved model that its probe is of, in order."""
    saved = [modality for modality in registry().modalities if modality.tower_kind in origin.parts]
    return [part for modality in saved for part in _parts(modality)]


def _parts(modality: ModalitySpec) -> tuple[str, str]:
    return modality.processor, f"{modality.name} tower"


def make_probe(model: DualEncoder) -> dict[str, Any]:
    """Return what the model makes of the probe, as plain data.

    A tokenizer or preprocessing that cannot be had here (a missing package, no network) is recorded as such.

    Raises:
        NotFiniteError: a feature is not finite, so the weights hold NaN or infinity.
    """
    probe: dict[str, Any] = {"environment": environment(model)}
    with evaluating(model), torch.no_grad():
        for name, modality in model.modalities.items():
            probe[name] = _record(model, modality)
    return probe


def _record(model: DualEncoder, modality: Modality) -> dict[str, Any]:
    """Return values of the prepared inputs of one modality, or all of token ids, and the features."""
    raw = modality.probe_inputs()
    try:
        batch = _prepared(model, modality, raw)
    except (ConfigError, DownloadError):  # which would tell folders of this machine
        return {"unavailable": f"the {modality.spec.processor} could not be loaded where the model was saved"}
    except ZooError as error:
        return {"unavailable": str(error)}
    if modality.name == "text":
        record: dict[str, Any] = {"captions": list(raw), "ids": _plain(batch)}
    else:
        record = {(ImageProbe if modality.name == "image" else ValuesProbe).key: _sample(batch)}
    features = model.encode(modality.name, _to(batch, model), normalize=True)
    if not bool(features.isfinite().all()):
        raise NotFiniteError(
            f"the {modality.name} features of the probe are not finite: the weights hold NaN or infinity"
        )
    return record | {"features": [[float(f"{value:.8g}") for value in row] for row in _plain(features.double().cpu())]}


def check_probe(model: DualEncoder, probe: Probe) -> list[Finding]:
    """Return how each part of the model compares with its probe; those it was built without are left out."""
    recorded_in = _DTYPES[probe.environment.dtype]
    tolerance = max(TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16]) for dtype in (recorded_in, _main_dtype(model)))
    findings: list[Finding] = []
    with evaluating(model), torch.no_grad():
        for name in model.towers:
            modality, recorded = model.modalities[name], probe.of(name)
            if recorded.unavailable is not None:
                reason = f"not recorded: {recorded.unavailable}"
                findings += [Finding(part, None, reason) for part in _parts(modality.spec)]
            elif isinstance(recorded, TextProbe):
                findings += _check_text(model, recorded, tolerance)
            else:
                findings += _check_values(model, modality, recorded, tolerance)
    return findings


def _check_values(
    model: DualEncoder, modality: Modality, recorded: ImageProbe | ValuesProbe, tolerance: float
) -> list[Finding]:
    processor, tower = _parts(modality.spec)
    try:
        batch = _prepared(model, modality, modality.probe_inputs())
    except ZooError as error:
        return [Finding(part, None, str(error)) for part in (processor, tower)]
    values = torch.tensor(_sample(batch), dtype=torch.float64)
    expected = torch.tensor(getattr(recorded, recorded.key) or [], dtype=torch.float64)
    difference = float((values - expected).abs().max()) if values.shape == expected.shape else float("inf")
    features = model.encode(modality.name, _to(batch, model), normalize=True)
    return [
        Finding(processor, difference <= VALUE_TOLERANCE, f"largest difference of a {recorded.unit} {difference:.3g}"),
        _compared(tower, features, recorded.features or [], tolerance),
    ]


def _check_text(model: DualEncoder, recorded: TextProbe, tolerance: float) -> list[Finding]:
    ids = torch.tensor(recorded.ids or [])
    tokenizer = _check_tokenizer(model, recorded.captions or [], ids)
    try:
        features = model.encode_text(_to(ids, model), normalize=True)
    except InputError as error:
        return [tokenizer, Finding("text tower", False, f"it does not take the ids that were recorded: {error}")]
    return [tokenizer, _compared("text tower", features, recorded.features or [], tolerance)]


def _check_tokenizer(model: DualEncoder, captions: Sequence[str], recorded: Tensor) -> Finding:
    try:
        ids = _prepared(model, model.modalities["text"], captions)
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
    computed, expected = features.double().cpu(), torch.tensor(recorded, dtype=torch.float64)
    if computed.shape != expected.shape:
        return Finding(part, False, f"features {list(computed.shape)}, recorded {list(expected.shape)}")
    drift = float((1 - F.cosine_similarity(computed, expected, dim=-1)).clamp(min=0).max())
    return Finding(part, drift <= tolerance, f"1 - cosine {drift:.2g}, allowed {tolerance:g}")


def _prepared(model: DualEncoder, modality: Modality, raw: Sequence[Any]) -> Any:
    processor = modality.processor(model)
    if processor is None:
        raise InputError(f"the model has no {modality.spec.processor}")
    return modality.prepare(processor, raw)


def _sample(batch: Any) -> list[float]:
    tensors = cast("Mapping[str, Tensor]", batch).values() if isinstance(batch, Mapping) else [batch]
    values = torch.cat([tensor.flatten().double() for tensor in tensors])
    places = torch.linspace(0, len(values) - 1, VALUES).long()
    return [round(value, 6) for value in _plain(values[places])]


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
