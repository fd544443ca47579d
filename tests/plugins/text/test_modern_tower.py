"""The modern text transformer and every option of it, beside its definitions written out in float64."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import zoo
from support.modern_reference import Reference, Row
from support.peer import Json
from zoo import CLIP, CustomTextCLIP
from zoo_core.config import TokenIds
from zoo_core.errors import CapabilityError, ConfigError, InputError
from zoo_core.models.build_tower import build_tower
from zoo_core.nn.kv_cache import KVCache
from zoo_core.nn.layers import RMSNorm
from zoo_core.nn.rotary import rotate, rotation
from zoo_core.registry import default_registry
from zoo_core.testing import check_component
from zoo_text.modern.config import ModernTextConfig
from zoo_text.modern.tower import ModernTextTransformer

WIDTH, EMBED_DIM, LENGTH, VOCABULARY, EOS, PAD = 12, 8, 7, 30, 28, 29
SIZES: Json = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": WIDTH, "heads": 2, "layers": 3, "pad_id": PAD}  # fmt: skip
AT_END: Json = {"pool_type": "eos", "eos_id": EOS}
MEAN: Json = {"pool_type": "mean"}
MAP: Json = {"pool_type": "map"}

OPTIONS: dict[str, Json] = {
    "no positions": {"pos_embed": "none"},
    "temperature": {"rope_temperature": 50.0},
    "one head": {"heads": 1},
    "gelu": {"mlp": "gelu"},
    "squared relu": {"mlp": "relu2"},
    "ratio": {"mlp_ratio": 2.6666667},
    "layer norm": {"norm": "layernorm"},
    "epsilon": {"norm_eps": 0.1},
    "sandwich": {"norm_placement": "sandwich"},
    "norm of embeddings": {"pre_norm": True},
    "norm of queries and keys": {"qk_norm": True},
    "gate": {"attn_gated": True},
    "gate with a bias": {"attn_gated": True, "gate_bias": True},
    "gate without a bias": {"attn_gated": True, "gate_bias": False, "attention_bias": True},
    "value residual": {"value_residual": True},
    "registers": {"reg_tokens": 2},
    "layer scale": {"ls_init_value": 0.1},
    "biases of attention": {"attention_bias": True},
    "biases of the perceptron": {"mlp_bias": True},
    "silent branches": {"zero_init_residual": True},
    "biased projection": {"proj_bias": True},
    "no projection": {"proj_type": "none"},
}
TOGETHER: Json = {
    "norm_placement": "sandwich",
    "pre_norm": True,
    "qk_norm": True,
    "attn_gated": True,
    "value_residual": True,
    "reg_tokens": 3,
    "ls_init_value": 0.1,
    "attention_bias": True,
    "mlp_bias": True,
    "proj_bias": True,
}
CASES = {
    f"{name}, {'causal' if causal else 'both ways'}, {pool['pool_type']}": options | pool | {"causal": causal}
    for name, options in {"plain": {}, **OPTIONS, "together": TOGETHER, "together, layer norm": TOGETHER | {"norm": "layernorm", "mlp": "relu2"}}.items()
    for causal, pool in ((True, AT_END), (False, MAP), (False, MEAN))
}  # fmt: skip


def config_of(**changes: Any) -> ModernTextConfig:
    return ModernTextConfig(**SIZES | ({} if "pool_type" in changes else AT_END) | changes)


def tower(**changes: Any) -> ModernTextTransformer:
    """Return a tower in which no weight is as it starts: no bias is zero, no norm plain, no branch silent."""
    config = config_of(**changes)
    model = ModernTextTransformer(config, embed_dim=WIDTH if config.proj_type == "none" else EMBED_DIM)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(0.2 * noise + (1 if name.endswith((".weight", ".gamma")) else 0.3))
    return model.eval()


def texts() -> Tensor:
    """Return rows that end early, twice, late, full, without an end of text, and of padding alone."""
    text = torch.full((6, LENGTH), PAD)
    for row, end in zip(text, (1, 4, 5, LENGTH - 1, 4), strict=False):
        row[:end] = torch.randint(0, EOS, (end,), generator=torch.Generator().manual_seed(end))
        row[end] = EOS
    text[2, 3] = EOS
    text[4, 4] = PAD
    return text


def same(found: Any, expected: Any, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance, check_dtype=False)


def check_against_definitions(model: ModernTextTransformer, text: Tensor, *tolerances: float) -> None:
    """Hold features, tokens and the outputs of blocks to the reference; what padding becomes is nobody's business.

    The last tolerance is for float64, one before it for the dtype that the model has.
    """
    reference = Reference(model.config, model.state_dict())
    rows = [reference(row) for row in text]
    for tolerance in tolerances[:-1]:
        _check_rows(model, text, rows, tolerance)
    _check_rows(model.double(), text, rows, tolerances[-1])


def _check_rows(model: ModernTextTransformer, text: Tensor, rows: list[Row], tolerance: float) -> None:
    registers = model.config.reg_tokens
    with torch.no_grad():
        features, tokens = model.forward_tokens(text)
        found = model.forward_intermediates(text, output_extra_tokens=True)
        same(model(text), features, 0)
    same(found["text_features"], features, 0)
    for number, expected in enumerate(rows):
        length = len(expected.tokens)
        same(features[number], expected.feature, tolerance)
        same(tokens[number, :length], expected.tokens, tolerance)
        for block, output in enumerate(expected.outputs):
            same(found["text_intermediates"][block][number, :length], output[registers:], 4 * tolerance)
            if registers:
                same(found["text_intermediates_extra"][block][number], output[:registers], 4 * tolerance)


# By the definitions


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_tower_is_what_its_definitions_say(options: Json) -> None:
    model = tower(**options)
    check_against_definitions(model, texts(), 1e-5, 1e-10)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert model.config.parameter_count(model.output_dim) == expected


@st.composite
def random_configs(draw: st.DrawFn) -> Json:
    """Return any options that go together, over small sizes."""
    heads, layers = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pos_embed, pool_type = draw(st.sampled_from(["rope", "none"])), draw(st.sampled_from(["eos", "mean", "map"]))
    attn_gated, proj_type = draw(st.booleans()), draw(st.sampled_from(["linear", "none"]))
    flags = ("causal", "pre_norm", "qk_norm", "zero_init_residual", "attention_bias", "mlp_bias")
    return {
        "heads": heads,
        "layers": layers,
        "width": heads * draw(st.integers(1, 3)) * (2 if pos_embed == "rope" else 1),
        "pos_embed": pos_embed,
        "rope_temperature": draw(st.floats(2, 1e6)) if pos_embed == "rope" else 10_000.0,
        "mlp": draw(st.sampled_from(["swiglu", "gelu", "relu2"])),
        "mlp_ratio": draw(st.floats(1, 4)),
        "norm": draw(st.sampled_from(["rmsnorm", "layernorm"])),
        "norm_eps": draw(st.floats(1e-6, 1)),
        "norm_placement": draw(st.sampled_from(["pre", "sandwich"])),
        "attn_gated": attn_gated,
        "gate_bias": draw(st.sampled_from([None, False, True])) if attn_gated else None,
        "value_residual": layers > 1 and draw(st.booleans()),
        "reg_tokens": draw(st.integers(0, 2)),
        "ls_init_value": draw(st.none() | st.just(0.1)),
        "pool_type": pool_type,
        "eos_id": EOS if pool_type == "eos" else None,
        "proj_type": proj_type,
        "proj_bias": proj_type == "linear" and draw(st.booleans()),
        **{flag: draw(st.booleans()) for flag in flags},
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(random_configs(), st.data())
def test_any_options_together_are_what_the_definitions_say(options: Json, data: st.DataObject) -> None:
    config = ModernTextConfig(**SIZES | options)
    assert ModernTextConfig.parse(config.data()) == config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ModernTextTransformer(config, embed_dim=config.width).double().eval()
    assert config.parameter_count(config.width) == sum(parameter.numel() for parameter in model.parameters())
    lengths = data.draw(st.lists(st.integers(0, LENGTH), min_size=1, max_size=2))
    text = torch.full((len(lengths), LENGTH), PAD)
    for row, length in zip(text, lengths, strict=True):
        row[:length] = torch.tensor(data.draw(st.lists(st.integers(0, EOS), min_size=length, max_size=length))).long()
    check_against_definitions(model, text, 1e-9)


def test_rotary_positions_are_exact_far_beyond_what_float32_counts_well() -> None:
    place, width = 1_000_000, 8
    x = torch.randn(1, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    angles = place * 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    expected = torch.view_as_real(
        torch.view_as_complex(x.view(1, -1, 2)) * torch.polar(torch.ones_like(angles), angles)
    )
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        given = x.to(dtype)
        found = rotate(given, rotation(range(place, place + 1), width, 10_000.0, like=given))
        assert found.dtype == dtype
        same(found, expected.flatten(1), tolerance)


# What the features may depend on


@pytest.mark.parametrize("options", [AT_END, MEAN, MAP], ids=["eos", "mean", "map"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_padding_changes_no_feature(causal: bool, options: Json) -> None:
    model = tower(**TOGETHER, **options, causal=causal)
    text = texts()[[0, 1]]
    with torch.no_grad():
        before = model(text)
        same(model(text[:, :5]), before, 1e-6)
        model.token_embedding.weight[PAD] = 9.0
        same(model(text), before, 1e-6)


def test_padding_learns_nothing() -> None:
    model = ModernTextTransformer(config_of(causal=False), embed_dim=EMBED_DIM)
    assert not model.token_embedding.weight[PAD].any()
    model(texts()).square().sum().backward()
    assert model.token_embedding.weight.grad is not None
    assert not model.token_embedding.weight.grad[PAD].any()
    assert model.token_embedding.weight.grad[EOS].any()


def test_a_causal_token_sees_no_later_one_and_others_do() -> None:
    text = texts()[3:4]
    other = text.clone()
    other[0, 4] = (other[0, 4] + 1) % EOS
    for causal in (True, False):
        model = tower(**TOGETHER, causal=causal)
        with torch.no_grad():
            before, after = model.forward_tokens(text)[1], model.forward_tokens(other)[1]
        assert torch.allclose(before[0, :4], after[0, :4], atol=1e-6) is causal
        assert not torch.allclose(before[0, 4:], after[0, 4:], atol=1e-6)


@pytest.mark.parametrize("options", [{}, TOGETHER, {"pos_embed": "none"}], ids=["plain", "together", "no positions"])
@pytest.mark.parametrize("parts", [[1] * LENGTH, [3, 1, 3], [LENGTH]], ids=str)
def test_a_row_that_grows_has_the_tokens_of_the_whole_row(parts: list[int], options: Json) -> None:
    model = tower(**options).double()
    text = texts()[[3, 3]]
    text[1, :-1] = text[1, :-1].flip(0)
    memory = KVCache()
    with torch.no_grad():
        found = torch.cat([model.decode_step(part, memory) for part in text.split(parts, dim=1)], dim=1)
        same(found, model.forward_tokens(text)[1], 1e-10)
        with pytest.raises(InputError, match="8 tokens are more than the context length 7"):
            model.decode_step(text[:, :1], memory)


def test_rows_that_grow_can_be_picked() -> None:
    model = tower(**TOGETHER).double()
    text = texts()[[2, 3]]
    memory = KVCache()
    with torch.no_grad():
        model.decode_step(text[:, :3], memory)
        memory.take(torch.tensor([1, 1, 0]))
        found = model.decode_step(text[[1, 1, 0], 3:], memory)
        same(found, model.forward_tokens(text[[1, 1, 0]])[1][:, 3:], 1e-10)


def test_a_tower_that_looks_ahead_cannot_go_on() -> None:
    model = tower(causal=False)
    assert not model.config.supports_kv_cache()
    with pytest.raises(CapabilityError, match="this text tower is not causal: its tokens depend on later ones"):
        model.decode_step(texts()[:, :1], KVCache())


def test_ids_behind_what_is_read_can_be_left_out() -> None:
    assert tower().read_lengths(texts()).tolist() == [2, 5, 4, 7, 4, 1]
    for options in (MEAN, MAP, AT_END | {"causal": False}):
        assert tower(**options).read_lengths(texts()).tolist() == [2, 5, 6, 7, 4, 1]


# Intermediates, training, precision


def test_intermediates_are_chosen_normed_and_stopped_after() -> None:
    model = tower(**TOGETHER)
    with torch.no_grad():
        everything = model.forward_intermediates(texts(), output_extra_tokens=True)
        normed = model.forward_intermediates(texts(), indices=[0, -1], normalize_intermediates=True)
        calls: list[int] = []
        hooks = [block.register_forward_hook(lambda *_: calls.append(1)) for block in model.blocks]
        first = model.forward_intermediates(texts(), indices=[0], stop_early=True, intermediates_only=True)
        for hook in hooks:
            hook.remove()
    assert len(calls) == 1
    assert set(first) == {"text_intermediates"}
    assert torch.equal(first["text_intermediates"][0], everything["text_intermediates"][0])
    for found, block in zip(normed["text_intermediates"], (0, -1), strict=True):
        same(found, model.ln_final(everything["text_intermediates"][block]), 1e-6)
    assert [one.shape for one in everything["text_intermediates_extra"]] == [(6, 3, WIDTH)] * 3
    plain = tower().forward_intermediates(texts(), output_extra_tokens=True)
    assert set(plain) == {"text_intermediates", "text_features"}
    with pytest.raises(InputError, match="text_output_fmt must be 'NLC', found 'NCHW'"):
        model.forward_intermediates(texts(), output_fmt="NCHW")


def test_a_model_passes_the_registers_of_intermediates_on() -> None:
    text = SIZES | AT_END | {"tower": "modern-transformer", "reg_tokens": 2}
    found = CustomTextCLIP(EMBED_DIM, vision(), text).forward_intermediates(text=texts(), text_output_extra_tokens=True)
    assert [one.shape for one in found["text_intermediates_extra"]] == [(6, 2, WIDTH)] * 3


@pytest.mark.parametrize("options", [{}, TOGETHER | MAP | {"causal": False}], ids=["plain", "together"])
def test_checkpointing_changes_no_gradient_and_all_parameters_learn(options: Json) -> None:
    plain = tower(**options).double().train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing()
    for model in (plain, checkpointed):
        model(texts()).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert one.grad is not None and one.grad.any(), name
        same(other.grad, one.grad, 1e-12)


def test_groups_are_what_embeds_the_blocks_and_what_makes_the_feature() -> None:
    model = tower(**TOGETHER, **MAP)
    groups = [{part for part in model.state_dict() if part.split(".")[0] in names} for names in (
        ("token_embedding", "reg_tokens", "norm_pre"), ("ln_final",), ("pool", "text_projection"),
    )]  # fmt: skip
    names = dict(map(reversed, model.named_parameters()))  # type: ignore[arg-type]
    found = [
        {names[one] for part in group for one in ([part] if isinstance(part, nn.Parameter) else part.parameters())}
        for group in model.layer_groups()
    ]
    assert len(found) == 5
    assert found[0] == groups[0] and found[-1] == groups[2]
    assert groups[1] < found[-2]
    assert {name.split(".")[1] for name in found[-2] - groups[1]} == {"2"}
    assert len(tower(proj_type="none").layer_groups()) == 4
    assert model.no_weight_decay() == {"reg_tokens", "pool.query"}
    assert tower().no_weight_decay() == set()


def test_weights_start_by_width_and_depth_and_gates_open() -> None:
    sizes: Json = {"width": 128, "heads": 4, "layers": 8, "mlp_ratio": 4.0, "attn_gated": True, "gate_bias": True}
    plain, sandwich, silent, gelu = (
        ModernTextTransformer(config_of(**sizes | changes), embed_dim=EMBED_DIM).blocks[-1]
        for changes in ({}, {"norm_placement": "sandwich"}, {"zero_init_residual": True}, {"mlp": "gelu"})
    )
    branch = 128**-0.5 * 16**-0.5
    for weight, expected in (
        (plain.attn.qkv.weight, 128**-0.5),
        (plain.attn.gate.weight, 128**-0.5),
        (plain.attn.proj.weight, branch),
        (plain.mlp.w12.weight, 1.22 * 256**-0.5),
        (plain.mlp.w3.weight, branch),
        (gelu.mlp.c_fc.weight, 256**-0.5),
        (gelu.mlp.c_proj.weight, branch),
        (sandwich.attn.qkv.weight, 0.02),
        (sandwich.mlp.w12.weight, 0.02),
        (sandwich.mlp.w3.weight, 0.02),
    ):
        assert abs(float(weight.detach().std()) / expected - 1) < 0.05
    assert not silent.attn.proj.weight.any() and not silent.mlp.w3.weight.any()
    assert (plain.attn.gate.bias == 1).all()


def test_in_low_precision_every_norm_stays_in_float32_and_features_stay_close() -> None:
    text = SIZES | TOGETHER | MAP | {"tower": "modern-transformer", "causal": False}
    exact = CustomTextCLIP(EMBED_DIM, vision(), text).eval()
    half = CustomTextCLIP(EMBED_DIM, vision(), text, cast_dtype=torch.bfloat16).eval()
    half.load_state_dict(exact.state_dict())
    norms = [module for module in half.modules() if isinstance(module, RMSNorm)]
    assert len(norms) == 3 * 6 + 4
    assert all(norm.weight.dtype == torch.float32 for norm in norms)
    with torch.inference_mode():
        found, expected = half.encode_text(texts()), exact.encode_text(texts())
    assert found.dtype == torch.bfloat16
    assert F.cosine_similarity(found.float(), expected).min() > 0.999


def vision() -> Json:
    return {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}


@pytest.mark.parametrize("model_class", [CLIP, CustomTextCLIP])
def test_both_layouts_of_checkpoints_load_and_come_back(model_class: type[CustomTextCLIP]) -> None:
    text = SIZES | TOGETHER | AT_END | {"tower": "modern-transformer"}
    nested = CustomTextCLIP(EMBED_DIM, vision(), text).eval()
    model = model_class(EMBED_DIM, vision(), text).eval()
    model.load_state_dict(nested.state_dict())
    assert torch.equal(model.encode_text(texts()), nested.encode_text(texts()))
    again = CustomTextCLIP(EMBED_DIM, vision(), text).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.encode_text(texts()), nested.encode_text(texts()))


# Promises, compilation, refusals

KIT: list[Json] = [
    {"pool_type": "eos", "eos_id": VOCABULARY - 1, "pad_id": 0},
    TOGETHER | MAP | {"causal": False, "pad_id": 0},
    TOGETHER | MEAN | {"norm": "layernorm", "mlp": "relu2", "pad_id": 3},
    {"pool_type": "mean", "proj_type": "none", "width": 16, "pos_embed": "none", "mlp": "gelu", "pad_id": 0},
]


@pytest.mark.parametrize("values", KIT, ids=str)
def test_every_promise_is_kept(values: Json) -> None:
    check_component(default_registry().get("text-tower", "modern-transformer"), SIZES | values)


@pytest.mark.parametrize("values", [AT_END, TOGETHER | MAP | {"causal": False}], ids=["plain", "together"])
def test_one_graph_holds_the_whole_tower(values: Json) -> None:
    model = tower(**values)
    torch.compiler.reset()
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        same(compiled(texts()), model(texts()), 1e-6)
    torch.compiler.reset()


BAD: list[tuple[Json, str]] = [
    ({"heads": 5}, "heads: 5 does not divide the width 12"),
    ({"heads": 4}, "heads: a head has 3 channels, and rope turns pairs; make them even, or set pos_embed: none"),
    ({"eos_id": None}, "eos_id: pool_type 'eos' needs the id of the end-of-text token"),
    ({"eos_id": 30}, "eos_id: 30 is not in the vocabulary, whose ids run from 0 to 29"),
    ({"pad_id": 30}, "pad_id: 30 is not in the vocabulary, whose ids run from 0 to 29"),
    ({"pad_id": None}, "pad_id: expected a whole number, found None"),
    ({"pad_id": EOS}, "pad_id: 28 is the end of text as well, which would be left out as padding"),
    (MEAN | {"eos_id": 3}, "eos_id: pool_type 'mean' does not read it; set pool_type: eos, or leave it out"),
    (
        {"pos_embed": "none", "rope_temperature": 10.0},
        "rope_temperature: nothing reads it; set pos_embed: rope, or leave it out",
    ),
    ({"rope_temperature": 1.0}, "rope_temperature: must be greater than 1, found 1.0"),
    ({"mlp_ratio": 0.01}, "mlp_ratio: 0.01 leaves no hidden channel of a width of 12"),
    ({"layers": 1, "value_residual": True}, "value_residual: the only block has none before it; set layers"),
    ({"gate_bias": False}, "gate_bias: there is no gate to give a bias; set attn_gated: true, or leave it out"),
    ({"proj_type": "none", "proj_bias": True}, "proj_bias: there is no projection to give a bias"),
    ({"proj_type": "none"}, "proj_type: 'none' makes the width 12 the feature, which must have embed_dim = 8"),
    ({"mlp": "mlp"}, "mlp: 'mlp' is not known"),
    ({"norm": "rms"}, "norm: 'rms' is not known"),
    ({"norm_placement": "post"}, "norm_placement: 'post' is not known"),
    ({"pos_embed": "learned"}, "pos_embed: 'learned' is not known"),
    ({"pool_type": "argmax"}, "pool_type: 'argmax' is not known"),
    ({"reg_tokens": -1}, "reg_tokens: must be at least 0, found -1"),
    ({"ls_init_value": 0.0}, "ls_init_value: must be greater than 0, found 0.0"),
    ({"attn_gatd": True}, "attn_gatd: unknown key, did you mean 'attn_gated'?"),
    ({"layers": 0}, "layers: must be at least 1, found 0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_what_does_not_go_together_is_told(changes: Json, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_tower(default_registry(), config_of(**changes), EMBED_DIM, ModernTextTransformer)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (TokenIds("t", 31), "vocab_size: 30 rows are too few for tokenizer 't', whose ids reach 30; set it to"),
        (TokenIds("t", 30, end=27), "eos_id: 28 is not the end of text of tokenizer 't', which is 27"),
        (TokenIds("t", 30, padding=0), "pad_id: 29 is not the padding of tokenizer 't', which is 0"),
    ],
)
def test_a_tokenizer_with_other_ids_is_refused(ids: TokenIds, message: str) -> None:
    ((key, problem),) = config_of().rules_with(ids)
    assert f"{key}: {problem}".startswith(message)
    assert not [*config_of().rules_with(TokenIds("t", 30, end=EOS, padding=PAD))]


def test_the_padding_has_to_be_told() -> None:
    with pytest.raises(ConfigError, match="pad_id: required key is missing"):
        ModernTextConfig(pool_type="mean")


def test_options_are_crossed_with_each_other() -> None:
    """Pairs of options, each against the definitions."""
    names = [name for name in OPTIONS if name not in ("gate with a bias", "gate without a bias")]
    chosen = list(itertools.combinations(names, 2))[::7]
    for one, other in chosen:
        options = OPTIONS[one] | OPTIONS[other]
        if {"proj_type", "proj_bias"} <= options.keys() or {"pos_embed", "rope_temperature"} <= options.keys():
            continue
        check_against_definitions(tower(**options, **AT_END), texts()[1:3], 1e-10)


# Architectures


def test_the_architecture_reads_captions_where_its_tokenizer_ends_them() -> None:
    config: Any = zoo.config("moderntext-vit-b32-256")
    ids = config.tokenizer.token_ids()
    assert (ids.count, ids.end, ids.padding) == (config.text.vocab_size, config.text.eos_id, config.text.pad_id)
    assert config.text.parameter_count(512) == 66_896_384


def test_coca_writes_captions_over_a_tower_with_registers() -> None:
    """Each token that the caches led to is the one that the whole caption at once makes the most probable."""
    torch.manual_seed(0)
    text = SIZES | TOGETHER | {"tower": "modern-transformer", "context_length": 12, "vocab_size": 600, "pad_id": 0}
    model = zoo.build(
        {
            "model": "coca",
            "embed_dim": WIDTH,
            "vision": vision()
            | {"tower": "vit", "attentional_pool": "single", "attn_pooler_queries": 3, "attn_pooler_heads": 2},
            "text": text | {"eos_id": 599},
            "multimodal": {"width": WIDTH, "heads": 2, "layers": 2},
            "tokenizer": {"type": "clip-bpe", "vocab_size": 600},
            "preprocess": {"type": "image"},
        }
    )
    images = torch.randn(2, 3, 16, 16)
    ids = model.generate(images, strategy="greedy", max_length=10, min_length=9)
    with torch.no_grad():
        best = model(images, ids)["logits"].argmax(dim=-1)
    assert torch.equal(best[:, :7], ids[:, 1:8])
    assert len(set(ids.flatten().tolist())) > 4
