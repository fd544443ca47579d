"""What any config may hold, whichever way it is given: a file, an override, a mapping, a reference."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import zoo
from zoo_core.documents import Document
from zoo_core.documents.interpolation import MAX_REFERENCES, interpolate
from zoo_core.errors import ConfigError, InputError

REFUSED_OVERRIDES = {
    "alias": ("description=[&a x, *a]", "description: aliases (*a) are not supported"),
    "growing aliases": (
        "description=[&a [x,x], &b [*a,*a], &c [*b,*b], &d [*c,*c], &e [*d,*d]]",
        "aliases (*a) are not supported",
    ),
    "list that holds itself": ("description=&a [*a]", "aliases (*a) are not supported"),
    "duplicate key": ("vision={width: 1, width: 2}", "vision.width: duplicate key"),
    "merge key": ("vision={<<: {width: 1}}", "merge keys (<<) are not supported"),
    "tag": ("description=!!python/name:os.system", "is not supported; write a plain value"),
    "deep": ("description=" + "[" * 20_000, "is nested deeper than 32 levels"),
    "many values": ("description=[" + "1," * 10_001 + "]", "has more than 10,000 values"),
    "large": ("description=" + "x" * 300_000, "has 300,000 characters; at most 262,144 are read"),
    "key that is a number": ("vision={1: 2}", "keys are strings; quote '1'"),
    "deep key": (".".join("a" * 100_000) + "=1", "is nested deeper than 32 levels"),
    "no text": ("description=\ud800", "is not YAML: 'utf-8' codec can't encode character"),
    "no YAML": ("vision.width=[1", "vision.width: is not YAML"),
}


@pytest.mark.parametrize("case", REFUSED_OVERRIDES)
def test_an_override_has_the_rules_and_bounds_of_a_file(case: str) -> None:
    override, message = REFUSED_OVERRIDES[case]
    start = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        zoo.config("vit-b16", [override])
    assert message in str(caught.value)
    assert str(caught.value).startswith("override '")
    assert len(str(caught.value)) < 400
    assert time.perf_counter() - start < 2


def test_a_plain_override_is_still_what_it_was() -> None:
    config = zoo.config("vit-b16", ["preprocess.mean=[0.1, 0.2, 0.3]", "description=", "vision.width=384"])
    assert (list(config.preprocess.mean), config.description, config.vision.width) == ([0.1, 0.2, 0.3], None, 384)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_chain_of_references_is_followed_and_a_long_one_refused_soon() -> None:
    def chained(count: int) -> Document:
        return Document({**{f"k{number}": f"${{k{number + 1}}}" for number in range(count)}, f"k{count}": 7})

    document = chained(20)
    assert list(interpolate(document)) == []
    assert set(document.data.values()) == {7}
    assert document.references["k5",] == "${k6}"
    start = time.perf_counter()
    assert "k0: ${k1} leads back to itself, or through too many others" in str(
        next(interpolate(chained(MAX_REFERENCES)))
    )
    (problem,) = interpolate(chained(9000))
    assert problem.message == "holds 9,000 references; at most 100 are followed"
    assert time.perf_counter() - start < 10


MALFORMED = [
    "${",
    "${}",
    "${a",
    "a ${x}",
    "${a b}",
    "${a.}",
    "${a..b}",
    "${a:b}",
    "${a[}",
    "${[}]}",
    "$${a}",
    "${a${b}}",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_reference_is_told_with_its_key(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        zoo.config({"extends": "vit-b16", "vision": {"width": text}})
    assert "vision.width: only a whole value '${key}' may refer to another" in str(caught.value)


def test_of_references_of_which_one_is_malformed_none_is_followed() -> None:
    document = Document({"a": "${b}", "b": 1, "c": "${"})
    (problem,) = interpolate(document)
    assert str(problem) == "c: only a whole value '${key}' may refer to another, found '${'"
    assert document.data["a"] == "${b}"


WRONG = {
    "nowhere": ({"a": "${b}"}, "a: ${b} leads nowhere: Interpolation key 'b' not found"),
    "no item": ({"a": "${b[2]}", "b": [1]}, "a: ${b[2]} leads nowhere: Interpolation key 'b[2]' not found"),
    "below a value": ({"a": "${b.c}", "b": 1}, "a: ${b.c} leads nowhere: ConfigTypeError raised while"),
    "above the top": ({"a": "${..b}", "b": 1}, "a: ${..b} leads nowhere: ConfigKeyError while"),
    "itself": ({"a": "${a}"}, "a: ${a} leads back to itself"),
    "circle": ({"a": "${b}", "b": "${a}"}, "a: ${b} leads back to itself"),
    "section": ({"a": "${b}", "b": {"c": 1}}, "a: ${b} names a section"),
    "tuple": ({"a": ("${b}",), "b": 1}, "a[0]: a tuple cannot hold a reference; write a list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_reference_that_names_no_value_is_told(case: str) -> None:
    data, message = WRONG[case]
    assert message in "\n".join(str(problem) for problem in interpolate(Document(data)))


KEYS = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.tuples(st.just("."), st.sampled_from(["a", "b", "c", "0", "1"])).map("".join),
    st.tuples(st.just("["), st.sampled_from(["a", "b", "0", "1"]), st.just("]")).map("".join),
)
TEXTS = st.tuples(st.sampled_from(["", ".", "..", "..."]), KEYS, st.lists(STEPS, max_size=2).map("".join))
VALUES = st.recursive(
    st.one_of(st.integers(0, 9), st.none(), TEXTS.map(lambda parts: f"${{{''.join(parts)}}}")),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_references_mean_what_they_mean_to_omegaconf(data: dict[str, Any]) -> None:
    tree = OmegaConf.create(data)
    document = Document(OmegaConf.to_container(tree))  # pyright: ignore[reportArgumentType]
    problems = list(interpolate(document))
    try:
        expected = OmegaConf.to_container(tree, resolve=True)
    except (OmegaConfBaseException, RecursionError):
        assert problems
        return
    assert problems or document.data == expected
    assert all("names a section" in str(problem) or "leads nowhere" in str(problem) for problem in problems)


def itself() -> dict[str, Any]:
    data: dict[str, Any] = {"extends": "vit-b16"}
    data["vision"] = data
    return data


def list_of_itself() -> dict[str, Any]:
    items: list[Any] = []
    items.append(items)
    return {"extends": "vit-b16", "description": items}


class Endless(Mapping[str, Any]):
    """A mapping that has a key for every number, or that fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __getitem__(self, key: str) -> int:
        if self.error is not None:
            raise self.error
        return 1

    def __iter__(self) -> Iterator[str]:
        return map(str, count())

    def __len__(self) -> int:
        return 1


class Unspeakable:
    """A value that fails when it is shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


MAPPINGS = {
    "no end": (lambda: {"vision": Endless()}, "mapping: has more than 10,000 values"),
    "items that fail": (lambda: {"vision": Endless(OSError("gone"))}, "mapping: vision: cannot be read: OSError: gone"),
    "a module": (lambda: {"model": time}, "mapping: model: expected plain values, found <module 'time'"),
    "a name that cannot be shown": (
        lambda: {"model": Unspeakable()},
        "mapping: model: expected the name of a model, found a",
    ),
    "a number without end": (
        lambda: {"extends": 10**5000},
        "mapping: extends: expected the name of an architecture or a",
    ),
    "itself": (itself, "mapping: vision: is nested deeper than 32 levels, or holds itself"),
    "a list of itself": (list_of_itself, "mapping: description: is nested deeper than 32 levels, or holds itself"),
    "many keys": (lambda: {f"k{number}": 1 for number in range(200_000)}, "mapping: has more than 10,000 values"),
    "a key that is no text": (lambda: {"vision": {1: 2}}, "mapping: vision: keys are strings, found 1"),
}


@pytest.mark.parametrize("case", MAPPINGS)
def test_a_mapping_has_the_bounds_of_a_file(case: str) -> None:
    make, message = MAPPINGS[case]
    with pytest.raises(ConfigError) as caught:
        zoo.config(make())
    assert str(caught.value).startswith(message)


OVERRIDES: dict[str, tuple[Any, str]] = {
    "a tensor": (torch.tensor(16), "found tensor(16)"),
    "a million": (["embed_dim=16"] * 1_000_000, "there are more than 10,000 overrides"),
    "a mapping that holds itself": (itself(), "write overrides=['extends=vit-b16', 'vision=a mapping']"),
    "a mapping of what cannot be shown": ({"a": Unspeakable()}, "write overrides=['a=a Unspeakable']"),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_overrides_that_are_no_list_of_strings_are_refused_soon(case: str) -> None:
    overrides, message = OVERRIDES[case]
    with pytest.raises(ConfigError) as caught:
        zoo.config("vit-b16", overrides)
    assert message in str(caught.value)


def test_a_mapping_without_end_is_refused() -> None:
    class Endless(Mapping[str, Any]):
        def __getitem__(self, key: str) -> int:
            return 1

        def __iter__(self) -> Iterator[str]:
            return (f"k{number}" for number in count())

        def __len__(self) -> int:
            return 1

    for function in (zoo.config, zoo.build):
        with pytest.raises(ConfigError, match="mapping: has more than 10,000 values"):
            function(Endless())


def test_a_mapping_that_fails_is_told() -> None:
    class Broken(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            raise RuntimeError("no keys")

        def items(self) -> Any:
            raise RuntimeError("no items")

    with pytest.raises(ConfigError, match="mapping: cannot be read: RuntimeError: no items"):
        zoo.config(Broken())
    with pytest.raises(InputError, match="found a Broken that fails: RuntimeError: no keys"):
        zoo.build(Broken())


def test_of_many_unknown_keys_a_few_are_told_and_the_others_counted() -> None:
    wrong = {f"unknown_{number}": 1 for number in range(9000)}
    start = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        zoo.config({"extends": "vit-b16", "vision": wrong, "x" * 5000: 1})
    told = str(caught.value)
    assert "vision.unknown_5: unknown key" in told
    assert "vision: there are 8,968 more problems" in told
    assert len(told) < 12_000
    assert time.perf_counter() - start < 4


def test_many_problems_of_a_file_are_counted_too() -> None:
    error = ConfigError([ConfigError("wrong").problems[0]] * 1000)
    assert str(error).endswith("\nand 960 more problems")
    assert len(error.problems) == 1000
