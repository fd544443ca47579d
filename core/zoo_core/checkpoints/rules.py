"""Tables of rules that take weights from one layout to another: rename, transpose, reshape, join; and back again.

What you would not guess: a table runs on names and shapes alone, and each tensor is made when it is asked for, from the
few that it needs. Its inverse is the same table read from right to left: what was converted comes back bit for bit.

    Table([
        Rule("final_layer_norm.{p}", "ln_final.{p}"),
        Rule(("layers.{n}.q.{p}", "layers.{n}.k.{p}", "layers.{n}.v.{p}"), "resblocks.{n}.attn.in_proj_{p}"),
        Rule("text_projection.weight", "text_projection", TRANSPOSED),
    ])

In a name, `{word}` stands for anything between two of the separators `.` and `/`, and `{...}` for all of the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoo_core.checkpoints import TensorInfo
from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "SCALAR",
    "TRANSPOSED",
    "BoundRule",
    "Constant",
    "Identity",
    "MergeAxes",
    "Permute",
    "Reshape",
    "Rule",
    "Shape",
    "Step",
    "Table",
]

Shape = tuple[int, ...]

_WORD = re.compile(r"\\\{(\w+)\\\}|\\\{(\\\.\\\.\\\.)\\\}")
_REST = "rest"
INDEX = "index"
MAX_LAYERS = 1_000
"""A stack that claims to be higher is no stack of layers: names would be made without end."""


class Step:
    """A change of one tensor that can be undone: no value is lost, none is computed."""

    def shape(self, shape: Shape) -> Shape:
        """Return the shape that a tensor of `shape` gets; `ValueError` where it cannot be taken."""
        raise NotImplementedError

    def apply(self, tensor: Tensor) -> Tensor:
        """Return the changed tensor, a view where one is possible."""
        raise NotImplementedError

    def inverse(self) -> Step:
        """Return the step that undoes this one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Permute(Step):
    """Puts the axes of a tensor in another order, as `numpy.transpose` does."""

    order: tuple[int, ...]

    def shape(self, shape: Shape) -> Shape:
        """Return the shape in the new order."""
        if len(shape) != len(self.order):
            raise ValueError(f"expected {len(self.order)} axes, found shape {list(shape)}")
        return tuple(shape[axis] for axis in self.order)

    def apply(self, tensor: Tensor) -> Tensor:
        """Return the view."""
        return tensor.permute(self.order)

    def inverse(self) -> Step:
        """Return the order that leads back."""
        return Permute(tuple(self.order.index(axis) for axis in range(len(self.order))))


@dataclass(frozen=True)
class Reshape(Step):
    """Drops axes of one element, or adds them: from one pattern of shapes to another; `None` is any size.

    `Reshape((1, None, None), (None, None))` takes `[1, L, C]` to `[L, C]`.
    """

    before: tuple[int | None, ...]
    after: tuple[int | None, ...]

    def shape(self, shape: Shape) -> Shape:
        """Return the shape after."""
        if len(shape) != len(self.before) or any(
            want not in (None, have) for want, have in zip(self.before, shape, strict=True)
        ):
            raise ValueError(f"expected shape {_shown(self.before)}, found {list(shape)}")
        sizes = iter([have for want, have in zip(self.before, shape, strict=True) if want is None])
        return tuple(next(sizes) if want is None else want for want in self.after)

    def apply(self, tensor: Tensor) -> Tensor:
        """Return the view."""
        return tensor.reshape(self.shape(tuple(tensor.shape)))

    def inverse(self) -> Step:
        """Return the step from `after` to `before`."""
        return Reshape(self.after, self.before)


@dataclass(frozen=True)
class MergeAxes(Step):
    """Makes one axis of two neighbours, `[heads, width]`, whose second is `inner` long; or two of one again."""

    axis: int
    inner: int
    fold: bool = True

    def shape(self, shape: Shape) -> Shape:
        """Return the shape with one axis less, or one more."""
        before, after = shape[: self.axis], shape[self.axis + (2 if self.fold else 1) :]
        found = shape[self.axis : len(shape) - len(after)]
        if self.fold and len(found) == 2 and found[1] == self.inner:
            return (*before, found[0] * self.inner, *after)
        if not self.fold and len(found) == 1 and found[0] % self.inner == 0:
            return (*before, found[0] // self.inner, self.inner, *after)
        raise ValueError(f"axis {self.axis} of shape {list(shape)} does not fold by {self.inner}")

    def apply(self, tensor: Tensor) -> Tensor:
        """Return the view."""
        return tensor.reshape(self.shape(tuple(tensor.shape)))

    def inverse(self) -> Step:
        """Return the same step backwards."""
        return replace(self, fold=not self.fold)


TRANSPOSED = Permute((1, 0))
"""A matrix `[in, out]` as `[out, in]`."""
SCALAR = Reshape((1,), ())
"""A shape of `[1]` as `[]`."""


class Rule:
    """From the names `parts`, one or several, to the name `whole`, joined along the first axis; or back.

    Args:
        parts: names on the left.
        whole: the name on the right, with the same words in braces.
        steps: what happens to each part before it is joined.
        shares: how long the parts are along the joined axis, in proportion; equally long where there are none.
        stacked: each part holds the parts of several wholes, one at each number of a first axis of its own; the
            word `{index}` in `whole` counts them.
        splits: read the rule from right to left.
    """

    def __init__(
        self,
        parts: str | Sequence[str],
        whole: str,
        *steps: Step,
        shares: Sequence[int] = (),
        stacked: bool = False,
        splits: bool = False,
    ) -> None:
        self.parts = (parts,) if isinstance(parts, str) else tuple(parts)
        self.whole = whole
        self.steps = steps
        self.shares = tuple(shares) or (1,) * len(self.parts)
        self.stacked = stacked
        self.splits = splits
        self.patterns = tuple(_pattern(name) for name in ((whole,) if splits else self.parts))
        assert len(self.shares) == len(self.parts), "one share for each part"

    def inverse(self) -> Rule:
        """Return the rule that leads back."""
        other = not self.splits
        return Rule(self.parts, self.whole, *self.steps, shares=self.shares, stacked=self.stacked, splits=other)

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the whole of its parts."""
        import torch

        changed = [_applied(self.steps, tensor) for tensor in tensors]
        return changed[0] if len(changed) == 1 else torch.cat(changed)

    def joined(self, shapes: Sequence[Shape]) -> Shape:
        """Return the shape of the whole; `ValueError` where the parts do not fit."""
        changed = [_shape_after(self.steps, shape) for shape in shapes]
        first = changed[0]
        if len(changed) == 1:
            return first
        units = {shape[0] / share if shape else 0.0 for shape, share in zip(changed, self.shares, strict=True)}
        if len(units) > 1 or any(not shape or shape[1:] != first[1:] for shape in changed):
            raise ValueError(f"shapes {', '.join(str(list(shape)) for shape in shapes)} cannot be joined")
        return (sum(shape[0] for shape in changed), *first[1:])

    def split(self, whole: Tensor) -> list[Tensor]:
        """Return the parts of a whole, each a view of it where its steps allow one."""
        import torch

        pieces = [whole] if len(self.parts) == 1 else torch.split(whole, self._lengths(tuple(whole.shape)))
        return [_applied(self._back(), piece) for piece in pieces]

    def divided(self, shape: Shape) -> list[Shape]:
        """Return the shapes of the parts; `ValueError` where the whole cannot be divided."""
        pieces = [shape] if len(self.parts) == 1 else [(length, *shape[1:]) for length in self._lengths(shape)]
        return [_shape_after(self._back(), piece) for piece in pieces]

    def _lengths(self, shape: Shape) -> list[int]:
        rows = shape[0] if shape else 0
        unit, rest = divmod(rows, sum(self.shares))
        if rest or not shape:
            raise ValueError(f"shape {list(shape)} cannot be divided in {len(self.parts)} parts")
        return [share * unit for share in self.shares]

    def _back(self) -> Iterator[Step]:
        return (step.inverse() for step in reversed(self.steps))


@dataclass(frozen=True)
class BoundRule:
    """A rule at some names: a conversion (see `zoo_core.checkpoints`) of their tensors.

    Attributes:
        sources: names of the tensors that `apply` takes.
        targets: names of the tensors that it gives.
    """

    rule: Rule
    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def infer(self, found: Sequence[TensorInfo]) -> Sequence[TensorInfo]:
        """Return dtypes and shapes of the targets for those of the sources.

        Raises:
            CheckpointError: tensors of such shapes cannot be what the names say.
        """
        shapes = [tuple(info.shape) for info in found]
        try:
            if len({info.dtype for info in found}) > 1:
                raise ValueError(f"dtypes {', '.join(info.dtype for info in found)} differ")
            made = self._stacked_shapes(shapes) if self.rule.stacked else self._shapes(shapes)
        except ValueError as error:
            raise CheckpointError(f"{', '.join(self.sources)} cannot become {self.targets[0]}: {error}") from None
        return [replace(found[0], shape=shape) for shape in made]

    def apply(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the targets, as views of the sources where that is possible."""
        if self.rule.stacked and self.rule.splits:
            import torch

            split = [self.rule.split(tensor) for tensor in tensors]
            return [torch.stack(list(parts)) for parts in zip(*split, strict=True)]
        if self.rule.stacked:
            return [self.rule.join(list(parts)) for parts in zip(*tensors, strict=True)]
        return self.rule.split(tensors[0]) if self.rule.splits else [self.rule.join(tensors)]

    def inverse(self) -> BoundRule:
        """Return the conversion of the targets that gives the sources."""
        return BoundRule(self.rule.inverse(), self.targets, self.sources)

    def _shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return self.rule.divided(shapes[0]) if self.rule.splits else [self.rule.joined(shapes)]

    def _stacked_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        if self.rule.splits:
            if len(set(shapes)) > 1:
                raise ValueError("layers of one stack have different shapes")
            return [(len(shapes), *shape) for shape in self.rule.divided(shapes[0])]
        if {shape[:1] for shape in shapes} != {(len(self.targets),)}:
            raise ValueError("they are stacks of different heights")
        return [self.rule.joined([shape[1:] for shape in shapes])] * len(self.targets)


@dataclass(frozen=True)
class Constant:
    """A conversion that makes one value of nothing, where a layout has none and none is read."""

    target: str
    value: float

    @property
    def sources(self) -> tuple[str, ...]:
        """Nothing is read."""
        return ()

    @property
    def targets(self) -> tuple[str, ...]:
        """The one value."""
        return (self.target,)

    def infer(self, found: Sequence[TensorInfo]) -> Sequence[TensorInfo]:
        """Return a scalar."""
        return [TensorInfo("float32", ())]

    def apply(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the value."""
        import torch

        return [torch.tensor(self.value)]

    def inverse(self) -> Constant:
        """Refuse: nobody knows that a value is still this one."""
        raise CheckpointError(f"{self.target} has no place in the other layout")


@dataclass(frozen=True)
class Identity:
    """A conversion that makes the matrix `[width, width]` which changes nothing, where a layout has no projection."""

    target: str
    width: int
    dtype: str
    sources: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """The one matrix."""
        return (self.target,)

    def infer(self, found: Sequence[TensorInfo]) -> Sequence[TensorInfo]:
        """Return a square."""
        return [TensorInfo(self.dtype, (self.width, self.width))]

    def apply(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the matrix."""
        import torch

        return [torch.eye(self.width).to(getattr(torch, self.dtype))]

    def inverse(self) -> Identity:
        """Refuse: nobody knows that a matrix is still this one."""
        raise CheckpointError(f"{self.target} has no place in the other layout")


class Table:
    """Rules in an order: for each name the first that matches counts.

    Args:
        rules: from one layout to the other.
        ignored: names without a counterpart that nothing needs, such as counted positions.
    """

    def __init__(self, rules: Iterable[Rule], ignored: Iterable[str] = ()) -> None:
        self.rules = tuple(rules)
        self._ignored = tuple(_pattern(name) for name in ignored)

    def inverse(self) -> Table:
        """Return the table that leads back. What this one ignores it does not make."""
        return Table([rule.inverse() for rule in self.rules])

    def ignores(self, keys: Iterable[str]) -> set[str]:
        """Return the names that are left out on purpose."""
        return {key for key in keys if any(pattern.fullmatch(key) for pattern in self._ignored)}

    def plan(self, entries: Mapping[str, TensorInfo]) -> list[BoundRule]:
        """Return the conversions whose sources are all there; what is in none of them has no place in this table.

        Raises:
            CheckpointError: two conversions make one name.
        """
        found: dict[tuple[object, ...], tuple[Rule, dict[str, str], list[str]]] = {}
        for key in entries:
            match = next(((rule, words) for rule in self.rules if (words := _words(rule, key)) is not None), None)
            if match:
                rule, words = match
                index = words.pop(INDEX, "")
                numbers = found.setdefault((id(rule), *sorted(words.items())), (rule, words, []))[2]
                numbers.append(index)
        made: dict[str, BoundRule] = {}
        plan: list[BoundRule] = []
        for rule, words, numbers in found.values():
            bound = _bound(rule, words, numbers, entries)
            if bound is None:
                continue
            for target in bound.targets:
                other = made.setdefault(target, bound)
                if other is not bound:
                    raise CheckpointError(f"{bound.sources[0]} and {other.sources[0]} both become {target}")
            plan.append(bound)
        return plan


def _bound(
    rule: Rule, words: Mapping[str, str], numbers: list[str], entries: Mapping[str, TensorInfo]
) -> BoundRule | None:
    """Return a rule at the names that the words make; None where some of them are not there."""
    parts = tuple(_filled(part, words) for part in rule.parts)
    if rule.stacked:
        count = len(numbers) if rule.splits else _height(parts, entries)
        wholes = tuple(_filled(rule.whole, {**words, INDEX: str(number)}) for number in range(count))
    else:
        wholes = (_filled(rule.whole, words),)
    sources, targets = (wholes, parts) if rule.splits else (parts, wholes)
    return BoundRule(rule, sources, targets) if targets and all(name in entries for name in sources) else None


def _height(parts: tuple[str, ...], entries: Mapping[str, TensorInfo]) -> int:
    """Return how many layers the first of some stacks has; 0 where it is no stack."""
    shape = entries[parts[0]].shape if parts[0] in entries else ()
    return min(shape[0], MAX_LAYERS) if shape else 0


def _shape_after(steps: Iterable[Step], shape: Shape) -> Shape:
    for step in steps:
        shape = step.shape(shape)
    return shape


def _applied(steps: Iterable[Step], tensor: Tensor) -> Tensor:
    for step in steps:
        tensor = step.apply(tensor)
    return tensor


def _pattern(name: str) -> re.Pattern[str]:
    def group(match: re.Match[str]) -> str:
        if match[1] is None:
            return f"(?P<{_REST}>.*)"
        return f"(?P<{match[1]}>{'0|[1-9][0-9]{0,5}' if match[1] == INDEX else '[^./]+'})"

    return re.compile(_WORD.sub(group, re.escape(name)), re.DOTALL)


def _words(rule: Rule, key: str) -> dict[str, str] | None:
    """Return what the words of a rule stand for in a name; None where it is none of the rule's."""
    match = next(filter(None, (pattern.fullmatch(key) for pattern in rule.patterns)), None)
    return match.groupdict() if match else None


def _filled(name: str, words: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+|\.\.\.)\}", lambda match: words[_REST if match[1] == "..." else match[1]], name)


def _shown(pattern: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in pattern) + "]"
