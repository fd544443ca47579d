"""Every matrix of a model is a linear layer, a convolution or a parameter with a name: LoRA and quantization reach it.

Published checkpoints fuse the projections of attention into bare parameters, which neither would find.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from support.peer import captions, images, randomized, tiny_arguments
from zoo import CLIP, CustomTextCLIP
from zoo_core.nn.attention import CrossAttention
from zoo_core.nn.pooling import AttentionalPooler

WIDTH, HEADS = 16, 4
PROJECTIONS = ("visual.proj", ".text_projection")
"""Matrices that published checkpoints hold bare, and that stay so."""
ADDED = ("class_embedding", "positional_embedding", "pool.query", "contrastive.query", "cls_emb", "logit_scale")
"""Bare parameters that nothing is multiplied with but a number."""

COCA = [
    "embed_dim=24", "vision.image_size=64", "vision.patch_size=32", "vision.width=16", "vision.head_width=8",
    "vision.layers=2", "vision.attn_pooler_queries=5", "vision.attn_pooler_heads=4", "text.context_length=10",
    "text.vocab_size=600", "text.width=24", "text.heads=2", "text.layers=2", "tokenizer.vocab_size=600",
    "multimodal.width=24", "multimodal.heads=2", "multimodal.layers=2",
]  # fmt: skip


def pooled() -> Any:
    arguments = tiny_arguments()
    arguments["vision_cfg"] |= {"attentional_pool": "cascade", "attn_pooler_queries": 3, "attn_pooler_heads": 4}
    return CustomTextCLIP(**arguments)


MODELS = {
    "CLIP": lambda: CLIP(**tiny_arguments()),
    "CustomTextCLIP": lambda: CustomTextCLIP(**tiny_arguments()),
    "cascaded pools": pooled,
    "CoCa": lambda: zoo.build("coca-vit-b32", overrides=COCA),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return randomized(MODELS[request.param]()).eval()


class Products(TorchDispatchMode):
    """Collects the addresses of all matrices that a product of two takes."""

    NAMES = ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "_scaled_mm")

    def __init__(self) -> None:
        super().__init__()
        self.addresses: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.partition(".")[0] in self.NAMES:
            self.addresses |= {one.untyped_storage().data_ptr() for one in args if isinstance(one, Tensor)}
        return func(*args, **(kwargs or {}))


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))


def test_every_matrix_that_is_multiplied_belongs_to_a_layer_or_has_a_published_name(model: Any) -> None:
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm)
    in_layers = {f"{name}.{one}" for name, module in model.named_modules() if isinstance(module, kinds)
                 for one, _ in module.named_parameters(recurse=False)}  # fmt: skip
    bare = {name for name, _ in model.named_parameters()} - in_layers
    assert all(name.endswith((*PROJECTIONS, *ADDED)) for name in bare), bare
    with Products() as products, torch.no_grad():
        model(images(model), captions(model))
    owners = {one.untyped_storage().data_ptr(): name for name, one in model.named_parameters() if one.ndim > 1}
    multiplied = {owners[address] for address in products.addresses if address in owners}
    matrices = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    assert multiplied >= matrices
    assert multiplied - matrices == {name for name in owners.values() if name.endswith(PROJECTIONS)}


class LoRA(nn.Module):
    """A linear layer and two small matrices beside it (Hu et al. 2021), as libraries put them in its place."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.base(x) + self.up(self.down(x))


def wrapped(model: Any) -> Any:
    twin = copy.deepcopy(model).requires_grad_(False)
    for name, layer in list(layers(twin)):
        parent, _, child = name.rpartition(".")
        setattr(twin.get_submodule(parent), child, LoRA(layer))
    return twin


def test_a_wrapper_in_place_of_each_linear_layer_is_called_trained_and_saved(model: Any) -> None:
    image, text = images(model), captions(model)
    twin = wrapped(model)
    adapters = {name: module for name, module in twin.named_modules() if isinstance(module, LoRA)}
    assert adapters.keys() == dict(layers(model)).keys()
    for adapter in adapters.values():
        nn.init.zeros_(adapter.up.weight)
    expected, found = model(image, text), twin(image, text)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert all(adapter.calls for adapter in adapters.values())
    for adapter in adapters.values():
        nn.init.normal_(adapter.up.weight)
    found = twin(image, text)
    values = found.values() if isinstance(found, dict) else found
    sum((one * torch.randn_like(one)).sum() for one in values if one.requires_grad).backward()
    assert all(adapter.up.weight.grad.any() for adapter in adapters.values())
    again = wrapped(randomized(copy.deepcopy(model), seed=1))
    again.load_state_dict(twin.state_dict())
    torch.testing.assert_close(again(image, text), twin(image, text), rtol=0, atol=0)


class Int8(nn.Module):
    """A linear layer whose weight is int8 with a scale for each row: no `weight` parameter is left."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        scale = layer.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("rounded", (layer.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.rounded * self.scale, self.bias)


def test_a_model_whose_linear_layers_hold_int8_gives_nearly_the_same_and_is_saved(model: Any) -> None:
    def quantized(source: Any) -> Any:
        twin = copy.deepcopy(source)
        for name, layer in list(layers(twin)):
            parent, _, child = name.rpartition(".")
            setattr(twin.get_submodule(parent), child, Int8(layer))
        return twin

    image, text = images(model), captions(model)
    twin = quantized(model)
    with torch.no_grad():
        for encode, given in (("encode_image", image), ("encode_text", text)):
            found, expected = (getattr(one, encode)(given, normalize=True) for one in (twin, model))
            assert nn.functional.cosine_similarity(found, expected).min() > 0.99
            assert not torch.equal(found, expected)
        again = quantized(randomized(copy.deepcopy(model), seed=1))
        again.load_state_dict(twin.state_dict())
        torch.testing.assert_close(again(image, text), twin(image, text), rtol=0, atol=0)


# Attention to other tokens, beside torch's own


@pytest.fixture(params=[WIDTH, 24], ids=["fused", "separate"])
def twins(request: pytest.FixtureRequest) -> tuple[CrossAttention, nn.MultiheadAttention]:
    theirs = nn.MultiheadAttention(WIDTH, HEADS, kdim=request.param, vdim=request.param, batch_first=True)
    return CrossAttention(WIDTH, HEADS, context_width=request.param), randomized(theirs)  # type: ignore[return-value]


def test_cross_attention_is_torchs_with_its_state_dict_both_ways(twins: Any) -> None:
    ours, theirs = twins
    ours.load_state_dict(theirs.state_dict())
    x, context = torch.randn(3, 5, WIDTH), torch.randn(3, 7, ours.k_proj.in_features)
    expected, _ = theirs(x, context, context)
    torch.testing.assert_close(ours(x, context), expected, rtol=0, atol=1e-6)
    one, _ = theirs(x[:1].expand(3, -1, -1), context, context)
    torch.testing.assert_close(ours(x[:1], context), one, rtol=0, atol=1e-6)
    state = ours.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    randomized(theirs, seed=1).load_state_dict(state)
    torch.testing.assert_close(theirs(x, context, context)[0], expected, rtol=0, atol=0)
    for name in (*state, "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"):
        if "." not in name:
            mine, other = getattr(ours, name), getattr(theirs, name)
            assert (mine is None and other is None) or torch.equal(mine, other), name


def test_weights_are_taken_as_they_are_where_they_are_assigned(twins: Any) -> None:
    ours, theirs = twins
    state = theirs.state_dict()
    with torch.device("meta"):
        ours = CrossAttention(WIDTH, HEADS, context_width=ours.k_proj.in_features)
    ours.load_state_dict(state, assign=True)
    given = {value.untyped_storage().data_ptr() for value in state.values()}
    assert {one.untyped_storage().data_ptr() for one in ours.parameters()} == given


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_proj_bias": torch.ones(3)}, "size mismatch for in_proj_bias: expected 48 rows, found shape [3]"),
        ({"in_proj_bias": torch.ones(())}, "size mismatch for in_proj_bias: expected 48 rows, found shape []"),
        ({"in_proj_bias": torch.ones(48, 2)}, "size mismatch for q_proj.bias"),
        ({"q_proj.bias": torch.ones(WIDTH)}, 'Unexpected key(s) in state_dict: "in_proj_bias"'),
        ({"in_proj_bias": None}, "q_proj.bias"),
        ({"in_proj_biases": torch.ones(48)}, 'Unexpected key(s) in state_dict: "in_proj_biases"'),
    ],
)
def test_weights_that_do_not_fit_are_refused(twins: Any, change: dict[str, Tensor | None], message: str) -> None:
    ours, theirs = twins
    state = {key: value for key, value in (theirs.state_dict() | change).items() if value is not None}
    with pytest.raises(RuntimeError) as raised:
        ours.load_state_dict(state)
    assert message in str(raised.value)


@pytest.mark.parametrize("context_width", [64, 48])
def test_a_pooler_is_drawn_as_torch_draws_its_attention(context_width: int) -> None:
    torch.manual_seed(0)
    ours = AttentionalPooler(64, context_width, HEADS, 3).attn.state_dict()
    theirs = nn.MultiheadAttention(64, HEADS, kdim=context_width, vdim=context_width).state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key].shape == value.shape
        assert ours[key].std().item() == pytest.approx(value.std().item(), rel=0.05), key
        assert ours[key].abs().max().item() == pytest.approx(value.abs().max().item(), rel=0.02), key
