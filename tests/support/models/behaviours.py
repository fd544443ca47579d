"""What every model does, whatever its towers: one function for each behaviour, its docstring a row of docs/behaviours.md.

Each takes the name of a family and raises `AssertionError` where the behaviour is broken. What is expected is found
without the code under test: by hooks on the blocks, by sums in float64, by the parameters themselves.
"""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from support.models.families import EMBED_DIM, FAMILIES, Tower, model_of, pictures, words
from zoo.cli.listing import info_command
from zoo_core.errors import CapabilityError, InputError
from zoo_core.nn.layers import LayerNorm, RMSNorm
from zoo_core.nn.precision import cast_matrices

TOLERANCE = 1e-5
REFUSALS = (InputError, CapabilityError)


def same(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Compare tensors, or structures of them, of one dtype."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def outputs(model: Any) -> dict[str, Any]:
    """Return what `forward` gives, by name."""
    model.output_dict = True
    with torch.no_grad():
        return model(pictures(model), words(model))


# Features


def encode_image(name: str) -> None:
    """`encode_image`, `normalize`"""
    model = model_of(name)
    _encodes(model.encode_image, pictures(model))


def encode_text(name: str) -> None:
    """`encode_text`, `normalize`"""
    model = model_of(name)
    _encodes(model.encode_text, words(model))


@torch.no_grad()
def _encodes(encode: Callable[..., Tensor], given: Tensor) -> None:
    features = encode(given)
    assert features.shape == (len(given), EMBED_DIM)
    assert (features - features.mean(dim=0)).norm() > 1e-3 * features.norm(), "rows do not differ"
    same(torch.cat([encode(row[None]) for row in given]), features)
    same(encode(given, normalize=True), F.normalize(features.double(), dim=-1).float())
    assert encode(given[:0]).shape == (0, EMBED_DIM)


@torch.no_grad()
def logits(name: str) -> None:
    """`get_logits`, `similarity`, `probabilities`"""
    model = model_of(name)
    image, text = pictures(model), words(model, 4)
    one, other = (
        F.normalize(features.double(), dim=-1) for features in (model.encode_image(image), model.encode_text(text))
    )
    expected = model.logit_scale.double().exp() * one @ other.T + (0 if model.logit_bias is None else model.logit_bias)
    image_logits, text_logits = model.get_logits(image, text)
    same(image_logits.double(), expected, 1e-4)
    same(text_logits, image_logits.T, 0)
    same(model.similarity(image, text).double(), one @ other.T)
    likely = expected.softmax(dim=-1) if model.logit_bias is None else expected.sigmoid()
    same(model.probabilities(image, text).double(), likely, 1e-4)


def forward_as_dict(name: str) -> None:
    """`forward` as a dict"""
    model = model_of(name)
    found = outputs(model)
    names = ["image_features", "text_features", "logit_scale"] + ["logit_bias"] * (model.logit_bias is not None)
    assert set(names) <= set(found)
    with torch.no_grad():
        same(found["image_features"], model.encode_image(pictures(model), normalize=True))
        same(found["text_features"], model.encode_text(words(model), normalize=True))
        alone = model(text=words(model))
    assert found["logit_scale"].item() == pytest.approx(model.logit_scale.exp().item())
    assert alone["image_features"] is None
    same(alone["text_features"], found["text_features"])


def forward_as_tuple(name: str, *, offered: bool = True) -> None:
    """`forward` as a tuple"""
    model = model_of(name)
    with torch.no_grad():
        found = model(pictures(model), words(model))
    assert isinstance(found, tuple if offered else dict)
    same(tuple(found) if offered else tuple(found.values()), tuple(outputs(model).values()), 0)


# Intermediates


def modules_of(tower: nn.Module, kind: Tower) -> list[nn.Module]:
    """Return the blocks whose outputs are the intermediates."""
    found = [tower.get_submodule(name) for name in kind.blocks]
    lists = (nn.ModuleList, nn.Sequential)
    return list(found[0].children()) if len(found) == 1 and isinstance(found[0], lists) else found


@contextmanager
def hooked(blocks: list[nn.Module]) -> Generator[dict[int, Tensor]]:
    """Collect the outputs of blocks that run inside, by number."""
    seen: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        return lambda _, __, output: seen.__setitem__(number, output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep(number)) for number, block in enumerate(blocks)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def sides(name: str, model: Any) -> dict[str, tuple[Tower, nn.Module, Tensor]]:
    """Return kind, module and input of both towers."""
    family = FAMILIES[name]
    return {"image": (family.vision, model.visual, pictures(model)), "text": (family.text, model.text, words(model))}


def tokens_of(output: Tensor, kind: Tower, side: str) -> tuple[Tensor, Tensor]:
    """Return patches or words `[B, N, C]`, and the extra tokens `[B, extra, C]`, of what a block gave."""
    if output.ndim == 4:
        output = output.flatten(2).transpose(1, 2)
    if side == "image":
        return output[:, kind.extra :], output[:, : kind.extra]
    length = output.shape[1] - kind.extra
    return output[:, :length], output[:, length:]


def _indices(name: str, side: str) -> None:
    model = model_of(name)
    kind, tower, given = sides(name, model)[side]
    blocks = modules_of(tower, kind)
    count = len(blocks)
    with torch.no_grad(), hooked(blocks) as seen:
        features = tower(given)
    expected = [tokens_of(seen[number], kind, side)[0] for number in range(count)]
    fmt = {f"{side}_output_fmt": "NLC"}
    for indices in (None, 1, count, [0], [-1], [0, count - 1], [-count]):
        wanted = range(count) if indices is None else range(count)[-indices:] if isinstance(indices, int) else indices
        for early, only in itertools.product((False, True), (False, True)):
            options = {f"{side}_indices": indices, "stop_early": early, "intermediates_only": only, "normalize": False}
            with torch.no_grad(), hooked(blocks) as ran:
                found = model.forward_intermediates(**{side: given}, **options, **fmt)
            same(found[f"{side}_intermediates"], [expected[number] for number in wanted])
            last = max(number % count for number in wanted)
            assert max(ran) == (last if early and only else count - 1), (
                "blocks after the last wanted one run, or do not"
            )
            assert (f"{side}_features" in found) is not only
            if not only:
                same(found[f"{side}_features"], features)
    for wrong in (0, count + 1, [count], [-count - 1]):
        with pytest.raises(InputError, match="indices"):
            model.forward_intermediates(**{side: given, f"{side}_indices": wrong})


def image_intermediates(name: str) -> None:
    """`image_indices`, `stop_early`, `intermediates_only`"""
    _indices(name, "image")


def text_intermediates(name: str) -> None:
    """`text_indices`, `stop_early`, `intermediates_only`"""
    _indices(name, "text")


@torch.no_grad()
def image_formats(name: str) -> None:
    """`image_output_fmt`: `NCHW` and `NLC`"""
    model = model_of(name)
    image = pictures(model)
    rows, columns = model.visual.image_size
    maps = model.forward_intermediates(image)["image_intermediates"]
    tokens = model.forward_intermediates(image, image_output_fmt="NLC")["image_intermediates"]
    for one, other in zip(maps, tokens, strict=True):
        assert one.ndim == 4 and one.shape[2] * columns == one.shape[3] * rows
        same(one.flatten(2).transpose(1, 2), other)
    for option in ({"image_output_fmt": "NHWC"}, {"text_output_fmt": "NCHW"}):
        with pytest.raises(InputError, match="output_fmt must be"):
            model.forward_intermediates(image, words(model), **option)


def _extra_tokens(name: str, side: str, key: str, *, offered: bool) -> None:
    model = model_of(name)
    kind, tower, given = sides(name, model)[side]
    blocks = modules_of(tower, kind)
    with torch.no_grad(), hooked(blocks) as seen:
        found = model.forward_intermediates(**{side: given, f"{side}_output_extra_tokens": True})
        plain = model.forward_intermediates(**{side: given})
    assert key not in plain
    same(found[f"{side}_intermediates"], plain[f"{side}_intermediates"], 0)
    assert (key in found) is offered
    if offered:
        same(found[key], [tokens_of(seen[number], kind, side)[1] for number in range(len(blocks))])


def image_prefix(name: str, *, offered: bool = True) -> None:
    """`image_output_extra_tokens`"""
    _extra_tokens(name, "image", "image_intermediates_prefix", offered=offered)


def text_suffix(name: str, *, offered: bool = True) -> None:
    """`text_output_extra_tokens`"""
    _extra_tokens(name, "text", "text_intermediates_suffix", offered=offered)


def _normed(name: str, side: str, *, offered: bool) -> None:
    model = model_of(name)
    kind, tower, given = sides(name, model)[side]
    fmt = {f"{side}_output_fmt": "NLC"}
    with torch.no_grad():
        plain = model.forward_intermediates(**{side: given}, **fmt)[f"{side}_intermediates"]
    with torch.no_grad() if offered or not kind.refuses_norm else pytest.raises(REFUSALS, match="normalize_intermed"):
        found = model.forward_intermediates(**{side: given}, **fmt, normalize_intermediates=True)
        norm = tower.get_submodule(kind.norm) if offered and kind.norm else nn.Identity()
        same(found[f"{side}_intermediates"], [norm(one) for one in plain])


def normed_image_intermediates(name: str, *, offered: bool = True) -> None:
    """`normalize_intermediates`, image"""
    _normed(name, "image", offered=offered)


def normed_text_intermediates(name: str, *, offered: bool = True) -> None:
    """`normalize_intermediates`, text"""
    _normed(name, "text", offered=offered)


@torch.no_grad()
def features_beside_intermediates(name: str) -> None:
    """`normalize`, `output_logits`, `output_logit_scale_bias`"""
    model = model_of(name)
    image, text = pictures(model), words(model)
    for normalize in (False, True):
        features = [model.encode_image(image, normalize), model.encode_text(text, normalize)]
        bias = 0 if model.logit_bias is None else model.logit_bias
        expected = model.logit_scale.exp() * features[0] @ features[1].T + bias
        found = model.forward_intermediates(
            image, text, normalize=normalize, output_logits=True, output_logit_scale_bias=True
        )
        same([found["image_features"], found["text_features"]], features)
        torch.testing.assert_close(found["image_logits"], expected, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(found["text_logits"], expected.T, rtol=1e-5, atol=1e-4)
        assert found["logit_scale"].item() == pytest.approx(model.logit_scale.exp().item())
        assert ("logit_bias" in found) is (model.logit_bias is not None)
    plain = model.forward_intermediates(image, text, intermediates_only=True, output_logits=True)
    assert set(plain) == {"image_intermediates", "text_intermediates"}
    with pytest.raises(InputError, match="output_logits needs both"):
        model.forward_intermediates(image, output_logits=True)


# Training


def trainable(module: nn.Module) -> set[str]:
    """Return the names of the parameters that are not locked."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def _locks(model: Any, side: str, tower: Any) -> None:
    names = {id(parameter): name for name, parameter in tower.named_parameters()}
    groups = [
        {names[id(one)] for part in group for one in ([part] if isinstance(part, nn.Parameter) else part.parameters())}
        for group in tower.layer_groups()
    ]
    assert len(groups) > 2
    assert sorted(itertools.chain(*groups)) == sorted(names.values()), "each parameter stands in one group"
    lock = getattr(model, f"lock_{side}_tower")
    for unlocked in (0, 1, 2, len(groups) - 1, len(groups), 99):
        lock(unlocked)
        assert trainable(tower) == set().union(*groups[max(len(groups) - unlocked, 0) :])
    lock(1)
    other = model.text if tower is model.visual else model.visual
    assert trainable(other) == {name for name, _ in other.named_parameters()}
    tower.train()(sample(model, side)).square().sum().backward()
    moved = {name for name, parameter in tower.named_parameters() if parameter.grad is not None}
    assert moved and moved <= groups[-1]
    before = trainable(model)
    with pytest.raises(InputError, match="must not be negative, found -1"):
        lock(-1)
    assert trainable(model) == before


def sample(model: Any, side: str) -> Tensor:
    """Return an input of a tower."""
    return pictures(model) if side == "image" else words(model)


def lock_image_tower(name: str) -> None:
    """`lock_image_tower` by groups"""
    model = model_of(name)
    _locks(model, "image", model.visual)


def lock_text_tower(name: str) -> None:
    """`lock_text_tower` by groups, with and without norms"""
    model = model_of(name)
    _locks(model, "text", model.text)
    model.lock_text_tower(0, freeze_layer_norm=False)
    norms = {
        f"{prefix}.{one}"
        for prefix, module in model.text.named_modules()
        if isinstance(module, nn.LayerNorm | nn.RMSNorm)
        for one, _ in module.named_parameters()
    }
    assert norms and trainable(model.text) == norms


def info_groups(name: str) -> None:
    """`zoo info --groups` shows what locking leaves trainable"""
    from contextlib import redirect_stdout
    from io import StringIO

    model = model_of(name)
    model.lock_image_tower(1)
    model.lock_text_tower(2)
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()) as printed:
        path = Path(folder) / "family.yaml"
        path.write_text(yaml.safe_dump(FAMILIES[name].architecture))
        info_command(str(path), groups=True, lock_image=1, lock_text=2, json=True)
    told = json.loads(printed.getvalue())
    for section, prefix, tower in (("vision", "visual", model.visual), ("text", "text", model.text)):
        sizes = {f"{prefix}.{one}": parameter.numel() for one, parameter in tower.named_parameters()}
        open_ = {f"{prefix}.{one}" for one in trainable(tower)}
        assert {one for group in told[section] for one in group["names"]} == sizes.keys()
        for group in told[section]:
            assert group["parameters"] == sum(sizes[one] for one in group["names"])
            assert group["trainable"] == sum(sizes[one] for one in group["names"] if one in open_)


def gradient_checkpointing(name: str) -> None:
    """`set_grad_checkpointing`: the same gradients, fewer activations kept"""
    model = model_of(name).train()
    plain, kept = _gradients(model)
    model.set_grad_checkpointing()
    checkpointed, fewer = _gradients(model)
    assert plain.keys() == checkpointed.keys() and fewer < kept
    largest = max(float(one.abs().max()) for one in plain.values())
    same(checkpointed, plain, TOLERANCE * max(1.0, largest))
    model.set_grad_checkpointing(False)
    assert _gradients(model)[1] == kept


def loss_of(found: dict[str, Any]) -> Tensor:
    """Return a scalar that every output has a part in."""
    generator = torch.Generator().manual_seed(0)
    floats = [one for one in found.values() if isinstance(one, Tensor) and one.is_floating_point()]
    return sum((one * torch.randn(one.shape, generator=generator)).sum() for one in floats)  # type: ignore[return-value]


def _gradients(model: Any) -> tuple[dict[str, Tensor], int]:
    """Return the gradients of a step, and how many elements were kept for the backward pass."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    torch.manual_seed(0)  # of the dropout of text encoders
    model.output_dict = True
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(model(pictures(model), words(model))).backward()
    found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return found, kept


# Precision


def _near(found: dict[str, Any], expected: dict[str, Any], dtype: torch.dtype) -> None:
    for key in ("image_features", "text_features"):
        assert found[key].dtype == dtype
        assert F.cosine_similarity(found[key].float(), expected[key]).min() > 0.99
    assert all(bool(one.isfinite().all()) for one in found.values() if isinstance(one, Tensor))


def _cast(name: str, dtype: torch.dtype) -> None:
    model = model_of(name)
    expected = outputs(model)
    model.to(dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    _near(outputs(model), expected, dtype)


def bfloat16(name: str) -> None:
    """`model.to(torch.bfloat16)`"""
    _cast(name, torch.bfloat16)


def float16(name: str) -> None:
    """`model.to(torch.float16)`"""
    _cast(name, torch.float16)


def float64(name: str) -> None:
    """`model.to(torch.float64)`"""
    _cast(name, torch.float64)


def matrices_in_half(name: str) -> None:
    """`cast_matrices`: bfloat16 or float16, norms in float32"""
    for dtype in (torch.bfloat16, torch.float16):
        model = model_of(name)
        expected = outputs(model)
        cast_matrices(model, dtype)
        for path, module in model.named_modules():
            own = isinstance(module, LayerNorm | RMSNorm | nn.BatchNorm2d)
            for one, parameter in module.named_parameters(recurse=False):
                kept = own or (one in ("logit_scale", "logit_bias") and not path)
                assert parameter.dtype == (torch.float32 if kept else dtype), f"{path}.{one}"
        _near(outputs(model), expected, dtype)


# Compilers


@contextmanager
def _compiler() -> Iterator[None]:  # type: ignore[misc]
    torch.compiler.reset()
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.compiler.reset()


def compiled(name: str) -> None:
    """`torch.compile(fullgraph=True)`: `encode_image`, `encode_text`, `forward`"""
    model = model_of(name)
    model.output_dict = True
    image, text = pictures(model), words(model)
    expected = outputs(model)
    with _compiler():
        whole = torch.compile(model, fullgraph=True, backend="eager")
        same(whole(image, text), expected)
        for encode, given in ((model.encode_image, image), (model.encode_text, text)):
            same(torch.compile(encode, fullgraph=True, backend="eager")(given), encode(given))


def exported(name: str) -> None:
    """`torch.export` with a dynamic batch"""
    model = model_of(name)
    model.output_dict = True
    batch = torch.export.Dim("batch", min=1, max=64)
    given = pictures(model), words(model)
    program = torch.export.export(model, given, dynamic_shapes={"image": {0: batch}, "text": {0: batch}}).module()
    with torch.no_grad():
        for count in (2, 5):
            given = pictures(model, count, seed=count), words(model, count, seed=count)
            same(program(*given), model(*given))


# Tracers, which see one example


class Encoders(nn.Module):
    """Both encoders of a model, as one module to trace."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of images and of texts."""
        return self.model.encode_image(image), self.model.encode_text(text)


def _by_length(model: Any) -> Tensor:
    """Return captions `[6, L]`, the shortest first: a graph that is made of the first two has to serve them all."""
    text = words(model, 6)
    padding = 0 if model.text.pad_id is None else model.text.pad_id
    return text[(text != padding).sum(dim=1).argsort()]


@torch.no_grad()
def _traced(name: str, trace: Callable[[nn.Module, tuple[Tensor, Tensor]], Any]) -> None:
    model = model_of(name)
    image, text = pictures(model, 6), _by_length(model)
    graph = trace(Encoders(model), (image[:2], text[:2]))
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
        same(graph(image[rows], text[rows]), (model.encode_image(image[rows]), model.encode_text(text[rows])))


def jit_traced(name: str) -> None:
    """`torch.jit.trace`: a graph made with short captions gives the features of long ones"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against it; it calls sizes constants that are
        _traced(name, lambda module, example: torch.jit.trace(module, example, check_trace=False))


def fx_traced(name: str, *, offered: bool = True) -> None:
    """`torch.fx.symbolic_trace`, the same"""
    with torch.no_grad() if offered else pytest.raises((torch.fx.proxy.TraceError, TypeError, RuntimeError)):
        _traced(name, lambda module, example: torch.fx.symbolic_trace(module))


def fx_recorded(name: str, *, offered: bool = True) -> None:
    """`make_fx`, the same"""
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad() if offered else pytest.raises(RuntimeError, match="value out of a tracing tensor"):
        _traced(name, lambda module, example: make_fx(module)(*example))


# Copies


def functional(name: str) -> None:
    """`torch.func.functional_call` with `state_dict()` and with `named_parameters()`"""
    model, other = model_of(name), FAMILIES[name].build(seed=1)
    model.output_dict = other.output_dict = True
    given = pictures(model), words(model)
    before, parameters = outputs(model), {key: id(value) for key, value in model.named_parameters()}
    expected = outputs(other)
    named = dict(other.named_parameters()) | dict(other.named_buffers())
    for state in (other.state_dict(), other.own_state_dict(), named):
        leaf = {key: value.detach().clone() for key, value in state.items()}
        weight = next(key for key in leaf if "attn.in_proj" in key or key.endswith(("query.weight", "qkv.weight")))
        leaf[weight].requires_grad_(True)
        with torch.no_grad():
            same(torch.func.functional_call(model, leaf, given), expected)
        loss_of(torch.func.functional_call(model, leaf, given)).backward()
        assert leaf[weight].grad is not None and leaf[weight].grad.any()
        assert {key: id(value) for key, value in model.named_parameters()} == parameters
        same(outputs(model), before, 0)


def deep_copy(name: str) -> None:
    """`copy.deepcopy`"""
    model = model_of(name)
    twin = copy.deepcopy(model)
    expected = outputs(model)
    same(outputs(twin), expected, 0)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    same(outputs(model), expected, 0)


def pickled(name: str) -> None:
    """`pickle` of the module"""
    model = model_of(name)
    same(outputs(pickle.loads(pickle.dumps(model))), outputs(model), 0)


BEHAVIOURS: dict[str, Callable[..., None]] = {
    one.__name__: one
    for one in (
        encode_image, encode_text, logits, forward_as_dict, forward_as_tuple, image_intermediates, text_intermediates,
        image_formats, image_prefix, text_suffix, normed_image_intermediates, normed_text_intermediates,
        features_beside_intermediates, lock_image_tower, lock_text_tower, info_groups, gradient_checkpointing,
        bfloat16, float16, float64, matrices_in_half, compiled, exported, jit_traced, fx_traced, fx_recorded,
        functional, deep_copy, pickled,
    )
}  # fmt: skip
"""Name -> what checks it."""

SHARDED = {
    "sharded_step": "`fully_shard`: a step of two processes is the step of one",
    "sharded_state": "`fully_shard`: published state dicts load into shards and are gathered from them",
    "sharded_copy": "`fully_shard`: shards load into shards, and one process can hand out the weights",
}
"""Behaviours that one pair of processes checks for all families (`sharding.py`)."""


def label(behaviour: str) -> str:
    """Return the row of a behaviour in the table."""
    return SHARDED.get(behaviour) or (BEHAVIOURS[behaviour].__doc__ or "")
