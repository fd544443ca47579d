"""Checks of a tower: construction, features, declarations, copies."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from typing import cast

import torch
from safetensors.torch import save
from torch import Tensor

from zoo_core.config import TextTowerConfig, TowerConfig, VisionTowerConfig
from zoo_core.errors import CapabilityError, reason
from zoo_core.interfaces import TextTower, Tower, VisionTower
from zoo_core.models.build_tower import construct, expect_attributes
from zoo_core.nn.kv_cache import KVCache
from zoo_core.registry import Component
from zoo_core.testing.capabilities import check_capabilities, check_shape, close, example_input, seeded
from zoo_core.testing.failure import fail

__all__ = ["check_tower"]


def check_tower(component: Component, config: TowerConfig, *, embed_dim: int = 16) -> None:
    """Check a tower: how it is built, what it returns and claims, and that it can be copied and saved."""
    _check_construction(component, config, embed_dim)
    with seeded():
        tower = _build(component, config, embed_dim).eval()
        with torch.no_grad():
            _check_features(component, tower)
            _check_declarations(component, config, tower)
            _check_copies(component, tower, lambda: _build(component, config, embed_dim).eval())
        check_capabilities(component, tower)


def _build(component: Component, config: TowerConfig, embed_dim: int) -> Tower:
    before = _settings()
    tower = construct(component, config, embed_dim)
    for setting, value in _settings().items():
        if value != before[setting]:
            fail(f"{component}: building it changes {setting} from {before[setting]} to {value}")
    expect_attributes(component, tower, config, embed_dim)
    return tower


def _settings() -> dict[str, object]:
    """Return the settings of the process, which no component may change; the random state may advance."""
    return {
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "the number of threads": torch.get_num_threads(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "the float32 matmul precision": torch.get_float32_matmul_precision(),
        "the working directory": os.getcwd(),  # noqa: PTH109
    }


def _check_construction(component: Component, config: TowerConfig, embed_dim: int) -> None:
    with torch.device("meta"):
        bare = _build(component, config, embed_dim)
    for name, parameter in bare.named_parameters():
        if not parameter.is_meta:
            fail(f"{component}: parameter '{name}' takes memory when built under torch.device('meta')")
    count = sum(parameter.numel() for parameter in bare.parameters())
    declared = config.parameter_count(embed_dim)
    if declared is not None and declared != count:
        fail(f"{component}: parameter_count() tells {declared}, but the tower has {count} parameters")
    unknown = sorted(bare.no_weight_decay() - {name for name, _ in bare.named_parameters()})
    if unknown:
        fail(f"{component}: no_weight_decay() names {unknown}, which are no parameters")
    first, second = (_built_tensors(component, config, embed_dim) for _ in range(2))
    for name, value in first.items():
        if value.is_floating_point() and bool(value.isnan().any()):
            fail(f"{component}: '{name}' is left uninitialised, or NaN")
        if name not in second or not torch.equal(value, second[name]):
            fail(f"{component}: '{name}' differs between two builds from one seed")


def _built_tensors(component: Component, config: TowerConfig, embed_dim: int) -> dict[str, Tensor]:
    """Return the parameters and buffers of a new tower; what nobody initialises is NaN."""
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch.empty then gives NaN
    try:
        with seeded():
            tower = _build(component, config, embed_dim)
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
    return dict(tower.named_parameters()) | dict(tower.named_buffers())


def _check_features(component: Component, tower: Tower) -> None:
    inputs = example_input(tower, 3)
    untouched = inputs.clone()
    features = {batch: tower(inputs[:batch]) for batch in (0, 1, 3)}
    for batch, rows in features.items():
        check_shape(component, f"forward of {batch} rows", rows, (batch, tower.output_dim))
    if not torch.equal(inputs, untouched):
        fail(f"{component}: forward changes its input in place")
    if not torch.equal(tower(inputs), features[3]):
        fail(f"{component}: forward in evaluation mode gives another result the second time")
    if not close(features[1], features[3][:1]):
        fail(f"{component}: the feature of a row depends on the other rows of the batch")
    half = copy.deepcopy(tower).to(torch.bfloat16)
    try:
        half_features = half(inputs.to(torch.bfloat16) if inputs.is_floating_point() else inputs)
    except RuntimeError as error:
        fail(f"{component}: it cannot run in bfloat16: {reason(error)}")
    if half_features.dtype != torch.bfloat16:
        fail(f"{component}: its features in bfloat16 come as {half_features.dtype}")


def _check_declarations(component: Component, config: TowerConfig, tower: Tower) -> None:
    """Check what the config declares of inputs and tokens: patches, width, reading, and whether the tower decodes."""
    width = config.token_width(tower.output_dim)
    if width is not None:
        channels = cast("VisionTower | TextTower", tower).forward_tokens(example_input(tower, 1))[1].shape[-1]
        if channels != width:
            fail(f"{component}: token_width() tells {width}, but the tokens of forward_tokens have {channels} channels")
    if isinstance(tower, VisionTower) and isinstance(config, VisionTowerConfig):
        patch = config.takes_patches()
        if patch != tower.image_patches:
            fail(f"{component}: takes_patches() tells {patch}, but image_patches of the tower is {tower.image_patches}")
    if isinstance(tower, TextTower) and isinstance(config, TextTowerConfig):
        _check_decoding(component, config.supports_kv_cache(), tower)
        _check_reading(component, config, tower)


def _check_reading(component: Component, config: TextTowerConfig, tower: TextTower) -> None:
    """Check that rows are encoded whole where the config says so, and which tokens depend on later ones."""
    reading, ids = config.reading(), example_input(tower, 1)
    whole = tower.read_lengths(ids) is None
    if reading.fixed_length != whole:
        result = "None" if whole else "lengths"
        fail(f"{component}: reading() tells fixed_length {reading.fixed_length}, but read_lengths gives {result}")
    if reading.causal is None or config.token_width(tower.output_dim) is None:
        return
    ids[0, 0] = ids[0, -1]  # the end of text stays in the row
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % tower.vocab_size
    causal = close(tower.forward_tokens(ids)[1][:, :-1], tower.forward_tokens(other)[1][:, :-1])
    if reading.causal != causal:
        do = "do not depend" if causal else "depend"
        fail(f"{component}: reading() tells causal {reading.causal}, but tokens {do} on later ids")


def _check_decoding(component: Component, claimed: bool, tower: TextTower) -> None:
    """Check that ids taken in one by one give the tokens of the whole row, or that the tower refuses."""
    last, positions, cache = tower.vocab_size - 1, range(tower.context_length), KVCache()
    ids = torch.tensor([[last - position % 2 for position in positions]])  # the largest ids are no padding
    try:
        parts = [tower.decode_step(ids[:, position : position + 1], cache) for position in positions]
    except CapabilityError as error:
        if claimed:
            fail(f"{component}: supports_kv_cache() is true, but: {error}")
        return
    if not claimed:
        fail(f"{component}: supports_kv_cache() is false, but the tower offers decode_step")
    if not close(torch.cat(parts, dim=1), tower.forward_tokens(ids)[1]):
        fail(f"{component}: the tokens of decode_step are not those of forward_tokens")


def _check_copies(component: Component, tower: Tower, build: Callable[[], Tower]) -> None:
    inputs = example_input(tower, 2)
    expected = tower(inputs)
    state = tower.state_dict()
    other = build()
    try:
        save({key: value.contiguous() for key, value in state.items()})
        other.load_state_dict(state, strict=True)
    except (RuntimeError, ValueError, AttributeError) as error:
        fail(f"{component}: its state dict cannot be saved and loaded: {' '.join(str(error).split())}")
    copies = {
        "a tower that loads its state dict": other,
        "its deep copy": copy.deepcopy(tower),
        "its pickle": cast("Tower", pickle.loads(pickle.dumps(tower))),  # noqa: S301 - bytes of our own
    }
    for what, twin in copies.items():
        if not close(twin.eval()(inputs), expected):
            fail(f"{component}: {what} gives other features")
