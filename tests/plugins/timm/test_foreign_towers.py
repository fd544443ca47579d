"""Towers whose code is not ours: how they are built where tensors have no values, and how large they may be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from support.models import broken_towers
from support.models.declared_towers import stranger
from zoo_core.errors import ConfigError, ZooError
from zoo_core.registry import default_registry
from zoo_core.testing import check_component

TEXT = {"tower": "clip-transformer", "context_length": 8, "vocab_size": 600, "width": 16, "heads": 1, "layers": 1}
VISION = {"tower": "vit", "image_size": 8, "patch_size": 8, "width": 64, "layers": 1}
REST = {"model": "custom-text-clip", "embed_dim": 16, "preprocess": {"type": "image"}}


def built(vision: dict[str, Any], text: dict[str, Any] | None = None, **options: Any) -> Any:
    tokenizer = {"type": "hf", "name": "./none", "vocab_size": 60} if text else {"type": "clip-bpe", "vocab_size": 600}
    return zoo.build(REST | {"vision": vision, "text": text or TEXT, "tokenizer": tokenizer}, **options)


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type[Any]], None]]:
    """Make a stranger's class the vision tower `plain`."""

    def into(tower: type[Any]) -> None:
        monkeypatch.setitem(default_registry()._components, ("vision-tower", "plain"), [stranger(tower)])

    yield into


def test_a_tower_whose_constructor_computes_with_tensors_is_built_saved_and_loaded(
    plug: Callable[[type[Any]], None], tmp_path: Path
) -> None:
    plug(broken_towers.Computing)
    torch.manual_seed(0)
    model = built({"tower": "plain", "image_size": 8})
    assert torch.equal(model.visual.rates, torch.linspace(0.5, 1.5, 16))
    zoo.save(model, tmp_path / "m")
    torch.manual_seed(1)
    again: Any = zoo.load(tmp_path / "m")
    assert not [name for name, one in (*again.named_parameters(), *again.named_buffers()) if one.is_meta]
    assert torch.equal(again.visual.rates, model.visual.rates)
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(again.encode_image(image), model.encode_image(image))


def test_only_the_tower_that_needs_it_is_built_a_second_time(
    plug: Callable[[type[Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo_text.clip.tower import TextTransformer

    calls: list[str] = []
    build = TextTransformer.__init__
    monkeypatch.setattr(TextTransformer, "__init__", lambda *a, **k: calls.append("text") or build(*a, **k))
    plug(broken_towers.Computing)
    model = built({"tower": "plain", "image_size": 8}, device="meta")
    assert {one.device.type for one in model.parameters()} == {"meta"}
    assert len(calls) == 2  # once to count parameters, once to be the model's


def test_the_kit_accepts_a_tower_whose_constructor_computes_with_tensors() -> None:
    check_component(stranger(broken_towers.Computing), {"image_size": 8})


def timm(name: str = "vit_tiny_patch16_224", **kwargs: Any) -> tuple[dict[str, Any], None]:
    return {"tower": "timm", "name": name, "image_size": 32, "kwargs": kwargs}, None


def bert(**config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = {"model_type": "bert", "max_position_embeddings": 20} | sizes | config
    return VISION, {"tower": "hf-text", "context_length": 8, "vocab_size": 60, "config": config}


TOO_LARGE = "vision: 'timm' would consist of more than 25,000 modules; give it fewer layers"
BOMBS: list[tuple[tuple[dict[str, Any], dict[str, Any] | None], str]] = [
    (timm(depth=100_000), "vision.kwargs.depth: holds 100000, and no backbone is that large; at most 65,536"),
    (timm("convnext_tiny", depths=[100_000, 1, 1, 1]), "vision.kwargs.depths: holds 100000, and no backbone"),
    (timm("convnext_tiny", depths=[50_000, 1, 1, 1]), TOO_LARGE),
    (timm(mlp_ratio=1e30), "vision.kwargs.mlp_ratio: holds 1e+30, and no backbone"),
    (timm(num_heads=0), "vision.kwargs: timm"),
    (timm(act_layer="nosuch"), "cannot build 'vit_tiny_patch16_224': KeyError: 'nosuch'"),
    (timm("resnet18", block="x"), "vision.kwargs: timm"),
    (bert(num_hidden_layers=100_000), "text.config.num_hidden_layers: 100000 is more than an encoder has; at most"),
    (bert(num_hidden_layers=10**12), "text.config.num_hidden_layers: 1e+12 is more than an encoder has; at most 4,096"),
    (bert(max_position_embeddings=10**13), "text.config.max_position_embeddings: 1e+13 is more than an encoder has"),
    (bert(num_attention_heads=0), "text.config: transformers cannot build a bert of it: ZeroDivisionError"),
    (bert(hidden_act="nosuch"), "text.config: transformers cannot build a bert of it: KeyError: 'nosuch'"),
    (bert(hidden_size=0), "text.config: transformers cannot build a bert of it: "),
    (bert(pad_token_id=1_000), "text.config: transformers cannot build a bert of it: AssertionError: Padding_idx"),
    (bert(dtype="nosuch"), "text.config: bert: AttributeError: module 'torch' has no attribute 'nosuch'"),
    (bert(model_type="nosuch"), "text.config.model_type: transformers knows no model type 'nosuch'"),
]


@pytest.mark.parametrize(("towers", "message"), BOMBS, ids=[message for _, message in BOMBS])
def test_a_bomb_behind_a_library_is_refused_before_it_is_built(towers: Any, message: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        built(*towers)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 20


def test_a_strangers_tower_of_too_many_layers_is_given_up(plug: Callable[[type[Any]], None]) -> None:
    plug(broken_towers.Endless)
    with pytest.raises(ZooError, match="'plain' would consist of more than 25,000 modules; give it fewer layers"):
        built({"tower": "plain", "image_size": 8})
