"""The tokenizers of tiktoken beside their definition."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.tokenizers.tiny_tokenizers import ENCODING, ODD, TEXTS
from zoo_core.errors import ConfigError, InputError
from zoo_core.registry import default_registry
from zoo_core.testing import check_config, check_plugin
from zoo_core.text.cleaning import clean_and_collapse
from zoo_tiktoken.config import TiktokenConfig
from zoo_tiktoken.tokenizer import R50K, TiktokenTokenizer

# Long texts are cut as the peer does it; what is said of that is tested in test_overflow.py.
pytestmark = pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning")

N = 260


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TiktokenTokenizer]:
    tiktoken.list_encoding_names()  # finds the constructors, among which ours then stands
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "tiny", ENCODING)
    monkeypatch.setitem(tiktoken.registry.ENCODING_CONSTRUCTORS, "tiny", dict)

    def build(context_length: int = 8, **options: Any) -> TiktokenTokenizer:
        config = TiktokenConfig(**{"encoding": "tiny", "vocab_size": N + 3, **options})
        return TiktokenTokenizer(config, context_length=context_length)

    return build


A_CAT = [97, 32, 257]


@pytest.mark.parametrize(
    ("options", "row"),
    [
        ({}, [N + 2, *A_CAT, N, N + 1, N + 1, N + 1]),
        ({"add_bos": False}, [*A_CAT, N, N + 1, N + 1, N + 1, N + 1]),
        ({"add_eos": False}, [N + 2, *A_CAT, N + 1, N + 1, N + 1, N + 1]),
        ({"add_bos": False, "add_eos": False}, [*A_CAT, *[N + 1] * 5]),
    ],
)
def test_start_end_and_padding_stand_above_the_encoding(options: dict[str, Any], row: list[int], tiny: Any) -> None:
    assert tiny(**options)("a cat").tolist() == [row]


@pytest.mark.parametrize("add_bos", [True, False])
@pytest.mark.parametrize("add_eos", [True, False])
def test_a_row_is_its_caption_cut_to_fit(add_bos: bool, add_eos: bool, tiny: Any) -> None:
    tokenizer = tiny(add_bos=add_bos, add_eos=add_eos)
    for text, row in zip(TEXTS, tokenizer(TEXTS).tolist(), strict=True):
        whole = [*[N + 2] * add_bos, *ENCODING.encode_ordinary(text), *[N] * add_eos]
        if len(whole) > 8:
            whole = [*whole[: 8 - add_eos], *[N] * add_eos]
        assert row == whole + [N + 1] * (8 - len(whole))


def test_special_tokens_in_a_caption_are_plain_text(tiny: Any) -> None:
    assert 259 not in tiny(context_length=40)("<|endoftext|>")


SHORT_ODD = [text for text in ODD.values() if len(text) < 100]


@settings(deadline=None)
@given(texts=st.lists(st.text() | st.just("a<|endoftext|>b") | st.sampled_from(SHORT_ODD), max_size=3))
def test_any_caption_has_one_end_and_comes_back_from_tiktoken(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiktoken, "list_encoding_names", lambda: ["tiny"])
        patch.setattr(tiktoken, "get_encoding", lambda name: ENCODING)
        tokenizer = TiktokenTokenizer(TiktokenConfig(encoding="tiny", vocab_size=N + 3), context_length=8)
        rows = tokenizer(texts)
        for text, row in zip(texts, rows, strict=True):
            assert (row == N).sum() == 1
            assert torch.equal(tokenizer(text)[0], row)
            assert tokenizer.decode(tokenizer.encode(text)) == clean_and_collapse(text, "none")


def test_tiktoken_cleans_where_it_is_told_to(tiny: Any) -> None:
    assert tiny(cleaning="canonicalize").encode(" A  Cat! ") == A_CAT
    assert tiny().encode(" A ") == [32, 65, 32]


def test_tiktoken_decodes_to_the_end_of_text(tiny: Any) -> None:
    tokenizer = tiny(context_length=40)
    assert tokenizer.decode(tokenizer("où est le cat?")[0]) == "où est le cat?"
    assert tokenizer.decode([N + 2, 97, N, 98]) == "a"
    assert tokenizer.decode([0xC3]) == "�"
    with pytest.raises(InputError, match=r"ids\[0\]: expected an id from 0 to 262, found 263"):
        tokenizer.decode([N + 3])


def test_tiktoken_survives_a_pickle(tiny: Any) -> None:
    tokenizer = tiny(add_bos=False)
    assert torch.equal(pickle.loads(pickle.dumps(tokenizer))(TEXTS), tokenizer(TEXTS))


def test_an_encoding_of_another_size_is_refused(tiny: Any) -> None:
    message = "tokenizer.vocab_size: encoding 'tiny' has 260 ids, 263 with end, padding and start, not 99; set vocab_size: 263"
    with pytest.raises(ConfigError, match=message):
        tiny(vocab_size=99)("a")


def test_an_unknown_encoding_is_refused(tiny: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"tokenizer.encoding: tiktoken has no encoding 'cl10k' \(allowed: cl100k_base"
    ):
        tiny(encoding="cl10k").encode("a")


def test_an_encoding_that_cannot_be_downloaded_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Any
) -> None:
    def refuse(name: str) -> None:
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr(tiktoken, "get_encoding", refuse)
    with pytest.raises(ConfigError) as caught:
        tiny(encoding="r50k_base").encode("a")
    assert str(caught.value) == (
        "tokenizer.encoding: the ranks of encoding 'r50k_base' cannot be downloaded: ConnectionError: no route to the host; "
        "set TIKTOKEN_CACHE_DIR to a folder that holds them"
    )


def test_an_expression_that_overflows_tiktokens_stack_is_an_input_error() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("tiny", pat_str=R50K, mergeable_ranks=ranks, special_tokens={})
    tokenizer = TiktokenTokenizer(TiktokenConfig(encoding="tiny", vocab_size=259), context_length=9)
    vars(tokenizer)["loaded"] = encoding
    with pytest.raises(InputError, match="encoding 'tiny' cannot encode 'a .*: PanicException: "):
        tokenizer("a" + " " * 1_000_000 + "b")


def test_the_plugin_is_light_and_its_tokenizer_has_a_plain_config() -> None:
    plugin = default_registry().get("tokenizer", "tiktoken").plugin
    components = {one.spec.name: one for one in check_plugin(plugin.distribution)}
    check_config(components["tiktoken"], {})
    assert components["tiktoken"].spec.requires == ("tiktoken",)
