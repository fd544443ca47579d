"""Exact trimming: features of captions encoded by length are those of whole rows, for every tower that says so."""

from __future__ import annotations

import random
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import zoo
from support.models.declared_towers import dressed_as_clips
from support.peer import captions, randomized
from zoo_core.errors import ConfigError, InputError, PluginError, TruncatedTextWarning
from zoo_core.interfaces import TextTower
from zoo_core.models import encode_text
from zoo_core.models.encode_text import LIMITS, STEP, Limits, buckets, encode_captions, encode_rows
from zoo_core.nn.inference_forms import forms_of
from zoo_core.testing import BrokenPromiseError, check_component
from zoo_core.testing.capabilities import example_input
from zoo_core.text.tokenizer import Tokenizer
from zoo_text.clip.config import ClipTextConfig
from zoo_text.clip.tower import TextTransformer

TOLERANCE = 1e-5
CONTEXT = 40
TINY: dict[str, Any] = {
    "model": "custom-text-clip",
    "embed_dim": 16,
    "vision": {"tower": "vit", "image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text": {
        "tower": "clip-transformer",
        "context_length": CONTEXT,
        "vocab_size": 600,
        "width": 16,
        "heads": 2,
        "layers": 2,
    },
    "tokenizer": {"type": "clip-bpe", "vocab_size": 600},
    "preprocess": {"type": "image"},
}
ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 600,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 60,
    "pad_token_id": 0,
}

TRIMMED: dict[str, dict[str, Any]] = {
    "largest id": {},
    "end of text": {"pool_type": "eos", "eos_id": 599},
    "end of text in the middle of the ids": {"pool_type": "eos", "eos_id": 7},
    "options": {"activation": "quick_gelu", "ls_init_value": 0.1, "block": {"qk_norm": True, "scale_fc": True}},
    "hf mean": {"tower": "hf-text", "config": ROBERTA, "pool_type": "mean"},
    "hf max": {"tower": "hf-text", "config": ROBERTA, "pool_type": "max"},
    "hf class": {"tower": "hf-text", "config": ROBERTA, "pool_type": "cls"},
}
WHOLE: dict[str, dict[str, Any]] = {
    "last": {"pool_type": "last"},
    "last, looking ahead": {"pool_type": "last", "causal": False},
    "largest id, looking ahead": {"causal": False},
    "class token": {"class_token": True, "pool_type": "last", "pad_id": 0},
}
"""Towers whose feature depends on padding."""


def model_of(text: dict[str, Any]) -> Any:
    own = {} if "tower" in text else TINY["text"]
    section = {"context_length": CONTEXT, "vocab_size": 600, **own, **text}
    tokenizer = TINY["tokenizer"]
    if text.get("eos_id", 599) != 599:  # which no tokenizer of CLIP's has; this one is never loaded
        tokenizer = {"type": "hf", "name": "never-loaded", "vocab_size": 600}
    return randomized(zoo.build({**TINY, "text": section, "tokenizer": tokenizer})).eval()


def end_of(model: Any) -> int:
    end = getattr(model.text, "eos_id", None)
    return 599 if end is None else end


@pytest.fixture(scope="module", params=TRIMMED)
def trimmed(request: pytest.FixtureRequest) -> Any:
    return model_of(TRIMMED[request.param])


def rows(model: Any, lengths: list[int], seed: int = 0) -> Tensor:
    """Return captions of these lengths, end of text included, with padding behind."""
    generator = torch.Generator().manual_seed(seed)
    end = end_of(model)
    text = torch.zeros(len(lengths), CONTEXT, dtype=torch.int64)
    for row, length in zip(text, lengths, strict=True):
        row[: length - 1] = torch.randint(10, 590, (length - 1,), generator=generator)
        row[length - 1] = end
    return text


def calls(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return the shapes of ids that the text tower gets from now on."""
    seen: list[tuple[int, ...]] = []
    forward = model.text.forward
    monkeypatch.setattr(model.text, "forward", lambda ids: (seen.append(tuple(ids.shape)), forward(ids))[1])
    return seen


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(2, CONTEXT), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_features_are_those_of_whole_rows_in_the_callers_order(trimmed: Any, lengths: list[int], seed: int) -> None:
    text = rows(trimmed, lengths, seed)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIMITS, "cpu", Limits(few=16, many=64))
        found, whole = trimmed.encode_text(text), trimmed.text(text)
    torch.testing.assert_close(found, whole, rtol=0, atol=TOLERANCE)
    assert torch.equal((found @ found.T).argmax(dim=-1), (whole @ whole.T).argmax(dim=-1))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99))
def test_ids_of_no_caption_at_all_have_the_features_of_whole_rows(trimmed: Any, seed: int) -> None:
    text = torch.randint(8, 599, (6, CONTEXT), generator=torch.Generator().manual_seed(seed))
    text[:, seed % CONTEXT] = end_of(trimmed)
    with torch.no_grad():
        torch.testing.assert_close(trimmed.encode_text(text), trimmed.text(text), rtol=0, atol=TOLERANCE)


SHARED = {
    "causal": st.booleans(),
    "ls_init_value": st.sampled_from([None, 0.1]),
    "proj_type": st.sampled_from(["linear", "none"]),
    "layers": st.integers(1, 3),
    "heads": st.sampled_from([1, 2, 4]),
}
CLIPS = SHARED | {
    "tower": st.just("clip-transformer"),
    "pool_type": st.sampled_from(["argmax", "eos", "first", "last"]),
    "class_token": st.booleans(),
    "pad_mask": st.booleans(),
    "activation": st.sampled_from(["gelu", "gelu_tanh", "quick_gelu"]),
    "block": st.fixed_dictionaries({key: st.booleans() for key in ("qk_norm", "scale_attn", "scale_heads")}),
}
MODERN = SHARED | {
    "tower": st.just("modern-transformer"),
    "pool_type": st.sampled_from(["eos", "mean", "map"]),
    "pos_embed": st.sampled_from(["rope", "none"]),
    "mlp": st.sampled_from(["swiglu", "gelu", "relu2"]),
    "norm_placement": st.sampled_from(["pre", "sandwich"]),
    "reg_tokens": st.integers(0, 2),
    "attn_gated": st.booleans(),
    "qk_norm": st.booleans(),
}
ENCODERS = (
    ROBERTA,
    {"model_type": "mt5", "vocab_size": 600, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    {**ROBERTA, "model_type": "modernbert", "local_attention": 4}
    | dict.fromkeys(("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id"), 1),
)
OTHERS = {
    "tower": st.just("hf-text"),
    "config": st.sampled_from(ENCODERS),
    "pool_type": st.sampled_from(["mean", "max", "cls", "cls-hidden"]),
    "proj": st.sampled_from(["linear", "mlp", "none"]),
}


def drawn_tower(options: dict[str, Any]) -> Any:
    """Return a random tower, in the form that inference gives it where there is one; None where options clash."""
    section = {"context_length": CONTEXT, "vocab_size": 600, **options}
    if section["tower"] != "hf-text":
        section |= {"width": 16} | ({"eos_id": 599} if section["pool_type"] == "eos" else {})
    if section["tower"] == "modern-transformer" or section.get("class_token") or section.get("pad_mask"):
        section["pad_id"] = 0
    component = zoo.registry().get("text-tower", section["tower"])
    try:
        config = component.config_class().parse(section)
    except ConfigError:
        return None
    return randomized(component.build(config, embed_dim=16)).eval()


@settings(deadline=None, max_examples=40)
@given(
    options=st.one_of(*map(st.fixed_dictionaries, (CLIPS, MODERN, OTHERS))),
    lengths=st.lists(st.integers(2, CONTEXT), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_features_of_any_tower_are_those_of_whole_rows(options: Any, lengths: list[int], seed: int) -> None:
    tower = drawn_tower(options)
    assume(tower is not None)
    text = torch.zeros(len(lengths), CONTEXT, dtype=torch.int64)
    for row, length in zip(text, lengths, strict=True):
        row[:length] = torch.randint(10, 590, (length,), generator=torch.Generator().manual_seed(seed))
        row[length - 1] = 599
    forms = [tower, *(form.make() for form in forms_of(tower))]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIMITS, "cpu", Limits(few=16, many=64))
        whole = tower(text)
        for form in forms:
            torch.testing.assert_close(encode_rows(form, text), whole, rtol=0, atol=TOLERANCE)


def test_no_more_is_encoded_than_the_longest_of_a_bucket(trimmed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "cpu", Limits(few=32, many=2_048))
    seen = calls(trimmed, monkeypatch)
    with torch.no_grad():
        trimmed.encode_text(rows(trimmed, [3, 39, 5, 12, 8, 4, 13, 3]))
    assert seen == [(5, 8), (2, 16), (1, CONTEXT)]


def test_gradients_are_those_of_whole_rows(trimmed: Any) -> None:
    text, weights = rows(trimmed, [3, 30, 9]), list(trimmed.text.parameters())
    found, whole = (
        torch.autograd.grad(features.square().sum(), weights, allow_unused=True, materialize_grads=True)
        for features in (trimmed.encode_text(text), trimmed.text(text))
    )
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=TOLERANCE)


def test_training_is_one_batch_cut_to_its_longest_row(trimmed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "cpu", Limits(few=1, many=2_048))
    seen = calls(trimmed, monkeypatch)
    trimmed.train().encode_text(rows(trimmed, [3, 20, 9]))
    trimmed.eval()
    assert seen == [(3, 24)]


@pytest.mark.parametrize("name", WHOLE)
def test_what_depends_on_padding_is_never_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(WHOLE[name])
    text = rows(model, [3, 20, 9])
    longer = text.clone()
    longer[0, 3:] = 5  # something else behind the end of text
    with torch.no_grad():
        assert not torch.allclose(model.text(text), model.text(longer), atol=100 * TOLERANCE), "it would have been safe"
        seen = calls(model, monkeypatch)
        model.encode_text(text)
    assert seen == [(3, CONTEXT)]


@pytest.mark.parametrize("name", WHOLE)
def test_a_long_list_of_whole_rows_is_divided_for_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(WHOLE[name])
    text = rows(model, [3, 20, 9, 40, 2])
    monkeypatch.setitem(LIMITS, "cpu", Limits(few=1, many=2 * CONTEXT))
    seen = calls(model, monkeypatch)
    whole = model.text(text)
    for gradients in (False, True):
        seen.clear()
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(model.encode_text(text), whole, rtol=0, atol=TOLERANCE)
        assert seen == [(2, CONTEXT), (2, CONTEXT), (1, CONTEXT)]
    seen.clear()
    model.train().encode_text(text)
    assert seen == [(5, CONTEXT)]


def test_a_compiled_tower_is_compiled_a_few_times_for_all_lengths() -> None:
    torch._dynamo.reset()
    model, graphs = model_of({}), list[Any]()
    whole = model.text

    def backend(module: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(module)
        return module.forward

    model.text = torch.compile(whole, backend=backend)
    with torch.inference_mode():
        for length in range(2, CONTEXT + 1):
            text = rows(model, [length] * (1 + length % 3), seed=length)
            torch.testing.assert_close(model.encode_text(text), whole(text), rtol=0, atol=TOLERANCE)
    assert len(graphs) <= CONTEXT / STEP


def test_a_caption_that_stands_there_twice_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of({})
    seen = calls(model, monkeypatch)
    with torch.no_grad():
        found = model.encode_text(["a cat", "a dog", "a cat", "a cat"])
        assert sum(count for count, _ in seen) == 2
        torch.testing.assert_close(found, model.text(model.tokenizer(["a cat", "a dog", "a cat", "a cat"])))
    assert torch.equal(found[0], found[3])


def test_captions_that_are_cut_are_told_once_with_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_text, "PORTION", 2)
    model = model_of({})
    long, longer = "a " * CONTEXT, "b " * CONTEXT
    texts = ["a", "c", long, longer, long, "d"]
    with torch.no_grad():
        with pytest.warns(TruncatedTextWarning) as caught:
            features = model.encode_text(texts)
        (warning,) = caught
        assert str(warning.message).startswith(
            f"3 of 6 captions have more than {CONTEXT} tokens and were cut; texts[2] is the first of them: 'a a "
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(model.encode_text(texts, overflow="truncate"), features)
            model.encode_text(["a", "c", "d"])
        seen = calls(model, monkeypatch)
        with pytest.raises(
            InputError, match=rf"3 of 6 captions have more than {CONTEXT} tokens; texts\[2\] is the fir"
        ):
            model.encode_text(texts, overflow="error")
        assert not seen, "nothing is encoded where captions are refused"
        assert model.encode_text(["a", "c", "d"], overflow="error").shape == (3, 16)


class Numbers(Tokenizer):
    """A tokenizer whose captions are numbers, which remembers how many it got at a time."""

    context_length, vocab_size, sot_id, eot_id, pad_id = 3, 1 << 20, None, None, 0

    def __init__(self) -> None:
        self.counts: list[int] = []

    def encode(self, text: str) -> list[int]:
        return [int(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(ids[0])

    def tokenize(self, texts: Sequence[str], context_length: int | None = None) -> tuple[Tensor, list[int]]:
        self.counts.append(len(texts))
        return torch.tensor([[int(text)] * 3 for text in texts]), []


def test_of_many_captions_the_ids_of_65_536_are_in_memory_at_a_time() -> None:
    tokenizer = Numbers()
    captions = [str(number) for number in range(1 << 16, 0, -1)] + ["70000", "5"]
    features = encode_captions(captions, tokenizer, lambda ids: ids[:, :1].float(), "warn")
    assert tokenizer.counts == [65_536, 1]
    assert features[:, 0].tolist() == [float(caption) for caption in captions]


def test_no_captions_have_no_features() -> None:
    model = model_of({})
    assert model.encode_text([]).shape == (0, 16)
    assert model.encode_text(torch.zeros(0, CONTEXT, dtype=torch.int64)).shape == (0, 16)


def test_a_compiled_tower_meets_few_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of({})
    seen = calls(model, monkeypatch)
    with torch.no_grad():
        for length in range(2, CONTEXT + 1):
            model.encode_text(rows(model, [length] * 4))
    assert {length for _, length in seen} == {8, 16, 24, 32, 40}


def test_inside_torch_compile_and_export_whole_rows_are_encoded() -> None:
    model = model_of({})
    text = rows(model, [3, 20, 9])
    lengths: list[int] = []

    def backend(module: torch.fx.GraphModule, example: Any) -> Any:
        lengths.extend(one.shape[1] for one in example if isinstance(one, Tensor) and one.dtype == torch.int64)
        return module.forward

    with torch.no_grad():
        compiled = torch.compile(model.encode_text, backend=backend, fullgraph=True)
        torch.testing.assert_close(compiled(text), model.text(text))
        assert set(lengths) == {CONTEXT}

        class Encode(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, text: Tensor) -> Tensor:
                return self.model.encode_text(text)

        exported = torch.export.export(Encode(), (text,), dynamic_shapes={"text": {0: torch.export.Dim("batch")}})
        longer = rows(model, [3, 40, 9, 12, 2], seed=3)
        torch.testing.assert_close(exported.module()(longer), model.text(longer))


# Buckets


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 77), max_size=300),
    few=st.integers(1, 600),
    many=st.integers(8, 3000),
)
def test_buckets_hold_every_row_once_and_are_as_long_as_their_longest(lengths: list[int], few: int, many: int) -> None:
    found = list(buckets(lengths, 77, Limits(few, many)))
    assert sorted(row for numbers, _ in found for row in numbers) == list(range(len(lengths)))
    for numbers, length in found:
        longest = max(lengths[row] for row in numbers)
        assert length == min(77, -(-longest // STEP) * STEP)
        assert len(numbers) * length <= many or len(numbers) == 1
    assert [length for _, length in found] == sorted(length for _, length in found)


def test_many_short_captions_and_a_long_one_are_not_one_batch() -> None:
    random.seed(0)
    lengths = [random.randint(5, 16) for _ in range(200)] + [77]
    tokens = sum(len(numbers) * length for numbers, length in buckets(lengths, 77, LIMITS["cpu"]._replace(many=8192)))
    assert tokens < 1.4 * sum(lengths)


# The test kit holds towers of others to it


class Liar(TextTransformer):
    def read_lengths(self, text: Tensor) -> Tensor | None:
        return text.argmax(dim=-1).clamp(min=1)  # one too few


class Shapeless(TextTransformer):
    def read_lengths(self, text: Tensor) -> Tensor | None:
        return text.argmax(dim=-1)[:, None] + 1


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (Liar, "that read_lengths tells has another feature"),
        (Shapeless, "read_lengths must return numbers [4] from 1 to 6"),
    ],
)
def test_the_kit_tells_a_tower_that_reads_more_than_it_says(factory: type, sentence: str) -> None:
    component = dressed_as_clips(ClipTextConfig, factory)
    with pytest.raises(BrokenPromiseError) as raised:
        check_component(component, {"context_length": 6, "vocab_size": 20, "width": 16, "layers": 2, "heads": 2})
    assert sentence in str(raised.value)


def test_example_ids_of_the_kit_are_read_whole() -> None:
    tower = model_of({}).text
    assert tower.read_lengths(example_input(tower, 3)).tolist() == [CONTEXT] * 3


def test_features_of_the_peers_captions_are_the_peers() -> None:
    from support.peer import small_pair

    ours, theirs = small_pair("vit-b32")
    text = captions(ours, 7)
    with torch.inference_mode():
        torch.testing.assert_close(ours.encode_text(text), theirs.encode_text(text), rtol=0, atol=TOLERANCE)


class SumOfIds(TextTower):
    """A tower whose feature is the sum of the ids, of which it reads those that are not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.output_dim = 1
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.shift = torch.nn.Parameter(torch.zeros(1))
        self.made: list[weakref.ref[Tensor]] = []
        self.alive: list[int] = []
        self.lengths: Any = lambda text: (text != 0).sum(dim=1)

    def read_lengths(self, text: Tensor) -> Any:
        return self.lengths(text)

    def forward(self, text: Tensor) -> Tensor:
        self.alive.append(sum(one() is not None for one in self.made))
        features = text.sum(dim=1, keepdim=True) * self.scale + self.shift
        self.made.append(weakref.ref(features))
        return features


SORTED = torch.arange(1, 33).repeat(3, 1).tril(7)  # rows of 8, 9 and 10 ids


@pytest.fixture
def few_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "cpu", Limits(few=1, many=2_048))


@pytest.mark.usefixtures("few_limits")
def test_two_buckets_are_two_calls() -> None:
    tower = SumOfIds().eval()
    assert torch.equal(encode_rows(tower, SORTED), tower(SORTED))
    assert len(tower.made) == 3


@pytest.mark.usefixtures("few_limits")
def test_without_gradients_the_features_of_a_bucket_are_let_go_before_the_next_is_encoded() -> None:
    tower = SumOfIds().eval()
    with torch.no_grad():
        encode_rows(tower, torch.arange(1, 33).repeat(25, 1).tril()[[7, 15, 23]])
    assert tower.alive == [0, 1, 1]


@pytest.mark.usefixtures("few_limits")
def test_rows_stay_one_batch_where_any_parameter_is_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = SumOfIds().eval()
    monkeypatch.setattr(encode_text, "is_sharded", lambda parameter: parameter is tower.shift)
    encode_rows(tower, SORTED)
    assert len(tower.made) == 1


@pytest.mark.parametrize(
    "lengths", [torch.ones(2, dtype=torch.int64), torch.ones(3, 1, dtype=torch.int64), [1, 2, 3], 5]
)
def test_lengths_that_are_none_are_told_by_the_towers_name(lengths: Any) -> None:
    tower = SumOfIds().eval()
    tower.lengths = lambda text: lengths
    with pytest.raises(PluginError, match=r"read_lengths must return numbers \[3\], found (Tensor|list|int)"):
        encode_rows(tower, SORTED)
