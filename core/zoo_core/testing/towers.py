"""What the test kit checks of a tower: how it is built, what it returns, that it can be copied and saved."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import cast

import torch
from safetensors.torch import save
from torch import Tensor

from zoo_core.config import TextTowerConfig, TowerConfig, VisionTowerConfig
from zoo_core.errors import CapabilityError, reason
from zoo_core.interfaces import TextTower, Tower, VisionTower
from zoo_core.models.construction import construct
from zoo_core.models.towers import expect_attributes
from zoo_core.nn.kv_cache import KVCache
from zoo_core.registry import Component
from zoo_core.testing import fail
from zoo_core.testing.capabilities import check_capabilities, check_shape, close, example_input, seeded

__all__ = ["check_tower"]


def check_tower(component: Component, config: TowerConfig, *, embed_dim: int = 16) -> None:
    """Check a tower: how it is built, what it returns and claims, and that it can be copied and saved."""
    _check_construction(component, config, embed_dim)
    with seeded():
        tower = _build(component, config, embed_dim).eval()
        with torch.no_grad():
            _check_features(component, tower)
            _check_told(component, config, tower)
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
    """Return what belongs to the process and not to a component; the random state may move on."""
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
    told = config.parameter_count(embed_dim)
    if told is not None and told != count:
        fail(f"{component}: parameter_count() tells {told}, but the tower has {count} parameters")
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
    with seeded(), _poisoned_memory():
        tower = _build(component, config, embed_dim)
    return dict(tower.named_parameters()) | dict(tower.named_buffers())


@contextmanager
def _poisoned_memory() -> Generator[None]:
    """Let `torch.empty` return NaN, as in deterministic mode, so that what nobody initialises is seen."""
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)


def _check_features(component: Component, tower: Tower) -> None:
    inputs = example_input(tower, 3)
    untouched = inputs.clone()
    features = {batch: tower(inputs[:batch]) for batch in (0, 1, 3)}
    for batch, found in features.items():
        check_shape(component, f"forward of {batch} rows", found, (batch, tower.output_dim))
    if not torch.equal(inputs, untouched):
        fail(f"{component}: forward changes its input in place")
    if not torch.equal(tower(inputs), features[3]):
        fail(f"{component}: forward in evaluation mode gives another result the second time")
    if not close(features[1], features[3][:1]):
        fail(f"{component}: the feature of a row depends on the other rows of the batch")
    _check_half(component, tower, inputs)


def _check_told(component: Component, config: TowerConfig, tower: Tower) -> None:
    """Check what the config tells of inputs and tokens: patches, width, and whether a text tower goes on from them."""
    told = config.token_width(tower.output_dim)
    if told is not None:
        found = cast("VisionTower | TextTower", tower).forward_tokens(example_input(tower, 1))[1].shape[-1]
        if found != told:
            fail(f"{component}: token_width() tells {told}, but the tokens of forward_tokens have {found} channels")
    if isinstance(tower, VisionTower) and isinstance(config, VisionTowerConfig):
        taken = config.takes_patches()
        if taken != tower.image_patches:
            fail(f"{component}: takes_patches() tells {taken}, but image_patches of the tower is {tower.image_patches}")
    if isinstance(tower, TextTower) and isinstance(config, TextTowerConfig):
        _check_continuation(component, config.supports_kv_cache(), tower)
        _check_reading(component, config, tower)


def _check_reading(component: Component, config: TextTowerConfig, tower: TextTower) -> None:
    """Check that rows are encoded whole where the config tells so, and which tokens depend on later ones."""
    told, ids = config.reading(), example_input(tower, 1)
    whole = tower.read_lengths(ids) is None
    if told.fixed_length != whole:
        found = "None" if whole else "lengths"
        fail(f"{component}: reading() tells fixed_length {told.fixed_length}, but read_lengths gives {found}")
    if told.causal is None or config.token_width(tower.output_dim) is None:
        return
    ids[0, 0] = ids[0, -1]  # the end of text stays in the row
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % tower.vocab_size
    causal = close(tower.forward_tokens(ids)[1][:, :-1], tower.forward_tokens(other)[1][:, :-1])
    if told.causal != causal:
        do = "do not depend" if causal else "depend"
        fail(f"{component}: reading() tells causal {told.causal}, but tokens {do} on later ids")


def _check_continuation(component: Component, claimed: bool, tower: TextTower) -> None:
    """Check that ids taken in one by one give the tokens of the whole row, or that the tower refuses."""
    last, length, memory = tower.vocab_size - 1, tower.context_length, KVCache()
    ids = torch.tensor([[last - place % 2 for place in range(length)]])  # the largest ids are no padding
    try:
        parts = [tower.decode_step(ids[:, place : place + 1], memory) for place in range(length)]
    except CapabilityError as error:
        if claimed:
            fail(f"{component}: supports_kv_cache() is true, but: {error}")
        return
    if not claimed:
        fail(f"{component}: supports_kv_cache() is false, but the tower offers decode_step")
    if not close(torch.cat(parts, dim=1), tower.forward_tokens(ids)[1]):
        fail(f"{component}: the tokens of decode_step are not those of forward_tokens")


def _check_half(component: Component, tower: Tower, inputs: Tensor) -> None:
    half = copy.deepcopy(tower).to(torch.bfloat16)
    try:
        features = half(inputs.to(torch.bfloat16) if inputs.is_floating_point() else inputs)
    except RuntimeError as error:
        fail(f"{component}: it cannot run in bfloat16: {reason(error)}")
    if features.dtype != torch.bfloat16:
        fail(f"{component}: its features in bfloat16 come as {features.dtype}")


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
    for what, one in copies.items():
        if not close(one.eval()(inputs), expected):
            fail(f"{component}: {what} gives other features")
