"""Text towers of transformers beside open_clip's `HFTextEncoder` and beside transformers itself, with equal weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from open_clip.hf_model import HFTextEncoder
from safetensors.torch import save_file
from torch import Tensor, nn

import zoo
from support.checkpoints.published_encoders import PUBLISHED
from support.peer import images, randomized
from zoo_core.errors import CapabilityError, ConfigError, DownloadError, InputError
from zoo_core.registry import default_registry
from zoo_core.testing import check_component
from zoo_hf.config import HfTextConfig
from zoo_hf.poolers import pool
from zoo_hf.tower import HfTextTower

VOCABULARY, LENGTH, EMBED_DIM = 60, 10, 12
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "pad_token_id": 0}
ENCODERS: dict[str, dict[str, Any]] = {
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "bert": SIZES,
    "mt5": {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 3, "num_heads": 2},
    "m2m_100": {
        "d_model": 16,
        "encoder_layers": 3,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "max_position_embeddings": 20,
    },
    "modernbert": SIZES | SPECIAL | {"local_attention": 4},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 20, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 20},
}  # fmt: skip
"""Small configs of encoders; the first five are those that the peer knows."""
PEERS = [*ENCODERS][:5]
POOLERS = {"mean": "mean_pooler", "cls": "cls_pooler", "cls-hidden": "cls_last_hidden_state_pooler"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config_of(kind: str, **options: Any) -> HfTextConfig:
    options = {"vocab_size": VOCABULARY, "context_length": LENGTH, "config": {"model_type": kind, **ENCODERS[kind]}} | options  # fmt: skip
    return HfTextConfig(**options)


def tower_of(kind: str, *, embed_dim: int = EMBED_DIM, seed: int = 0, **options: Any) -> HfTextTower:
    tower = HfTextTower(config_of(kind, **options), embed_dim=embed_dim)
    randomized(tower, seed)
    return tower.eval()


def rows_for(tower: HfTextTower, count: int = 5, length: int = LENGTH, seed: int = 0) -> Tensor:
    """Return ids `[count, length]`: captions of every length, then padding."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.full((count, length), tower.pad_id)
    for number, row in enumerate(rows):
        words = 2 + (3 * number) % (length - 2)
        row[:words] = torch.randint(3, VOCABULARY, (words,), generator=generator)
    return rows


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5


# -- the peer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_type", POOLERS)
@pytest.mark.parametrize("kind", PEERS)
def test_features_equal_the_peers(kind: str, pool_type: str, tmp_path: Path) -> None:
    proj = "mlp" if pool_type == "mean" else "linear"
    ours = tower_of(kind, pool_type=pool_type, proj=proj)
    published = {"model_type": kind, "vocab_size": VOCABULARY, **ENCODERS[kind]}
    (tmp_path / "config.json").write_text(json.dumps(published))
    theirs = HFTextEncoder(str(tmp_path), EMBED_DIM, pooler_type=POOLERS[pool_type], proj_type=proj, pretrained=False)
    randomized(theirs, seed=1).eval()
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    ours.load_state_dict(theirs.state_dict())
    rows = rows_for(ours)
    assert ours.pad_id == theirs.config.pad_token_id
    with torch.no_grad():
        close(ours(rows), theirs(rows))


def test_gradients_equal_the_peers(tmp_path: Path) -> None:
    ours = tower_of("roberta")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "roberta", "vocab_size": VOCABULARY, **ENCODERS["roberta"]})
    )
    theirs = HFTextEncoder(str(tmp_path), EMBED_DIM, pooler_type="mean_pooler", proj_type="mlp", pretrained=False)
    theirs.eval().load_state_dict(ours.state_dict())
    gradients = []
    for tower in (ours, theirs):
        tower(rows_for(ours)).square().sum().backward()
        gradients.append({name: one.grad for name, one in tower.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_architectures_have_the_peers_parameters(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    arguments: Any = open_clip.get_model_config(name)
    arguments["text_cfg"] |= {"hf_model_name": str(tmp_path), "hf_model_pretrained": False}
    config = zoo.config(name)
    with torch.device("meta"):
        theirs = open_clip.CustomTextCLIP(**arguments)
        ours = (
            default_registry()
            .get("model", config.model)
            .build(config, towers=("image", "text"), registry=default_registry())
        )
    assert shapes(ours) == shapes(theirs)
    kept, expected = ours.text.transformer.config.to_dict(), theirs.text.transformer.config.to_dict()
    assert {key: kept[key] for key in PUBLISHED[name] if "decoder" not in key} == {
        key: expected[key] for key in PUBLISHED[name] if "decoder" not in key
    }
    assert type(ours.text.proj) is type(theirs.text.proj)
    assert config.text.pool_type == {"MeanPooler": "mean", "ClsPooler": "cls"}[type(theirs.text.pooler).__name__]
    assert activation(ours) == activation(theirs)


def test_gte_modernbert_is_that_of_transformers_at_256_tokens() -> None:
    """ModernBERT base, which GTE's model was trained from, is the default config of transformers."""
    config: Any = zoo.config("gte-modernbert-base-vit-b32-256")
    published = transformers.ModernBertConfig(max_position_embeddings=256)
    with torch.device("meta"):
        ours, theirs = HfTextTower(config.text, embed_dim=512), transformers.ModernBertModel(published)
    assert shapes(ours.transformer) == shapes(theirs)
    assert ours.proj.weight.shape == (512, 768)
    kept, expected = ours.transformer.config.to_dict(), published.to_dict()
    for varying in ("architectures", "dtype", "use_cache"):
        kept.pop(varying, None), expected.pop(varying, None)
    assert kept == expected
    assert (ours.pad_id, config.text.pool_type, ours.context_length) == (50_283, "cls", 256)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def activation(model: Any) -> str:
    return type(model.visual.transformer.resblocks[0].mlp.gelu).__name__


# -- transformers ----------------------------------------------------------------------------------


def reference(tower: HfTextTower, rows: Tensor) -> Any:
    """Return what transformers makes of rows, beside ours: the plain call, every hidden state."""
    mask = (rows != tower.pad_id).long()
    return tower.transformer(input_ids=rows, attention_mask=mask, output_hidden_states=True)


@pytest.mark.parametrize("kind", ENCODERS)
def test_tokens_are_the_last_hidden_state_of_the_encoder(kind: str) -> None:
    tower = tower_of(kind)
    with torch.no_grad():
        close(tower.forward_tokens(rows_for(tower))[1], reference(tower, rows_for(tower)).last_hidden_state)


def test_an_encoder_with_two_halves_equals_that_half_of_the_whole() -> None:
    whole = transformers.AutoModel.from_config(
        transformers.MT5Config(vocab_size=VOCABULARY, **ENCODERS["mt5"], num_decoder_layers=2)
    ).eval()
    tower = tower_of("mt5")
    tower.transformer.load_state_dict(whole.get_encoder().state_dict())
    rows = rows_for(tower)
    mask = (rows != tower.pad_id).long()
    with torch.no_grad():
        close(tower.forward_tokens(rows)[1], whole.get_encoder()(rows, mask).last_hidden_state)


@pytest.mark.parametrize("kind", ENCODERS)
def test_intermediates_are_the_hidden_states_of_the_encoder(kind: str) -> None:
    tower = tower_of(kind)
    rows = rows_for(tower)
    with torch.no_grad():
        expected = reference(tower, rows)
        found = tower.forward_intermediates(rows)
        normed = tower.forward_intermediates(rows, indices=1, normalize_intermediates=True)
    assert len(found["text_intermediates"]) == 3
    for ours, theirs in zip(found["text_intermediates"][:-1], expected.hidden_states[1:-1], strict=True):
        close(ours, theirs)
    close(normed["text_intermediates"][0], expected.last_hidden_state)


@pytest.mark.parametrize("kind", ENCODERS)
def test_no_layer_runs_after_the_last_that_is_wanted(kind: str) -> None:
    tower = tower_of(kind)
    rows = rows_for(tower)
    with torch.no_grad():
        everything = tower.forward_intermediates(rows)["text_intermediates"]
        features = tower(rows)
    ran: list[int] = []
    for at, layer in enumerate(dict(tower.named_modules())[stack_name(tower)]):
        layer.register_forward_pre_hook(lambda *_, at=at: ran.append(at))
    with torch.no_grad():
        found = tower.forward_intermediates(rows, indices=[0, -2], stop_early=True, intermediates_only=True)
        assert ran == [0, 1]
        close(tower(rows), features)
    for ours, expected in zip(found["text_intermediates"], everything[:2], strict=True):
        close(ours, expected)


def test_layers_come_in_their_order_and_once() -> None:
    tower = tower_of("bert")
    rows = rows_for(tower)
    with torch.no_grad():
        first, _, last = tower.forward_intermediates(rows)["text_intermediates"]
        chosen = tower.forward_intermediates(rows, indices=[2, 0, -1])["text_intermediates"]
    assert len(chosen) == 2
    close(chosen[0], first)
    close(chosen[1], last)


def stack_name(tower: HfTextTower) -> str:
    return next(name for name, one in tower.named_modules() if isinstance(one, nn.ModuleList) and len(one) == 3)


def test_only_the_format_nlc_is_given() -> None:
    tower = tower_of("bert")
    with pytest.raises(InputError, match="text_output_fmt must be 'NLC', found 'NCHW'"):
        tower.forward_intermediates(rows_for(tower), output_fmt="NCHW")


# -- pooling and padding ---------------------------------------------------------------------------


@pytest.mark.parametrize("pool_type", ["mean", "max"])
def test_pooling_leaves_padding_out(pool_type: Any) -> None:
    tokens = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([[True] * 4, [True, False, False, False], [False, True, True, False]])
    by_hand = {"mean": lambda one: one.double().mean(dim=0).float(), "max": lambda one: one.max(dim=0).values}
    expected = torch.stack([by_hand[pool_type](row[mask]) for row, mask in zip(tokens, kept, strict=True)])
    close(pool(pool_type, tokens, kept, None), expected)


def test_the_mean_of_a_long_row_in_half_precision_does_not_overflow() -> None:
    tokens = torch.full((1, 1_000, 2), 100.0, dtype=torch.float16)
    kept = torch.ones(1, 1_000, dtype=torch.bool)
    found = pool("mean", tokens, kept, None)
    assert found.dtype == torch.float16
    assert torch.equal(found, tokens[:, 0])


def test_the_first_token_is_pooled_by_the_encoder_where_it_can() -> None:
    tokens, pooled = torch.randn(2, 3, 4), torch.randn(2, 4)
    kept = torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(pool("cls", tokens, kept, pooled), pooled)
    assert torch.equal(pool("cls", tokens, kept, None), tokens[:, 0])
    assert torch.equal(pool("cls-hidden", tokens, kept, pooled), tokens[:, 0])


@pytest.mark.parametrize("pool_type", ["mean", "max", "cls", "cls-hidden"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_row_cut_to_its_caption_has_the_same_feature(kind: str, pool_type: str) -> None:
    tower = tower_of(kind, pool_type=pool_type)
    rows = rows_for(tower)
    with torch.no_grad():
        whole = tower(rows)
        for row, feature in zip(rows, whole, strict=True):
            close(tower(row[row != tower.pad_id][None])[0], feature)


@pytest.mark.parametrize("pool_type", ["mean", "max"])
def test_a_row_of_padding_alone_has_a_finite_feature(pool_type: str) -> None:
    tower = tower_of("roberta", pool_type=pool_type)
    rows = rows_for(tower)
    rows[1] = tower.pad_id
    with torch.no_grad():
        assert tower(rows).isfinite().all()


def test_another_padding_id_is_masked_everywhere() -> None:
    plain, other = tower_of("roberta"), tower_of("roberta", pad_id=5)
    other.load_state_dict(plain.state_dict())
    rows = rows_for(plain)
    rows[rows == 5] = 6
    with torch.no_grad():
        # RoBERTa counts positions from its padding id, so the table has to move along.
        positions = other.transformer.embeddings.position_embeddings.weight
        positions.copy_(positions.roll(4, dims=0))
        moved = torch.where(rows == plain.pad_id, 5, rows)
        close(other(moved), plain(rows))


# -- the tower -------------------------------------------------------------------------------------

KIT = [
    ("roberta", {}),
    ("bert", {"pool_type": "cls", "proj": "linear"}),
    ("mt5", {"pool_type": "max", "proj": "none"}),
    ("m2m_100", {"pool_type": "cls", "proj": "linear"}),
    ("modernbert", {"pool_type": "cls-hidden"}),
    ("gpt2", {}),
]


@pytest.mark.parametrize(("kind", "options"), KIT, ids=[kind for kind, _ in KIT])
def test_a_tower_of_any_encoder_keeps_every_promise(kind: str, options: dict[str, Any]) -> None:
    check_component(default_registry().get("text-tower", "hf-text"), config_of(kind, **options))


@pytest.mark.parametrize("kind", ENCODERS)
def test_groups_unlock_the_projection_then_layer_after_layer(kind: str) -> None:
    tower = tower_of(kind, pool_type="cls")
    stack = stack_name(tower)

    def trainable() -> set[str]:
        return {name for name, one in tower.named_parameters() if one.requires_grad}

    assert len(tower.layer_groups()) == 5
    tower.lock(1)
    assert trainable() and all(name.startswith("proj.") for name in trainable())
    tower.lock(2)
    in_layers = {name.removeprefix(f"{stack}.").partition(".")[0] for name in trainable() if name.startswith(stack)}
    assert in_layers == {"2"}
    tower.lock(4)
    assert not any("embed" in name or name.startswith("transformer.wte") for name in trainable())
    tower.lock(5)
    assert trainable() == {name for name, _ in tower.named_parameters()}


def test_a_tower_without_projection_has_no_group_for_it() -> None:
    assert len(tower_of("bert", proj="none", embed_dim=16).layer_groups()) == 4


def test_positions_are_not_decayed() -> None:
    assert tower_of("roberta").no_weight_decay() == {"transformer.embeddings.position_embeddings.weight"}
    (bias,) = tower_of("mt5").no_weight_decay()
    assert bias.endswith("SelfAttention.relative_attention_bias.weight")


def test_checkpointing_that_transformers_does_not_offer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = tower_of("bert")
    monkeypatch.setattr(type(tower.transformer), "supports_gradient_checkpointing", False)
    with pytest.raises(CapabilityError, match="an encoder of type 'bert' does not offer checkpointing"):
        tower.set_grad_checkpointing()


def test_half_a_model_is_built_without_the_other_half() -> None:
    assert not [name for name, _ in tower_of("m2m_100").named_parameters() if "decoder" in name]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_tower_is_built_in_the_default_dtype_whatever_the_file_says(dtype: str, tmp_path: Path) -> None:
    published = {"model_type": "bert", "vocab_size": VOCABULARY, "torch_dtype": dtype, **ENCODERS["bert"]}
    (tmp_path / "config.json").write_text(json.dumps(published))
    tower = tower_of("bert", name=str(tmp_path), config={})
    assert {one.dtype for one in tower.parameters()} == {torch.float32}


# -- configs ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., str]:
    """Write the config.json of a small BERT, with changes, and return its folder."""

    def write(**changes: Any) -> str:
        published = {"model_type": "bert", "vocab_size": VOCABULARY, "leftover": 3, **ENCODERS["bert"], **changes}
        (tmp_path / "config.json").write_text(json.dumps(published))
        return str(tmp_path)

    return write


def test_a_published_config_is_read_and_changed_by_either_of_its_names(folder: Any) -> None:
    name = folder(model_type="distilbert", **ENCODERS["distilbert"])
    tower = tower_of("bert", name=name, config={"n_layers": 2, "hidden_size": 8, "hidden_dim": 12})
    assert len(tower.transformer.transformer.layer) == 2
    assert tower.forward_tokens(rows_for(tower))[1].shape == (5, LENGTH, 8)


def test_a_key_that_is_null_is_kept_as_such() -> None:
    config = config_of("bert", config={"model_type": "bert", "bos_token_id": None, **SIZES})
    assert HfTextConfig.parse(config.data()) == config
    assert "bos_token_id" in config.data()["config"]


WRONG_AT_ONCE: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"config": {}}, "config: names no model_type, and there is no name to take one from; write config: "),
    "vocabulary": ({"config": {"model_type": "bert", "vocab_size": 7}}, "config.vocab_size: 7 is not the vocab_size 60 of the tower; leave it out"),
    "padding": ({"pad_id": 60}, "pad_id: 60 is none of the 60 token ids"),
    "pooling": ({"pool_type": "cls_pooler"}, "pool_type: 'cls_pooler' is not known (allowed: cls, cls-hidden, max, mean)"),
    "projection": ({"proj": "clap"}, "proj: 'clap' is not known"),
    "revision": ({"revision": "main"}, "revision: only a repository of the Hub has revisions, found name None"),
    "key": ({"pooler": "mean"}, "pooler: unknown key, did you mean 'pool_type'"),
    "open_clip's name": ({"hf_model_name": "a"}, "hf_model_name: unknown key, did you mean 'name'?"),
    "open_clip's projection": ({"hf_proj_type": "mlp"}, "hf_proj_type: unknown key, did you mean 'proj'?"),
    "open_clip's native projection": ({"proj_type": "none"}, "proj_type: unknown key, did you mean 'proj'?"),
    "open_clip's pooler": ({"hf_pooler_type": "cls_pooler"}, "hf_pooler_type: unknown key, did you mean 'pool_type'?"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_AT_ONCE)
def test_what_can_be_refused_without_transformers_is(case: str) -> None:
    options, message = WRONG_AT_ONCE[case]
    with pytest.raises(ConfigError) as caught:
        config_of("bert", **options)
    assert message in str(caught.value)


def bert(**changes: Any) -> dict[str, Any]:
    return {"config": {"model_type": "bert", **SIZES, **changes}}


WRONG_WHEN_BUILT: dict[str, tuple[dict[str, Any], str]] = {
    "type": (bert(model_type="bret"), "text.config.model_type: transformers knows no model type 'bret', did you mean 'bert'?"),
    "no text": (bert(model_type="vit"), "text.config.model_type: 'vit' is no text encoder: its config has no vocab_size"),
    "key": (bert(hidden_sice=3), "text.config.hidden_sice: unknown key of bert, did you mean 'hidden_size'?"),
    "type of value": (bert(hidden_size="16"), "text.config: bert: StrictDataclassFieldValidationError: Validation error for field 'hidden_size':"),
    "twice": ({"config": {"model_type": "mt5", "d_model": 8, "hidden_size": 16}}, "text.config.hidden_size: is 'd_model' by another name, which is there too"),
    "heads": (bert(num_attention_heads=3), "text.config: transformers cannot build a bert of it: ValueError: The hidden size (16) is not a multiple of the number of attention heads (3)"),
    "length": ({"context_length": 21}, "text.context_length: 21 tokens are more than the 20 positions of the encoder"),
    "projection": ({"proj": "none"}, "text.proj: none needs embed_dim 16, as wide as the encoder; found 12"),
    "padding": ({"config": {"model_type": "gpt2"}}, "text.pad_id: the config of gpt2 names no padding token; set pad_id"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_WHEN_BUILT)
def test_what_transformers_does_not_take_is_refused_in_one_line(case: str) -> None:
    options, message = WRONG_WHEN_BUILT[case]
    with pytest.raises(ConfigError) as caught:
        tower_of("bert", **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_roberta_has_fewer_positions_than_its_table() -> None:
    assert tower_of("roberta", context_length=18).context_length == 18
    with pytest.raises(ConfigError, match="19 tokens are more than the 18 positions of the encoder"):
        tower_of("roberta", context_length=19)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"vocab_size": 61}, {}, "text.vocab_size: the encoder '.*' has 61 token embeddings, not 60; set vocab_size: 61"),
        ({}, {"config": {"model_type": "roberta"}}, "text.config.model_type: 'roberta' is not the type 'bert' of "),
        ({"model_type": None}, {}, "text.config.model_type: transformers knows no model type 'None'"),
    ],
)  # fmt: skip
def test_a_published_config_that_does_not_fit_is_refused(
    changes: dict[str, Any], options: dict[str, Any], message: str, folder: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        tower_of("bert", **{"name": folder(**changes), "config": {}, **options})


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", ".*config.json:1:1: expected a mapping"), ("{", ".*config.json:1:2: is not JSON"), (None, "it holds none of config.json")],
)  # fmt: skip
def test_a_folder_without_a_config_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=f"^text.name: '.*': {message}"):
        tower_of("bert", name=str(tmp_path), config={})


def test_code_that_comes_with_a_config_is_never_run(folder: Any) -> None:
    name = folder(auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
    assert type(tower_of("bert", name=name, config={}).transformer) is transformers.BertModel


# -- whole models ----------------------------------------------------------------------------------

SMALL = [
    "embed_dim=12", "vision.image_size=32", "vision.width=16", "vision.head_width=8", "vision.layers=2",
    "text.context_length=10", "text.vocab_size=60", "tokenizer.vocab_size=60", "text.config.max_position_embeddings=20",
]  # fmt: skip
SMALL_ROBERTA = [*SMALL, *(f"text.config.{key}={value}" for key, value in SIZES.items())]
SMALL_NLLB = [
    *SMALL,
    *(f"text.config.{key}={value}" for key, value in ENCODERS["m2m_100"].items()),
]


def test_a_model_is_built_without_the_hub_and_says_what_its_tokenizer_lacks() -> None:
    model = zoo.build("roberta-vit-b32", overrides=SMALL_ROBERTA)
    assert model.encode_text(torch.randint(3, 60, (2, 7))).shape == (2, 12)
    with pytest.raises(
        DownloadError, match="^tokenizer.name: roberta-base: tokenizer.json .* is not in the local cache"
    ):
        model.encode_text(["a cat"])


@pytest.mark.parametrize(("name", "small"), [("roberta-vit-b32", SMALL_ROBERTA), ("nllb-clip-base", SMALL_NLLB)])
def test_weights_load_into_a_model_that_takes_no_memory_first(name: str, small: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = zoo.build(name, overrides=small)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    # transformers saved this table of counted numbers until version 4.31
    save_file(state | {"text.transformer.embeddings.position_ids": torch.arange(20)[None]}, tmp_path / "a.safetensors")
    loaded = zoo.build(name, overrides=small, pretrained=tmp_path / "a.safetensors")
    rows = torch.randint(3, 60, (3, 10))
    with torch.no_grad():
        assert torch.equal(loaded.encode_text(rows), model.encode_text(rows))
        assert torch.equal(loaded.encode_image(images(loaded)), model.encode_image(images(model)))


def test_a_whole_model_equals_the_peers(tmp_path: Path) -> None:
    published = {"model_type": "roberta", "vocab_size": 60, "type_vocab_size": 1, "layer_norm_eps": 1e-5, **SIZES}
    (tmp_path / "config.json").write_text(json.dumps(published))
    arguments: Any = open_clip.get_model_config("roberta-ViT-B-32")
    arguments["embed_dim"] = 12
    arguments["vision_cfg"] |= {"image_size": 32, "width": 16, "head_width": 8, "layers": 2}
    arguments["text_cfg"] |= {"hf_model_name": str(tmp_path), "hf_model_pretrained": False}
    theirs = randomized(open_clip.CustomTextCLIP(**arguments)).eval()
    ours = zoo.build("roberta-vit-b32", overrides=SMALL_ROBERTA)
    ours.load_state_dict(theirs.state_dict())
    rows = rows_for(ours.text)
    with torch.no_grad():
        for found, expected in zip(ours(images(ours), rows), theirs(images(ours), rows), strict=True):
            close(found, expected)
