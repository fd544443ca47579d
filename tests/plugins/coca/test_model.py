"""CoCa against open_clip 3.3.0 with the same weights, and what a CoCa of ours promises beside."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.coca_model import CoCa as PeerCoCa
from torch import Tensor, nn

import zoo
from support.peer import captions, gradients, images, randomized
from zoo_core.errors import CapabilityError, ConfigError, InputError
from zoo_core.nn.kv_cache import KVCache
from zoo_core.nn.precision import cast_matrices
from zoo_core.plugin import ComponentSpec
from zoo_core.registry import Component, Plugin
from zoo_core.testing import BrokenPromiseError, check_component
from zoo_text.clip.config import ClipTextConfig
from zoo_text.clip.tower import TextTransformer

NAMES = {"coca-base": "coca_base", "coca-vit-b32": "coca_ViT-B-32", "coca-vit-l14": "coca_ViT-L-14"}
TOLERANCE = 1e-5
SHRINK, LAYERS, VOCABULARY, CONTEXT = 8, 2, 600, 14

UNREAD = {"mlp_ratio", "dim_head", "n_queries", "attn_pooler_heads", "vocab_size", "context_length"}
"""Keys of the peer's multimodal section that it never reads, or that have no effect."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_overrides(name: str) -> list[str]:
    config: Any = zoo.config(name)
    patch = config.vision.patch_size[0]
    widths = [("vision", config.vision.width), ("text", config.text.width), ("multimodal", config.multimodal.width)]
    return [
        f"embed_dim={config.embed_dim // SHRINK}",
        *(f"{section}.width={width // SHRINK}" for section, width in widths),
        *(f"{section}.layers={LAYERS}" for section, _ in widths),
        f"vision.head_width={64 // SHRINK}",
        f"vision.image_size=[{3 * patch},{2 * patch}]",
        f"text.vocab_size={VOCABULARY + 8 * (name == 'coca-base')}",
        f"text.context_length={CONTEXT}",
        f"tokenizer.vocab_size={VOCABULARY}",
    ]


def small(name: str = "coca-vit-b32", *overrides: str) -> Any:
    """Return a scaled-down model of ours with weights that show every part."""
    return randomized(zoo.build(name, overrides=[*small_overrides(name), *overrides])).eval()


def small_peer(name: str, **changes: Any) -> Any:
    """Return the peer's model of a name, scaled down from its own JSON."""
    config: Any = open_clip.get_model_config(NAMES[name])
    del config["custom_text"]
    config["embed_dim"] //= SHRINK
    vision, text, decoder = (config[f"{section}_cfg"] for section in ("vision", "text", "multimodal"))
    for section in (vision, text, decoder):
        section["width"] //= SHRINK
        section["layers"] = LAYERS
    vision["head_width"] = 64 // SHRINK
    vision["image_size"] = [3 * vision["patch_size"], 2 * vision["patch_size"]]
    text["vocab_size"] = VOCABULARY + 8 * (name == "coca-base")
    text["context_length"] = decoder["context_length"] = CONTEXT
    return randomized(PeerCoCa(**config, **changes)).eval()


@pytest.fixture(scope="module", params=sorted(NAMES))
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Return our scaled-down model and the peer's, with the same weights."""
    theirs = small_peer(request.param)
    ours = zoo.build(request.param, overrides=small_overrides(request.param))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.fixture(scope="module")
def model() -> Any:
    return small()


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


# Architectures


def test_the_peers_cocas_are_offered() -> None:
    theirs = {name for name in open_clip.list_models() if name.startswith("coca")}
    assert theirs == {*NAMES.values(), "coca_roberta-ViT-B-32"}
    assert {zoo.config(alias).description for alias in NAMES.values()} == {
        zoo.config(name).description for name in NAMES
    }


# A text tower that looks ahead

ROBERTA = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 20}  # fmt: skip
SMALL_ROBERTA = [
    "embed_dim=8", "vision.image_size=64", "vision.width=16", "vision.head_width=8", "vision.layers=2",
    "text.context_length=10", "text.vocab_size=60", "tokenizer.vocab_size=60",
    *(f"text.config.{key}={value}" for key, value in ROBERTA.items()),
    "multimodal.width=16", "multimodal.heads=2", "multimodal.layers=2",
]  # fmt: skip


def test_coca_with_roberta_equals_the_peers_whose_head_is_given_robertas_vocabulary(tmp_path: Path) -> None:
    """The peer's own head has CLIP's 49,408 rows whatever the tokenizer."""
    published = {"model_type": "roberta", "vocab_size": 60, "type_vocab_size": 1, "layer_norm_eps": 1e-5, **ROBERTA}
    (tmp_path / "config.json").write_text(json.dumps(published))
    config: Any = open_clip.get_model_config("coca_roberta-ViT-B-32")
    del config["custom_text"]
    config["embed_dim"] = 8
    config["vision_cfg"] |= {"image_size": 64, "width": 16, "head_width": 8, "layers": 2}
    config["text_cfg"] |= {"hf_model_name": str(tmp_path), "hf_model_pretrained": False, "vocab_size": 60, "width": 16}
    config["multimodal_cfg"] |= {"width": 16, "heads": 2, "layers": 2}
    theirs = randomized(PeerCoCa(**config)).eval()
    ours: Any = zoo.build("coca_roberta-ViT-B-32", overrides=SMALL_ROBERTA)
    ours.load_state_dict(theirs.state_dict())
    text = captions(ours, 3).clamp(min=3, max=58)
    text[1, 6:] = 1  # the padding of roberta
    with torch.no_grad():
        mine, other = ours(images(ours, 3), text), theirs(images(ours, 3), text)
    for key in ("image_features", "text_features", "logits", "labels", "logit_scale"):
        same(mine[key], other[key])


def test_a_text_tower_that_looks_ahead_has_to_be_asked_for_and_writes_no_captions() -> None:
    with pytest.raises(ConfigError, match="depend on later ones.*or set text_sees_ahead: true"):
        zoo.config("coca-roberta-vit-b32", overrides=["text_sees_ahead=false"])
    with pytest.raises(ConfigError, match="text_sees_ahead: tokens of 'clip-transformer' do not depend on later ones"):
        zoo.config("coca-vit-b32", overrides=["text_sees_ahead=true"])
    model: Any = zoo.build("coca-roberta-vit-b32", overrides=SMALL_ROBERTA)
    with pytest.raises(CapabilityError, match="cannot write captions: tokens of its text tower 'hf-text' depend"):
        model.generate(images(model, 1))


@pytest.mark.parametrize("name", NAMES)
def test_the_config_holds_the_peers_values(name: str) -> None:
    config: Any = zoo.config(name)
    theirs: Any = open_clip.get_model_config(NAMES[name])
    assert config.embed_dim == theirs["embed_dim"]
    assert set(theirs) == {"embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg", "custom_text"}
    vision = open_clip.CLIPVisionCfg(**theirs["vision_cfg"])
    for key in ("layers", "width", "head_width", "mlp_ratio", "attn_pooler_queries", "attn_pooler_heads"):
        assert getattr(config.vision, key) == getattr(vision, key), key
    assert config.vision.image_size == (vision.image_size,) * 2
    assert config.vision.patch_size == (vision.patch_size,) * 2
    assert (config.vision.attentional_pool == "single") == vision.attentional_pool
    text = open_clip.CLIPTextCfg(**theirs["text_cfg"])
    for key in ("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "pad_id"):
        assert getattr(config.text, key) == getattr(text, key), key
    assert config.text.class_token and text.embed_cls
    assert config.text.class_token_mask == "published"
    for key, value in theirs["multimodal_cfg"].items():
        assert key in UNREAD or getattr(config.multimodal, key) == value, key
    assert config.text.context_length == theirs["multimodal_cfg"]["context_length"]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_the_peers_names_shapes_and_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for draw in ("normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_"):
        monkeypatch.setattr(nn.init, draw, lambda tensor, *_, **__: tensor)
    config: Any = zoo.config(name)
    peer_config: Any = open_clip.get_model_config(NAMES[name])
    del peer_config["custom_text"]
    with torch.device("meta"):
        ours, theirs = on_meta(config), PeerCoCa(**peer_config)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert config.parameter_count() == count == sum(parameter.numel() for parameter in ours.parameters())


def on_meta(config: Any, towers: tuple[str, ...] = ("image", "text")) -> Any:
    return zoo.registry().get("model", "coca").build(config, towers=towers, registry=zoo.registry())


def test_a_state_dict_goes_strictly_both_ways(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


# Numbers


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_features_and_caption_logits_are_the_peers(pair: tuple[Any, Any], mode: Any) -> None:
    ours, theirs = pair
    image, text = images(ours, 4), captions(ours, 4)  # of several lengths, so that padding is hidden
    with mode():
        same(ours.encode_image(image, normalize=True), theirs.encode_image(image))
        same(ours.encode_image(image), theirs.encode_image(image, normalize=False))
        same(ours.encode_text(text, normalize=True), theirs.encode_text(text))
        same(ours.encode_text(text), theirs.encode_text(text, normalize=False))
        found, expected = ours(image, text), theirs(image, text)
    assert found["logits"].shape == (4, CONTEXT - 1, ours.vocab_size)
    assert torch.equal(found["labels"], text[:, 1:])
    same(found, expected)


def test_options_of_the_decoder_are_the_peers() -> None:
    """LayerScale, QuickGELU in all three parts, and a logit bias."""
    name = "coca-vit-b32"
    config: Any = open_clip.get_model_config(NAMES[name])
    theirs = small_peer_with_options(config)
    sections = ("vision", "text", "multimodal")
    ours = zoo.build(
        name,
        overrides=[
            *small_overrides(name),
            "init_logit_bias=-3",
            "multimodal.ls_init_value=0.1",
            *(f"{section}.activation=quick_gelu" for section in sections),
        ],
    )
    ours.load_state_dict(theirs.state_dict())
    image, text = images(ours, 3), captions(ours, 3)
    with torch.inference_mode():
        same(ours(image, text), theirs(image, text))


def small_peer_with_options(config: Any) -> Any:
    config["multimodal_cfg"]["ls_init_value"] = 0.1
    original = open_clip.get_model_config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "get_model_config", lambda name: config if name.startswith("coca") else original(name))
        return small_peer("coca-vit-b32", quick_gelu=True, init_logit_bias=-3.0)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_one_backward_gives_the_peers_gradients(pair: tuple[Any, Any], checkpointing: bool) -> None:
    ours, theirs = pair
    image, text = images(ours, 3), captions(ours, 3)
    ours.set_grad_checkpointing(checkpointing)
    try:
        for model, loss in ((ours, zoo.loss("coca", pad_id=0)), (theirs, peer_loss())):
            model.zero_grad()
            sum(loss(**model.train()(image, text))).backward()
    finally:
        ours.set_grad_checkpointing(False)
        ours.eval()
        theirs.eval()
    mine, other = gradients(ours), gradients(theirs)
    assert mine.keys() == other.keys()
    same(mine, other)
    assert all(gradient is not None for gradient in mine.values())


def peer_loss() -> Any:
    return open_clip.CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0, pad_id=0)


def test_checkpointing_keeps_fewer_activations_of_the_decoder(model: Any) -> None:
    image, text = images(model, 2), captions(model, 2)

    def kept() -> int:
        found = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal found
            found += tensor.numel()
            return tensor

        decoder = copy.deepcopy(model.text_decoder)
        image_tokens, text_tokens = model.visual.forward_tokens(image)[1], model.text.forward_tokens(text)[1]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            decoder(image_tokens.detach(), text_tokens.detach())
        return found

    plain = kept()
    model.set_grad_checkpointing()
    assert kept() < plain / 2
    model.set_grad_checkpointing(False)
    assert kept() == plain


# What CLIP can, CoCa can


def test_forward_takes_either_input_alone(model: Any) -> None:
    image, text = images(model), captions(model)
    alone = model(image=image)
    assert alone["text_features"] is None and "logits" not in alone
    assert torch.equal(alone["image_features"], model.encode_image(image, normalize=True))
    alone = model(text=text)
    assert alone["image_features"] is None and "logits" not in alone
    assert torch.equal(alone["text_features"], model.encode_text(text, normalize=True))


def test_forward_takes_strings_and_int32_ids_and_labels_are_int64(model: Any) -> None:
    image, words = images(model, 2), ["a dog", "two cats"]
    ids = model.tokenizer(words)
    expected = model(image, ids)
    for text in (words, ids.to(torch.int32)):
        found = model(image, text)
        assert found["labels"].dtype == torch.int64
        torch.testing.assert_close(found, expected)
    assert zoo.loss("coca", pad_id=model.tokenizer.pad_id)(**expected)[1].isfinite()


def test_as_many_texts_as_images_are_needed(model: Any) -> None:
    with pytest.raises(InputError, match="expected one text for each image, found 2 images and 3 texts"):
        model(images(model, 2), captions(model, 3))


def test_towers_are_locked_and_the_decoder_stays_trainable() -> None:
    model = small()
    model.lock_image_tower(1)
    model.lock_text_tower(1)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trainable if not name.startswith("text_decoder.")} == {
        "visual.proj",
        "text.text_projection",
        "logit_scale",
    }
    assert all(parameter.requires_grad for parameter in model.text_decoder.parameters())


def test_no_weight_decay_names_parameters(model: Any) -> None:
    assert model.no_weight_decay() == {
        "visual.class_embedding",
        "visual.positional_embedding",
        "text.positional_embedding",
        "text.cls_emb",
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_runs_in_all_three_parts(name: str, dtype: torch.dtype) -> None:
    model = small(name)
    image, text = images(model), captions(model)
    expected = model(image, text)
    pure, matrices = copy.deepcopy(model).to(dtype), copy.deepcopy(model)
    cast_matrices(matrices, dtype)
    for half in (pure, matrices):
        found = half(image, text)
        assert found["logits"].dtype == found["image_features"].dtype == found["text_features"].dtype == dtype
        scale = expected["logits"].abs().max()
        assert (found["logits"].float() - expected["logits"]).abs().max() < 0.1 * scale
        assert zoo.loss("coca", pad_id=0)(**found)[1].isfinite()
        assert half.generate(image, max_length=6, num_beams=2).shape[0] == 2


def test_a_saved_model_comes_back_whole_or_one_tower_of_it(model: Any, tmp_path: Path) -> None:
    zoo.save(model, tmp_path / "coca")
    image, text = images(model), captions(model)
    torch.testing.assert_close(zoo.build(tmp_path / "coca")(image, text), model(image, text), rtol=0, atol=0)
    tower = zoo.build(tmp_path / "coca", towers=("image",))
    assert tower.text is None and tower.text_decoder is None
    assert torch.equal(tower.encode_image(image), model.encode_image(image))
    with pytest.raises(InputError, match="build the model with both"):
        zoo.build(tmp_path / "coca", towers=("text",)).generate(image)


def test_every_parameter_is_drawn_by_width_and_depth() -> None:
    torch.manual_seed(0)
    with poisoned_memory():
        model = zoo.build("coca-vit-b32", overrides=small_overrides("coca-vit-b32"))
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    decoder: Any = model.text_decoder
    width, hidden = 64, 256
    for block in (*decoder.resblocks, *decoder.cross_attn):
        for layer, std in (
            *((projection, width**-0.5) for projection in block.attn.projections()),
            (block.attn.out_proj, width**-0.5 * (2 * LAYERS) ** -0.5),
            (block.mlp.c_fc, (2 * width) ** -0.5),
            (block.mlp.c_proj, width**-0.5 * (2 * LAYERS) ** -0.5),
        ):
            assert layer.weight.std().item() == pytest.approx(std, rel=0.1)
            assert not layer.bias.any()
    assert decoder.resblocks[0].mlp.c_fc.weight.shape == (hidden, width)
    assert decoder.text_projection.std().item() == pytest.approx(width**-0.5, rel=0.1)


class poisoned_memory:  # noqa: N801 - reads as a statement
    """Let `torch.empty` return NaN, so that what nobody initialises is seen."""

    def __enter__(self) -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)

    def __exit__(self, *_: object) -> None:
        torch.use_deterministic_algorithms(False)


# Configs

BAD = {
    "unknown key": (["multimodal.widht=64"], "multimodal.widht: unknown key, did you mean 'width'?"),
    "a key that nothing reads": (["multimodal.n_queries=256"], "multimodal.n_queries: unknown key"),
    "text": (["multimodal.heads=five"], "multimodal.heads: expected a whole number, found 'five'"),
    "heads": (["multimodal.heads=7"], "multimodal.heads: 7 does not divide the width 512"),
    "no layers": (["multimodal.layers=0"], "multimodal.layers: must be at least 1, found 0"),
    "image width": (
        ["vision.attentional_pool=null"],
        "multimodal.width: 512 is not the width 768 of the vision tokens",
    ),
    "text width": (
        ["text.width=256"],
        "multimodal.width: 512 is not the width 256 of the text tokens",
    ),
    "both widths": (
        ["multimodal.width=256"],
        "multimodal.width: 256 is not the width 512 of the vision tokens",
    ),
    "labels seen": (
        ["text.causal=false"],
        "text: tokens of 'clip-transformer' depend on later ones, and would show the decoder what it has to predict",
    ),
    "vocabulary": (["text.vocab_size=1000"], "text.vocab_size: 1000 rows are too few for tokenizer 'clip-bpe'"),
    "size": (["multimodal.layers=1000"], None),
}
"""What is wrong -> overrides, and the message (None where the config is fine)."""


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_config_is_told_before_anything_is_built(what: str) -> None:
    overrides, message = BAD[what]
    if message is None:
        assert zoo.config("coca-vit-b32", overrides)
        return
    with pytest.raises(ConfigError) as raised:
        zoo.config("coca-vit-b32", overrides)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "values", "embed_dim"),
    [
        ("vision-tower", {"tower": "vit", "attentional_pool": pool, "pool_type": kind}, 24)
        for pool in (None, "single")
        for kind in ("tok", "avg")
    ]
    + [("vision-tower", {"tower": "vit", "attentional_pool": pool}, 24) for pool in ("parallel", "cascade")]
    + [("text-tower", {"tower": "clip-transformer"}, 24)],
)
def test_towers_give_tokens_of_the_width_that_their_config_tells(
    kind: str, values: dict[str, Any], embed_dim: int
) -> None:
    component = zoo.registry().get(kind, values["tower"])
    if kind == "vision-tower":
        size: dict[str, Any] = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 8}
    else:
        size = {"context_length": 5, "vocab_size": 9, "width": 32, "layers": 1, "heads": 2}
    values = {key: value for key, value in values.items() if value is not None} | size
    config: Any = component.config_class().parse(values)
    tower: Any = component.build(config, embed_dim=embed_dim)
    inputs = torch.randn(2, 3, 16, 16) if kind == "vision-tower" else torch.ones(2, 5, dtype=torch.int64)
    assert tower.forward_tokens(inputs)[1].shape[2] == config.token_width(embed_dim)


def test_a_tower_whose_tokens_depend_on_later_ones_does_not_go_on() -> None:
    component = zoo.registry().get("text-tower", "clip-transformer")
    values = {"context_length": 5, "vocab_size": 9, "width": 32, "layers": 1, "heads": 2, "causal": False}
    config: Any = component.config_class().parse({**values, "pool_type": "last"})
    assert not config.supports_kv_cache()
    with pytest.raises(CapabilityError, match="not causal"):
        component.build(config, embed_dim=8).decode_step(torch.ones(1, 1, dtype=torch.int64), KVCache())


# What the test kit holds towers to, so that CoCa may trust what their configs tell


class WrongWidth(ClipTextConfig):
    def token_width(self, embed_dim: int) -> int:
        return self.width + 1


class Modest(ClipTextConfig):
    def supports_kv_cache(self) -> bool:
        return False


class Refusing(TextTransformer):
    def decode_step(self, text: Tensor, memory: KVCache) -> Tensor:
        raise CapabilityError("not today")


class Forgetting(TextTransformer):
    def decode_step(self, text: Tensor, memory: KVCache) -> Tensor:
        return super().decode_step(text, KVCache())


@pytest.mark.parametrize(
    ("config", "factory", "sentence"),
    [
        (WrongWidth, TextTransformer, "token_width() tells 17, but the tokens of forward_tokens have 16 channels"),
        (Modest, TextTransformer, "supports_kv_cache() is false, but the tower offers decode_step"),
        (ClipTextConfig, Refusing, "supports_kv_cache() is true, but: not today"),
        (ClipTextConfig, Forgetting, "the tokens of decode_step are not those of forward_tokens"),
    ],
)
def test_the_kit_tells_a_text_tower_that_breaks_its_word(config: type, factory: type, sentence: str) -> None:
    spec = ComponentSpec(
        kind="text-tower",
        name="clip-transformer",
        config=f"{config.__module__}:{config.__name__}",
        factory=f"{factory.__module__}:{factory.__name__}",
        capabilities=frozenset({"tokens", "intermediates", "locking", "gradient-checkpointing"}),
    )
    component = Component(spec, Plugin("towers", "acme.plugin", "acme", "1.0", components=(spec,)))
    values = {"context_length": 6, "vocab_size": 20, "width": 16, "layers": 2, "heads": 2}
    with pytest.raises(BrokenPromiseError) as raised:
        check_component(component, values)
    assert sentence in str(raised.value)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("class_token", [True, False])
def test_the_text_tower_keeps_its_word(causal: bool, class_token: bool) -> None:
    values = {"context_length": 6, "vocab_size": 20, "width": 16, "layers": 2, "heads": 2}
    pooling = {"class_token": True, "pad_id": 0} if class_token else {}
    component = zoo.registry().get("text-tower", "clip-transformer")
    check_component(component, {**values, **pooling, "causal": causal, "pool_type": "last"})
