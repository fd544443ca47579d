"""Tables of rules: what they make of names and shapes, and that everything comes back bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zoo_core.checkpoints import CheckpointFormat, ConvertedSource, TensorInfo, TensorSource
from zoo_core.checkpoints.rules import Rule, Table
from zoo_core.checkpoints.tensor_steps import SCALAR, TRANSPOSED, MergeAxes, Permute, Reshape, Step
from zoo_core.errors import CheckpointError, ZooError


def infos(tensors: Mapping[str, Tensor]) -> dict[str, TensorInfo]:
    return {key: TensorInfo(str(one.dtype).removeprefix("torch."), tuple(one.shape)) for key, one in tensors.items()}


def converted(table: Table, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert, and hold what is made to what was said of it before."""
    made: dict[str, Tensor] = {}
    for one in table.plan(infos(tensors)):
        told = one.infer([infos(tensors)[key] for key in one.sources])
        given_ = one.apply([tensors[key] for key in one.sources])
        for key, info, tensor in zip(one.targets, told, given_, strict=True):
            assert (info.dtype, info.shape) == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            made[key] = tensor
    return made


def equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[key].dtype == one.dtype and torch.equal(found[key], one) for key, one in expected.items()
    )


def numbered(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


sizes = st.integers(1, 4)
names = st.lists(st.text("abc.012", min_size=1, max_size=4), min_size=1, max_size=5, unique=True)


@st.composite
def stepped(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Step, ...]]:
    """Draw a shape, and steps that it can take."""
    shape = tuple(draw(st.lists(sizes, min_size=0, max_size=4)))
    steps: list[Step] = []
    current = shape
    for kind in draw(st.lists(st.sampled_from(["axes", "fold", "unfold", "one"]), max_size=4)):
        if kind == "axes":
            steps.append(Permute(tuple(draw(st.permutations(range(len(current)))))))
        elif kind == "fold" and len(current) >= 2:
            axis = draw(st.integers(0, len(current) - 2))
            steps.append(MergeAxes(axis, current[axis + 1]))
        elif kind == "unfold" and current:
            axis = draw(st.integers(0, len(current) - 1))
            inner = draw(st.sampled_from([n for n in range(1, current[axis] + 1) if current[axis] % n == 0]))
            steps.append(MergeAxes(axis, inner, fold=False))
        elif kind == "one":
            any_ = (None,) * len(current)
            steps.append(Reshape(any_, (1, *any_)))
        else:
            continue
        current = steps[-1].shape(current)
    return shape, tuple(steps)


@given(stepped(), st.integers(1, 4), st.data())
def test_what_was_joined_comes_back_bit_for_bit(drawn: tuple, parts: int, data: st.DataObject) -> None:
    shape, steps = drawn
    after = shape
    for step in steps:
        after = step.shape(after)
    if not after:
        parts = 1
    left = [f"in.{{n}}.{number}" for number in range(parts)]
    table = Table([Rule(left, "out.{n}", *steps)])
    layers = data.draw(st.integers(1, 3))
    tensors = {f"in.{n}.{number}": torch.randn(shape) for n in range(layers) for number in range(parts)}
    there = converted(table, tensors)
    assert sorted(there) == [f"out.{n}" for n in range(layers)]
    assert equal(converted(table.inverse(), there), tensors)
    for one in table.plan(infos(tensors)):
        back = one.inverse().apply(one.apply([tensors[key] for key in one.sources]))
        assert equal(dict(zip(one.inverse().targets, back, strict=True)), {key: tensors[key] for key in one.sources})


@given(st.integers(1, 5), st.integers(1, 3), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_a_stack_of_layers_becomes_its_layers_and_a_stack_again(layers: int, width: int, shares: list[int]) -> None:
    parts = [f"stack/{number}" for number in range(len(shares))]
    table = Table([Rule(parts, "layer.{index}.weight", TRANSPOSED, proportions=shares, stacked=True)])
    tensors = {name: torch.randn(layers, width, 2 * share) for name, share in zip(parts, shares, strict=True)}
    there = converted(table, tensors)
    assert {key: tuple(one.shape) for key, one in there.items()} == {
        f"layer.{index}.weight": (2 * sum(shares), width) for index in range(layers)
    }
    expected = torch.cat([tensors[name][layers - 1].T for name in parts])
    assert torch.equal(there[f"layer.{layers - 1}.weight"], expected)
    assert equal(converted(table.inverse(), there), tensors)


@given(names, st.lists(st.sampled_from(["a.{x}", "{x}.b", "a", "{x}/c", "c{...}"]), unique=True))
def test_every_name_is_converted_ignored_or_left_over_and_never_twice(keys: list[str], patterns: list[str]) -> None:
    rules = [Rule(pattern, f"{number}:{pattern}") for number, pattern in enumerate(patterns)]
    table = Table(rules, ignored=["{x}.1"])
    tensors = {key: numbered(2) for key in keys}
    sources = [key for one in table.plan(infos(tensors)) for key in one.sources]
    assert len(sources) == len(set(sources))
    assert set(sources) <= set(keys)
    assert table.ignores(keys) == {key for key in keys if key.count(".") == 1 and key.endswith(".1") and key != ".1"}


def test_a_view_is_taken_where_no_values_have_to_move() -> None:
    whole = numbered(6, 2)
    table = Table([Rule(("q", "k", "v"), "qkv")]).inverse()
    assert {one.untyped_storage().data_ptr() for one in converted(table, {"qkv": whole}).values()} == {
        whole.untyped_storage().data_ptr()
    }


def test_parts_of_unequal_length_are_told_apart_by_their_shares() -> None:
    table = Table([Rule(("q", "kv"), "all", proportions=(1, 2))])
    made = converted(table.inverse(), {"all": numbered(6, 1)})
    assert made["q"].flatten().tolist() == [0, 1]
    assert made["kv"].flatten().tolist() == [2, 3, 4, 5]


def test_the_first_rule_that_matches_counts() -> None:
    table = Table([Rule("a.{x}", "first.{x}"), Rule("{...}", "second.{...}")])
    assert sorted(converted(table, {"a.b": numbered(1), "a.b.c": numbered(1)})) == ["first.b", "second.a.b.c"]


def test_parts_of_which_some_are_missing_are_left_over() -> None:
    table = Table([Rule(("q.{n}", "k.{n}"), "qk.{n}")])
    found = infos({"q.0": numbered(2), "k.0": numbered(2), "q.1": numbered(2)})
    assert [one.sources for one in table.plan(found)] == [("q.0", "k.0")]


@pytest.mark.parametrize(
    ("rule", "tensors", "message"),
    [
        (Rule("a", "b", TRANSPOSED), {"a": numbered(2)}, "expected 2 axes, found shape [2]"),
        (Rule("a", "b", SCALAR), {"a": numbered(2)}, "expected shape [1], found [2]"),
        (Rule("a", "b", MergeAxes(0, 3)), {"a": numbered(2, 2)}, "axis 0 of shape [2, 2] does not fold by 3"),
        (Rule(("a", "b"), "c"), {"a": numbered(2, 2), "b": numbered(2, 3)}, "shapes [2, 2], [2, 3] cannot be joined"),
        (Rule(("a", "b"), "c"), {"a": numbered(2), "b": numbered(3)}, "shapes [2], [3] cannot be joined"),
        (Rule(("a", "b"), "c", splits=True), {"c": numbered(3)}, "shape [3] cannot be divided in 2 parts"),
        (Rule(("a", "b"), "c", splits=True), {"c": numbered()}, "shape [] cannot be divided in 2 parts"),
        (Rule(("a", "b"), "c"), {"a": numbered(2), "b": numbered(2).float()}, "dtypes int64, float32 differ"),
        (
            Rule(("a", "b"), "c.{index}", stacked=True),
            {"a": numbered(2, 1), "b": numbered(3, 1)},
            "they are stacks of different heights",
        ),
    ],
)
def test_shapes_that_cannot_be_right_are_refused_before_anything_is_read(
    rule: Rule, tensors: dict[str, Tensor], message: str
) -> None:
    (one,) = Table([rule]).plan(infos(tensors))
    with pytest.raises(CheckpointError) as error:
        one.infer([infos(tensors)[key] for key in one.sources])
    assert message in str(error.value)


def test_two_names_that_would_become_one_are_refused() -> None:
    table = Table([Rule("a", "c"), Rule("b", "c")])
    with pytest.raises(CheckpointError, match="b and a both become c"):
        table.plan(infos({"a": numbered(1), "b": numbered(1)}))


@given(
    st.dictionaries(
        st.text(max_size=12) | st.from_regex(r"layer\.[0-9]{1,9}\.(q|k)", fullmatch=True),
        st.lists(st.integers(0, 3), max_size=4).map(tuple),
        max_size=6,
    )
)
def test_nothing_but_our_errors_comes_of_any_names_and_shapes(shapes: dict[str, tuple[int, ...]]) -> None:
    table = Table(
        [
            Rule(("layer.{n}.q", "layer.{n}.k"), "l.{n}", TRANSPOSED),
            Rule("layer.{n}.x", "stack", stacked=False),
            Rule("{x}", "s.{index}.{x}", MergeAxes(0, 2), stacked=True),
        ]
    )
    found = {key: TensorInfo("float32", shape) for key, shape in shapes.items()}
    for each in (table, table.inverse()):
        try:
            for one in each.plan(found):
                one.infer([found[key] for key in one.sources])
        except ZooError:
            pass


class Renaming(CheckpointFormat):
    name = "renaming"

    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        return True

    def plan(self, entries: Mapping[str, TensorInfo]) -> Any:
        return Table([Rule("a", "b")]).plan(entries)


class Damaged(TensorSource):
    path, container, metadata = Path("damaged.pt"), "memory", {}

    def __init__(self, damaged: str) -> None:
        self.entries = {"a": TensorInfo("float32", (1,)), "c": TensorInfo("float32", (1,))}
        self.damaged = damaged

    def read(self, key: str) -> Tensor:
        return torch.tensor([float("nan") if key == self.damaged else 1.0])


@pytest.mark.parametrize("damaged", ["a", "c"])
def test_entries_are_checked_whether_they_are_converted_or_keep_their_names(damaged: str) -> None:
    source = ConvertedSource(Damaged(damaged), Renaming())
    assert source.entries.keys() == {"b", "c"}
    with pytest.raises(CheckpointError, match=f"1 values of '{damaged}'"):
        source.check(iter(source.entries))
