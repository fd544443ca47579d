"""The byte-pair tokenizer beside open_clip's and beside byte-pair encoding done the plain way."""

from __future__ import annotations

import copy
import functools
import gzip
import pickle
import random
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer, bytes_to_unicode, default_bpe

import zoo_text
from support.tokenizers.tokenizer_corpus import caption, families
from zoo_core.errors import ConfigError, InputError
from zoo_core.text import word_cache
from zoo_core.text.cleaning import clean_and_collapse
from zoo_text.bpe import tokenizer as module
from zoo_text.bpe.config import Cleaning, ClipBpeConfig
from zoo_text.bpe.tokenizer import ClipBpeTokenizer

# Long texts are cut as the peer does it; what is said of that is tested in test_overflow.py.
pytestmark = pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning")

CLEANINGS: tuple[Cleaning, ...] = ("lower", "whitespace", "canonicalize")
SMALL = 1_000


@functools.cache
def ours(cleaning: Cleaning = "lower", *, vocab_size: int = 49_408, special: bool = False) -> ClipBpeTokenizer:
    config = ClipBpeConfig(cleaning=cleaning, vocab_size=vocab_size, special_tokens_in_text=special)
    return ClipBpeTokenizer(config, context_length=77)


@functools.cache
def peers(cleaning: Cleaning = "lower") -> SimpleTokenizer:
    return SimpleTokenizer(clean=cleaning)


def assert_equal_to_the_peer(texts: list[str], cleaning: Cleaning = "lower") -> None:
    expected, found = peers(cleaning)(texts), ours(cleaning, special=True)(texts)
    assert found.dtype == torch.int64
    different = [text for text, same in zip(texts, (expected == found).all(dim=1), strict=True) if not same]
    assert not different, f"{len(different)} of {len(texts)} differ, first {different[0]!r}"


def in_context(code_points: Iterable[int]) -> list[str]:
    """Put each code point within a word, within marks, alone, and before an ending."""
    return [f"a{c}b !{c}! {c}1'{c}" for c in map(chr, code_points)]


@functools.cache
def file_of_merges() -> list[tuple[str, str]]:
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1:]
    return [(left, right) for left, right in map(str.split, lines[: 49_408 - 514])]


def plain_encoding(word: str, merge_count: int) -> list[int]:
    """Encode one word as Sennrich et al. (2016) wrote byte-pair encoding down, with CLIP's first merges."""
    alphabet = bytes_to_unicode()
    merges = file_of_merges()[:merge_count]
    names = [*alphabet.values(), *(f"{c}</w>" for c in alphabet.values()), *map("".join, merges)]
    symbols = [alphabet[byte] for byte in word.encode()]
    symbols[-1] += "</w>"
    for (
        left,
        right,
    ) in merges:  # every merge once, in order of rank: a later one never makes an earlier one possible
        at = 0
        while at < len(symbols) - 1:
            if symbols[at] == left and symbols[at + 1] == right:
                symbols[at : at + 2] = [left + right]
            at += 1
    return [names.index(symbol) for symbol in symbols]


# -- the peer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", families(share=0))
def test_ids_equal_the_peers_on_a_sample_of_every_family_of_texts(family: str) -> None:
    assert_equal_to_the_peer(families(share=0.1)[family])


@pytest.mark.parametrize("cleaning", ["whitespace", "canonicalize"])
def test_ids_equal_the_peers_in_the_other_cleanings(cleaning: Cleaning) -> None:
    assert_equal_to_the_peer([text for texts in families(seed=1, share=0.02).values() for text in texts], cleaning)


def test_ids_equal_the_peers_around_a_sample_of_code_points() -> None:
    assert_equal_to_the_peer(in_context([*range(0x3000), *range(0x3000, 0x110000, 197)]))


@pytest.mark.slow
@pytest.mark.parametrize("cleaning", CLEANINGS)
def test_ids_equal_the_peers_on_all_texts(cleaning: Cleaning) -> None:
    texts = [text for family in families(seed=2).values() for text in family]
    assert len(texts) > 60_000
    assert_equal_to_the_peer(texts, cleaning)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 0x110000, 0x10000))
def test_ids_equal_the_peers_around_every_code_point(start: int) -> None:
    peers().cache = {text: text for text in ("<start_of_text>", "<end_of_text>")}  # it never forgets a word
    assert_equal_to_the_peer(in_context(range(start, start + 0x10000)))


def test_the_shipped_merges_are_the_first_of_openais_file() -> None:
    byte_of = {symbol: bytes([byte]) for byte, symbol in bytes_to_unicode().items()}

    def spelled(part: str) -> bytes:
        stem = part.removesuffix("</w>")
        return b"".join(byte_of[symbol] for symbol in stem) + (b" " if part != stem else b"")

    merges = module.merges(49_408)
    found = [(merges.spellings[left], merges.spellings[right]) for left, right in merges.merged]
    assert found == [(spelled(left), spelled(right)) for left, right in file_of_merges()]
    assert len(set(merges.spellings)) == len(merges.spellings) == 49_406


def test_a_merge_ranks_after_both_of_its_parts() -> None:
    assert all(merged > max(pair) for pair, merged in module.merges(49_408).merged.items())


def test_the_licence_of_the_merges_is_shipped_beside_them() -> None:
    notice = (Path(zoo_text.__file__).parent / "bpe_merges.NOTICE").read_text(encoding="utf-8")
    assert "Copyright (c) 2021 OpenAI" in notice
    assert "Permission is hereby granted" in notice


# -- byte-pair encoding ----------------------------------------------------------------------------


def test_words_of_vocabulary_pieces_are_encoded_as_the_peer_does() -> None:
    rng = random.Random(0)
    pieces = [piece for piece in map("".join, file_of_merges()) if piece.isascii() and piece.isalpha()]
    words = ["".join(rng.choices(pieces, k=rng.randint(2, 8))) for _ in range(1_500)]
    assert_equal_to_the_peer(words + ["".join(rng.choices("aeiouhst", k=rng.randint(5, 60))) for _ in range(500)])


@pytest.mark.parametrize("alphabet", ["ab", "aeiouhst", string.ascii_lowercase, "犬가é", '!"#$%&'])
@pytest.mark.parametrize("length", [1, 2, 40, 64, 65, 66, 200, 2_000])
def test_a_word_of_any_length_is_encoded_as_the_peer_does(alphabet: str, length: int) -> None:
    word = "".join(random.Random(length).choices(alphabet, k=length))
    assert ours().encode(word) == peers().encode(word)


@pytest.mark.parametrize("vocab_size", [514, 515, SMALL, 20_000])
def test_a_cut_vocabulary_merges_only_its_first_merges(vocab_size: int) -> None:
    tokenizer = ours(vocab_size=vocab_size)
    rng = random.Random(3)
    for text in [caption(rng) for _ in range(5)] + ["ÉTÉ 犬 12!!", "anananana" * 9]:
        words = peers().pat.findall(peers().clean_fn(text))
        expected = [token for word in words for token in plain_encoding(word, vocab_size - 514)]
        assert tokenizer.encode(text) == expected
    row = tokenizer("a dog")[0].tolist()
    assert (row[0], max(row), row[-1]) == (vocab_size - 2, vocab_size - 1, 0)


@given(st.text("abc'é ", min_size=1, max_size=300).map(lambda text: text.replace(" ", "") + "a"))
def test_a_long_word_is_merged_as_the_plain_loop_does(word: str) -> None:
    merges = module.merges(49_408)
    symbols = list(word.encode())
    assert merges._merge_long(list(symbols)) == merges._merge(list(symbols))


@pytest.mark.parametrize(
    "text",
    [
        "".join(random.Random(0).choices(string.ascii_lowercase, k=100_000)),
        "a" * 100_000,
        "e" + "\u0301" * 50_000,
        "e" + "\u0315\u0300" * 100_000,
        "&" + "amp;" * 50_000,
        "&" + "am&#112;;" * 30_000,
        "&" + "&#xff41;mp;" * 30_000,
        "&#" + "9" * 1_000_000 + ";",
        "\u00e9\n" * 250_000,
        " ".join(map(str, range(150_000))),
        "1!" * 250_000,
    ],
    ids=[
        "one word",
        "one letter",
        "combining marks",
        "marks out of order",
        "escaped often",
        "escaped in escapes",
        "escaped in wide letters",
        "one number",
        "many lines",
        "many words",
        "no space",
    ],
)
def test_a_huge_caption_takes_no_long_time(text: str) -> None:
    start = time.process_time()
    row = ours()(text)[0]
    assert time.process_time() - start < 10
    assert ours().eot_id in row


# -- rows ------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text() | st.text("a<>_ENDofTXtend!'s é", max_size=200), max_size=4))
def test_any_strings_give_one_well_formed_row_each(texts: list[str]) -> None:
    tokenizer = ours()
    rows = tokenizer(texts)
    assert rows.shape == (len(texts), 77)
    assert torch.equal(rows, tokenizer(texts))
    for text, row in zip(texts, rows, strict=True):
        ids = row.tolist()
        end = ids.index(tokenizer.eot_id)
        assert ids[0] == tokenizer.sot_id
        assert sum(token >= tokenizer.sot_id for token in ids) == 2
        assert not any(ids[end + 1 :])
        assert ids[1:end] == tokenizer.encode(text)[:75]
        assert torch.equal(tokenizer(text)[0], row)


@pytest.mark.parametrize("length", [3, 4, 77, 200])
def test_captions_are_cut_to_the_asked_length_and_end_in_eot(length: int) -> None:
    texts = ["a dog", "a photo of a very big dog " * 40]
    rows = ours()(texts, context_length=length)
    assert torch.equal(rows, peers()(texts, context_length=length))
    assert rows[1, -1] == ours().eot_id


def test_no_captions_give_no_rows() -> None:
    assert ours()([]).shape == (0, 77)


# -- special tokens in text ------------------------------------------------------------------------


@pytest.fixture
def nothing_remembered() -> Iterator[None]:
    caches = (ours, module.merges, module.chunks, module._splitter)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("nothing_remembered")
@pytest.mark.parametrize("vocab_size", [SMALL, 49_408])
def test_special_tokens_in_text_are_the_last_two_ids(vocab_size: int) -> None:
    asked = ours(vocab_size=vocab_size, special=True)
    for text in ("<start_of_text> <end_of_text>", "<START_OF_TEXT>é<End_of_Text>"):
        assert [token for token in asked.encode(text) if token >= vocab_size - 2] == [vocab_size - 2, vocab_size - 1]
        assert max(ours(vocab_size=vocab_size).encode(text)) < vocab_size - 2


def test_a_literal_special_token_becomes_its_id_only_where_asked_for() -> None:
    text = "a <END_of_text> b <start_of_text>"
    assert ours(special=True).encode(text) == [320, 49407, 321, 49406]
    assert ClipBpeConfig().special_tokens_in_text is False
    plain = ours().encode(text)
    assert max(plain) < 49406
    assert ours().decode(plain) == "a < end _ of _ text > b < start _ of _ text >"


def test_a_caption_cannot_move_the_place_where_the_feature_is_read() -> None:
    text = "a photo of <end_of_text> a dog"
    row, theirs = ours()(text)[0], peers()(text)[0]
    assert torch.equal(ours(special=True)(text)[0], theirs)
    assert theirs.argmax() == 4  # of open_clip: the dog is not read
    assert row.argmax() == 1 + len(ours().encode(text))
    assert (row == 49_407).sum() == 1


def test_a_special_token_within_a_run_of_marks_is_text_as_in_the_peer() -> None:
    assert 49407 not in ours(special=True).encode("!<end_of_text>")
    assert ours(special=True).encode("dog<end_of_text>cat") == [1929, 49407, 2368]


# -- decode ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("A photo of a Dog.", "a photo of a dog ."),
        ("  caf\u00e9\n犬 🐶 ", "café 犬 🐶"),
        ("don't 42", "don 't 4 2"),
        ("!!! wow!", "!!! wow !"),
        ("&lt;b&gt; \u201cx\u201d", '< b > " x "'),
        ("", ""),
    ],
)
def test_decode_gives_the_cleaned_text_back(text: str, decoded: str) -> None:
    row = ours()(text)[0]
    assert ours().decode(row) == decoded
    assert ours().decode(row.tolist()) == decoded
    assert ours().decode(list(row.numpy())) == decoded
    assert ours().decode(ours().encode(text)) == decoded


@settings(max_examples=150, deadline=None)
@given(st.text() | st.text("a<>_ENDofTXtend!'s é🐱猫&;\ud800\x00", max_size=60), st.sampled_from(CLEANINGS))
def test_decode_gives_any_cleaned_text_back_but_for_spaces(text: str, cleaning: Cleaning) -> None:
    tokenizer = ours(cleaning)
    cleaned = clean_and_collapse(text, cleaning).replace(
        "\u0345", ""
    )  # neither letter nor mark to CLIP, which drops it
    assert "".join(tokenizer.decode(tokenizer.encode(text)).split()) == "".join(cleaned.split())


def test_decode_stops_at_the_first_end_of_text() -> None:
    assert ours().decode([49406, 320, 1929, 49407, 320, 0, 0]) == "a dog"


def test_decode_replaces_bytes_of_a_cut_character() -> None:
    assert ours().decode(ours().encode("犬")[:1]).startswith("\ufffd")


@given(st.text(string.ascii_lowercase + string.digits + " .,!?'\"-()éüñж犬", max_size=80))
def test_encoding_what_was_decoded_gives_the_same_ids(text: str) -> None:
    ids = ours().encode(text)
    assert ours().encode(ours().decode(ids)) == ids


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([320, 49408], "ids[1]: expected an id from 0 to 49407, found 49408"),
        ([-1], "ids[0]: expected an id from 0 to 49407, found -1"),
        ([320, 1.5], "ids[1]: expected an id from 0 to 49407, found 1.5"),
        (["a"], "ids[0]: expected an id from 0 to 49407, found 'a'"),
        (torch.tensor([[320]]), "ids[0]: expected an id from 0 to 49407, found [320]"),
        (np.array([320, 5e4]), "ids[0]: expected an id from 0 to 49407, found 320.0"),
    ],
)
def test_decode_refuses_what_is_no_id(ids: Sequence[int], message: str) -> None:
    with pytest.raises(InputError) as error:
        ours().decode(ids)
    assert str(error.value) == message


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("special", [False, True])
def test_transformers_reads_the_ids_from_our_files(special: bool, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for name, content in ours(special=special).files_for("transformers").items():
        (tmp_path / name).write_bytes(content)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["a photo of a dog", "Été, 42 犬!", "don't  <b> it"]
    rows = tokenizer(texts, padding="max_length", truncation=True)
    for text, ids, mask in zip(texts, rows["input_ids"], rows["attention_mask"], strict=True):
        assert len(ids) == 77
        assert [token for token, real in zip(ids, mask, strict=True) if real] == [
            49_406,
            *ours(special=special).encode(text),
            49_407,
        ]


def test_there_are_no_files_for_another_library_or_cleaning() -> None:
    assert ours().files_for("open_clip") == {}
    for cleaning in ("whitespace", "canonicalize"):
        assert ours(cleaning).files_for("transformers") == {}


# -- one vocabulary, many users --------------------------------------------------------------------


def test_tokenizers_of_one_size_share_their_merges() -> None:
    merges = {id(ours(cleaning, special=special)._chunks.merges) for cleaning in CLEANINGS for special in (True, False)}
    assert len(merges) == 1
    assert ours(vocab_size=SMALL)._chunks.merges is not ours()._chunks.merges


@pytest.mark.parametrize("duplicate", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy])
def test_a_copy_or_pickle_tokenizes_alike_and_carries_no_vocabulary(
    duplicate: Callable[[object], ClipBpeTokenizer],
) -> None:
    tokenizer = ClipBpeTokenizer(ClipBpeConfig(vocab_size=SMALL), context_length=9)
    rows = tokenizer(["a dog <end_of_text>", "犬"])
    twin = duplicate(tokenizer)
    assert torch.equal(twin(["a dog <end_of_text>", "犬"]), rows)
    assert twin._chunks is tokenizer._chunks
    assert len(pickle.dumps(tokenizer)) < 1_000


def test_the_cache_is_bounded_and_holds_no_long_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "CACHED_WORDS", 50)
    chunks = module.Chunks(SMALL, True)
    for number in range(300):
        assert list(chunks[f"word{number}"])
        assert len(chunks) <= 50
    assert list(chunks["a" * 65]) == list(chunks["a" * 65])
    assert max(map(len, chunks)) <= 64


def test_threads_that_share_a_small_cache_get_the_ids_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = families(share=0.01)["captions"] + ["a <end_of_text> b"] * 50 + ["<START_OF_TEXT> c"] * 50
    expected = ours(special=True)(texts)
    monkeypatch.setattr(word_cache, "CACHED_WORDS", 16)
    tokenizer = copy.copy(ours(special=True))
    tokenizer._chunks = module.Chunks(49_408, True)
    with ThreadPoolExecutor(8) as pool:
        for rows in pool.map(tokenizer, [texts] * 16):
            assert torch.equal(rows, expected)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import zoo_text.bpe.config", {"torch", "numpy", "regex", "ftfy"}),
        ("import zoo_text.bpe.tokenizer", {"torch", "numpy", "regex", "ftfy"}),
        (
            "from zoo_text.bpe.tokenizer import *; from zoo_text.bpe.config import *;"
            "ClipBpeTokenizer(ClipBpeConfig(), context_length=77).encode('A dog & a cat.')",
            {"torch", "numpy", "regex", "ftfy"},
        ),
    ],
    ids=["config", "module", "an English caption"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str, absent: set[str]) -> None:
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert not absent & set(loaded)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"vocab_size": 513}, "ClipBpeConfig: vocab_size: must be at least 514, found 513"),
        ({"vocab_size": 49_409}, "ClipBpeConfig: vocab_size: must be at most 49408, found 49409"),
        ({"vocab_size": "all"}, "ClipBpeConfig: vocab_size: expected a whole number, found 'all'"),
        (
            {"cleaning": "lowers"},
            "ClipBpeConfig: cleaning: 'lowers' is not known, did you mean 'lower'? "
            "(allowed: canonicalize, lower, whitespace)",
        ),
        (
            {"special_tokens_in_text": 1},
            "ClipBpeConfig: special_tokens_in_text: expected true or false, found 1",
        ),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ClipBpeConfig.parse(keys)
    assert str(error.value) == message


def test_the_config_tells_how_many_ids_there_are() -> None:
    assert ClipBpeConfig().token_count() == ours().vocab_size == 49_408
    assert ClipBpeConfig(vocab_size=SMALL).token_count() == SMALL


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "expected a string or a sequence of strings, found NoneType"),
        (b"a dog", "expected a string or a sequence of strings, found bytes"),
        (["a dog", None], "texts[1]: expected a string, found NoneType (None)"),
        (["a dog", float("nan")], "texts[1]: expected a string, found float (nan)"),
        ([b"a dog"], "texts[0]: expected a string, found bytes (b'a dog')"),
    ],
)
def test_what_is_no_string_is_named_with_its_place(texts: Sequence[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        ours()(texts)
    assert str(error.value) == message


def test_a_row_too_short_for_one_token_is_refused() -> None:
    with pytest.raises(InputError, match="context_length must be at least 3"):
        ours()("a dog", context_length=2)
