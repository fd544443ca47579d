"""Checks of a tower's capabilities: claimed ones work, others are refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from zoo_core.errors import CapabilityError, InputError, describe
from zoo_core.images.patches import pad_patches, patchify
from zoo_core.interfaces import TextTower, Tower, VisionTower
from zoo_core.models.towers import modalities_of
from zoo_core.nn.intermediates import BlockwiseModule
from zoo_core.plugin import CAPABILITIES
from zoo_core.registry import Component, default_registry
from zoo_core.testing.failure import fail

__all__ = ["check_capabilities", "check_shape", "close", "example_input", "seeded"]

_ONE_SIDED = {
    "variable-image-size": "vision-tower",
    "image-patches": "vision-tower",
    "variable-text-length": "text-tower",
}


def example_input(tower: Tower, batch: int) -> Tensor:
    """Return random images `[B, 3, H, W]`, token ids `[B, L]` that end in the `eos_id` or the largest id, or others."""
    if isinstance(tower, VisionTower):
        return torch.randn(batch, 3, *tower.image_size)
    if not isinstance(tower, TextTower):
        return modalities_of(default_registry(), [tower.modality])[tower.modality].example(tower, batch)
    ids = torch.randint(0, tower.vocab_size - 1, (batch, tower.context_length))
    ids[:, -1] = tower.vocab_size - 1 if tower.eos_id is None else tower.eos_id
    return ids


@contextmanager
def seeded() -> Generator[None]:
    """Draw from seed 0 inside, and leave torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
        yield


def check_capabilities(component: Component, tower: Tower) -> None:
    """Check every capability, each on a copy of `tower`."""
    for capability in CAPABILITIES:
        claimed = capability in component.spec.capabilities
        side = _ONE_SIDED.get(capability, component.spec.kind)
        if claimed and side != component.spec.kind:
            fail(f"{component} claims '{capability}', which only a {side} can")
        try:
            _CAPABILITY_CHECKS[capability](component, copy.deepcopy(tower), claimed)
        except (CapabilityError, InputError) as error:
            if claimed:
                fail(f"{component} claims '{capability}', but: {error}")
            if isinstance(error, InputError):
                raise


def _check_refusal(component: Component, capability: str, call: Callable[[], object]) -> None:
    """Check that what is not claimed is refused; the `CapabilityError` goes on to the caller."""
    try:
        call()
    except CapabilityError:
        raise
    except Exception as error:
        fail(f"{component} must refuse '{capability}' with a CapabilityError, found {type(error).__name__}: {error}")
    fail(f"{component} does not claim '{capability}', but offers it; claim it, or leave it out")


def check_tokens(component: Component, tower: Tower, claimed: bool) -> None:
    inputs = example_input(tower, 2)
    forward_tokens: Callable[[Tensor], tuple[Tensor, Tensor]] = cast("Any", tower).forward_tokens
    if not claimed:
        _check_refusal(component, "tokens", lambda: forward_tokens(inputs))
    with torch.no_grad():
        features, tokens = forward_tokens(inputs)
        if not close(features, tower(inputs)):
            fail(f"{component}: the features of forward_tokens are not those of forward")
    if tokens.ndim != 3 or tokens.shape[0] != 2:
        fail(f"{component}: the tokens of forward_tokens must be [2, N, width], found {list(tokens.shape)}")


def check_intermediates(component: Component, tower: Tower, claimed: bool) -> None:
    inputs = example_input(tower, 2)
    give: Callable[..., dict[str, Any]] = cast("Any", tower).forward_intermediates
    if not claimed:
        _check_refusal(component, "intermediates", lambda: give(inputs))
    side = tower.modality
    with torch.no_grad():
        _check_blocks(component, tower, inputs)
        everything = give(inputs)
        last = give(inputs, indices=1, stop_early=True, intermediates_only=True)
        features = tower(inputs)
        _check_norm(component, lambda: give(inputs, normalize_intermediates=True))
    for key in (f"{side}_intermediates", f"{side}_features"):
        if key not in everything:
            fail(f"{component}: forward_intermediates must return '{key}', found {sorted(everything)}")
    if not close(everything[f"{side}_features"], features):
        fail(f"{component}: the features of forward_intermediates are not those of forward")
    if f"{side}_features" in last:
        fail(f"{component}: forward_intermediates returns features despite intermediates_only")
    outputs = last[f"{side}_intermediates"]
    if len(outputs) != 1 or not close(outputs[0], everything[f"{side}_intermediates"][-1]):
        fail(f"{component}: forward_intermediates(indices=1) must return the last block's output alone")
    for wrong in ({"output_fmt": "nonsense"}, {"indices": [10_000]}):
        try:
            give(inputs, **wrong)
        except InputError:
            continue
        fail(f"{component}: forward_intermediates must refuse {wrong} with an InputError")


def _check_norm(component: Component, give: Callable[[], object]) -> None:
    """Check that the final norm, where there is one, takes what the blocks give."""
    try:
        give()
    except (CapabilityError, InputError):
        return
    except Exception as error:
        fail(f"{component}: the norm of final_norm() does not take the outputs of blocks: {error}")


def _check_blocks(component: Component, tower: Tower, inputs: Tensor) -> None:
    """Check what `forward_intermediates` is derived from: the number of blocks, and which tokens are extra."""
    if type(tower).forward_blocks is BlockwiseModule.forward_blocks:  # a library runs the blocks
        return
    outputs: list[Tensor] = []
    copies: list[Tensor] = []
    for output in tower.forward_blocks(inputs):
        if not isinstance(cast("object", output), Tensor):
            fail(f"{component}: forward_blocks must yield tensors, found {type(output).__name__}")
        outputs.append(output)
        copies.append(output.clone())
    if not all(map(torch.equal, outputs, copies)):
        fail(f"{component}: a block changes the output of an earlier one in place; let it return a new tensor")
    if len(outputs) != tower.num_blocks():
        fail(f"{component}: num_blocks() is {tower.num_blocks()}, but forward_blocks yields {len(outputs)} outputs")
    for output in outputs:
        if output.ndim not in (3, 4) or len(output) != len(inputs):
            fail(f"{component}: forward_blocks must yield [2, C, h, w] or [2, N, C], found {list(output.shape)}")
        if output.ndim == 4 and tower.num_prefix_tokens + tower.num_suffix_tokens:
            fail(f"{component}: forward_blocks yields maps, beside which there are no prefix or suffix tokens")
        if output.ndim == 3 and ("NCHW" in tower.output_formats or isinstance(tower, TextTower)):
            _check_extra_tokens(component, tower, inputs, output.shape[1])


def _check_extra_tokens(component: Component, tower: Tower, inputs: Tensor, count: int) -> None:
    """Check that a block has `count` tokens: prefix, text or patches, suffix."""
    if isinstance(tower, TextTower):
        length, what = inputs.shape[1], "token ids"
    else:
        grid = tower.patch_grid(inputs)
        if not isinstance(cast("object", grid), tuple) or len(grid) != 2:
            fail(f"{component}: patch_grid must return rows and columns, found {describe(grid)}")
        rows, columns = grid
        length, what = rows * columns, f"patches of patch_grid() ({rows} x {columns})"
    prefix, suffix = tower.num_prefix_tokens, tower.num_suffix_tokens
    if count != prefix + length + suffix:
        fail(
            f"{component}: forward_blocks yields {count} tokens for {length} {what}, "
            f"but num_prefix_tokens is {prefix} and num_suffix_tokens is {suffix}"
        )


def check_locking(component: Component, tower: Tower, claimed: bool) -> None:
    tower.lock()
    if any(parameter.requires_grad for parameter in tower.parameters()):
        fail(f"{component}: lock() leaves parameters trainable")
    if not claimed:
        _check_refusal(component, "locking", lambda: tower.lock(1))
    groups = len(tower.layer_groups())
    trainable: list[int] = []
    for unlocked in range(1, groups + 1):
        tower.lock(unlocked)
        trainable.append(sum(parameter.numel() for parameter in tower.parameters() if parameter.requires_grad))
    if any(more <= less for less, more in zip([0, *trainable], trainable, strict=False)):
        fail(f"{component}: each layer group must unlock more parameters than the last, found {trainable}")
    if trainable[-1] != sum(parameter.numel() for parameter in tower.parameters()):
        fail(f"{component}: its layer groups leave some parameters out")


def check_gradient_checkpointing(component: Component, tower: Tower, claimed: bool) -> None:
    inputs = example_input(tower, 2)
    plain, plain_bytes = _gradients(tower, inputs)
    if not plain or any(not bool(gradient.isfinite().all()) for gradient in plain.values()):
        fail(f"{component}: the backward pass gives no gradients, or gradients that are not finite")
    tower.set_grad_checkpointing(False)
    if not claimed:
        _check_refusal(component, "gradient-checkpointing", tower.set_grad_checkpointing)
    tower.set_grad_checkpointing()
    checkpointed, fewer_bytes = _gradients(tower, inputs)
    if plain.keys() != checkpointed.keys() or any(not close(plain[name], checkpointed[name]) for name in plain):
        fail(f"{component}: gradient checkpointing changes the gradients")
    if fewer_bytes >= plain_bytes:
        fail(f"{component}: gradient checkpointing keeps as many activations as without")


def _gradients(tower: Tower, inputs: Tensor) -> tuple[dict[str, Tensor], int]:
    """Return the gradients of a training step, and how many bytes were kept for the backward pass."""
    saved_bytes = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal saved_bytes
        saved_bytes += tensor.numel() * tensor.element_size()
        return tensor

    with (
        seeded(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        tower.train().zero_grad()
        tower(inputs).square().sum().backward()
    return {
        name: parameter.grad.clone() for name, parameter in tower.named_parameters() if parameter.grad is not None
    }, saved_bytes


def check_variable_image_size(component: Component, tower: Tower, claimed: bool) -> None:
    if isinstance(tower, VisionTower):
        _check_attribute(component, "variable-image-size", tower, "variable_image_size", claimed)
        if claimed:
            height, width = tower.image_size
            features = tower(torch.randn(2, 3, 2 * height, width))
            check_shape(component, f"forward of {2 * height} x {width} pixels", features, (2, tower.output_dim))


def check_image_patches(component: Component, tower: Tower, claimed: bool) -> None:
    """Check that an image and its patches have one feature, and that padding and other images change none."""
    if not isinstance(tower, VisionTower):
        return
    size = tower.image_patches
    if (size is not None) is not claimed:
        claims = "claims" if claimed else "does not claim"
        fail(f"{component} {claims} 'image-patches', but image_patches of the tower is {size}")
    if size is None:
        return
    images = example_input(tower, 3)
    small = images[2, :, : size[0], : size[1]]  # one patch
    patched = [patchify(image, size) for image in (*images[:2], small)]
    length = len(patched[0]["patches"])
    with torch.no_grad():
        expected = tower(images[:2])
        features, padded = (tower(pad_patches(patched, length + padding)) for padding in (0, 3))
        alone = tower(pad_patches(patched[2:]))
    check_shape(component, "forward of patches", features, (3, tower.output_dim))
    if not close(features[:2], expected):
        fail(f"{component}: an image and its patches have different features")
    if not close(features, padded) or not close(features[2:], alone):
        fail(f"{component}: padding changes the features of patches")


def check_variable_text_length(component: Component, tower: Tower, claimed: bool) -> None:
    if isinstance(tower, TextTower):
        # A claim says that some configs take shorter rows: how a tower pools may depend on its config.
        if not claimed:
            _check_attribute(component, "variable-text-length", tower, "variable_text_length", claimed)
        if tower.variable_text_length:
            length = math.ceil(tower.context_length / 2)
            features = tower(example_input(tower, 2)[:, -length:])
            check_shape(component, f"forward of {length} tokens", features, (2, tower.output_dim))
        _check_read_lengths(component, tower)


def _check_read_lengths(component: Component, tower: TextTower) -> None:
    """Check that no feature depends on the ids that `read_lengths` leaves out, nor on whether they are there."""
    ids = example_input(tower, 4)
    for row in range(3):  # the fourth row is full
        ids[row, row * tower.context_length // 4] = tower.vocab_size - 1
    lengths = tower.read_lengths(ids)
    if lengths is None:
        return
    if lengths.shape != (4,) or not bool(((lengths >= 1) & (lengths <= tower.context_length)).all()):
        fail(f"{component}: read_lengths must return numbers [4] from 1 to {tower.context_length}, found {lengths}")
    tower.eval()
    with torch.no_grad():
        features = tower(ids)
        for row, length in enumerate(cast("list[int]", lengths.tolist())):  # pyright: ignore[reportUnknownMemberType]
            if not close(tower(ids[row : row + 1, :length]), features[row : row + 1]):
                fail(f"{component}: a row cut to the {length} ids that read_lengths tells has another feature")


def _check_attribute(component: Component, capability: str, tower: Tower, name: str, claimed: bool) -> None:
    if getattr(tower, name) is not claimed:
        claims = "claims" if claimed else "does not claim"
        fail(f"{component} {claims} '{capability}', but {name} of the tower is {getattr(tower, name)}")


_CAPABILITY_CHECKS: dict[str, Callable[[Component, Tower, bool], None]] = {
    "tokens": check_tokens,
    "intermediates": check_intermediates,
    "locking": check_locking,
    "gradient-checkpointing": check_gradient_checkpointing,
    "variable-image-size": check_variable_image_size,
    "image-patches": check_image_patches,
    "variable-text-length": check_variable_text_length,
}


def check_shape(component: Component, what: str, features: object, shape: tuple[int, ...]) -> None:
    """Check that `features` are finite, of floating point, and of this shape."""
    if not isinstance(features, Tensor) or not features.is_floating_point() or tuple(features.shape) != shape:
        actual = f"{features.dtype} {list(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        fail(f"{component}: {what} must return floating-point features {list(shape)}, found {actual}")
    if not bool(features.isfinite().all()):
        fail(f"{component}: {what} returns values that are not finite")


def close(actual: Tensor, expected: Tensor) -> bool:
    """Tell whether two tensors are equal but for rounding in float32."""
    return actual.shape == expected.shape and torch.allclose(actual, expected, rtol=1e-4, atol=1e-5)
