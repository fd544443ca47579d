"""Tables of rules that rename, transpose, reshape and join weights.

A table works on names and shapes alone, and each tensor is made when it is asked for, from the few that it needs. Its
inverse is the same table read from right to left: what was converted comes back bit for bit.

    Table([
        Rule("final_layer_norm.{p}", "ln_final.{p}"),
        Rule(("layers.{n}.q.{p}", "layers.{n}.k.{p}", "layers.{n}.v.{p}"), "resblocks.{n}.attn.in_proj_{p}"),
        Rule("text_projection.weight", "text_projection", TRANSPOSED),
    ])

In a name, `{word}` stands for anything between two of the separators `.` and `/`, and `{...}` for all of the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoo_core.checkpoints.tensor_steps import Shape, Step
from zoo_core.checkpoints.tensors import TensorInfo
from zoo_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BoundRule", "Constant", "Identity", "Rule", "Table"]

_WORD = re.compile(r"\\\{(\w+)\\\}|\\\{(\\\.\\\.\\\.)\\\}")
_REST = "rest"
INDEX = "index"
MAX_LAYERS = 1_000
"""A stack that claims to be higher is no stack of layers: names would be made without end."""


class Rule:
    """From the names `parts`, one or several, to the name `whole`, joined along the first axis; or back.

    Args:
        parts: names on the left.
        whole: the name on the right, with the same words in braces.
        steps: what happens to each part before it is joined.
        proportions: lengths of the parts along the joined axis, as a ratio; all are equally long by default.
        stacked: each part stacks that part of all layers along a first axis of its own; the word `{index}` in
            `whole` counts them.
        splits: read the rule from right to left.
    """

    def __init__(
        self,
        parts: str | Sequence[str],
        whole: str,
        *steps: Step,
        proportions: Sequence[int] = (),
        stacked: bool = False,
        splits: bool = False,
    ) -> None:
        self.parts = (parts,) if isinstance(parts, str) else tuple(parts)
        self.whole = whole
        self.steps = steps
        self.proportions = tuple(proportions) or (1,) * len(self.parts)
        self.stacked = stacked
        self.splits = splits
        self._patterns = tuple(_pattern(name) for name in ((whole,) if splits else self.parts))
        assert len(self.proportions) == len(self.parts), "one length for each part"

    def inverse(self) -> Rule:
        """Return the rule that leads back."""
        ratio, splits = self.proportions, not self.splits
        return Rule(self.parts, self.whole, *self.steps, proportions=ratio, stacked=self.stacked, splits=splits)

    def words(self, name: str) -> dict[str, str] | None:
        """Return what the words in braces stand for in a name that the rule reads; None where it reads no such name."""
        match = next(filter(None, (pattern.fullmatch(name) for pattern in self._patterns)), None)
        return match.groupdict() if match else None

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the whole of its parts."""
        import torch

        changed = [_apply(self.steps, tensor) for tensor in tensors]
        return changed[0] if len(changed) == 1 else torch.cat(changed)

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the shape of the whole; `ValueError` where the parts do not fit."""
        changed = [_shape_after(self.steps, shape) for shape in shapes]
        first = changed[0]
        if len(changed) == 1:
            return first
        units = {shape[0] / length if shape else 0.0 for shape, length in zip(changed, self.proportions, strict=True)}
        if len(units) > 1 or any(not shape or shape[1:] != first[1:] for shape in changed):
            raise ValueError(f"shapes {', '.join(str(list(shape)) for shape in shapes)} cannot be joined")
        return (sum(shape[0] for shape in changed), *first[1:])

    def split(self, whole: Tensor) -> list[Tensor]:
        """Return the parts of a whole, each a view of it where its steps allow one."""
        import torch

        pieces = [whole] if len(self.parts) == 1 else torch.split(whole, self._lengths(tuple(whole.shape)))
        return [_apply(self._inverse_steps(), piece) for piece in pieces]

    def split_shapes(self, shape: Shape) -> list[Shape]:
        """Return the shapes of the parts; `ValueError` where the whole cannot be divided."""
        pieces = [shape] if len(self.parts) == 1 else [(length, *shape[1:]) for length in self._lengths(shape)]
        return [_shape_after(self._inverse_steps(), piece) for piece in pieces]

    def _lengths(self, shape: Shape) -> list[int]:
        """Return how long each part is along the joined axis."""
        rows = shape[0] if shape else 0
        unit, remainder = divmod(rows, sum(self.proportions))
        if remainder or not shape:
            raise ValueError(f"shape {list(shape)} cannot be divided in {len(self.parts)} parts")
        return [length * unit for length in self.proportions]

    def _inverse_steps(self) -> list[Step]:
        return [step.inverse() for step in reversed(self.steps)]


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

    def infer(self, infos: Sequence[TensorInfo]) -> Sequence[TensorInfo]:
        """Return dtypes and shapes of the targets for those of the sources.

        Raises:
            CheckpointError: tensors of such shapes cannot be what the names say.
        """
        shapes = [tuple(info.shape) for info in infos]
        try:
            if len({info.dtype for info in infos}) > 1:
                raise ValueError(f"dtypes {', '.join(info.dtype for info in infos)} differ")
            if not self.rule.stacked:
                targets = self.rule.split_shapes(shapes[0]) if self.rule.splits else [self.rule.joined_shape(shapes)]
            elif self.rule.splits:  # a whole for each layer -> one stack for each part
                if len(set(shapes)) > 1:
                    raise ValueError("layers of one stack have different shapes")
                targets = [(len(shapes), *shape) for shape in self.rule.split_shapes(shapes[0])]
            else:  # a stack for each part -> a whole for each layer
                if {shape[:1] for shape in shapes} != {(len(self.targets),)}:
                    raise ValueError("they are stacks of different heights")
                targets = [self.rule.joined_shape([shape[1:] for shape in shapes])] * len(self.targets)
        except ValueError as error:
            raise CheckpointError(f"{', '.join(self.sources)} cannot become {self.targets[0]}: {error}") from None
        return [replace(infos[0], shape=shape) for shape in targets]

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


@dataclass(frozen=True)
class Constant:
    """A conversion that makes one value of nothing, where a checkpoint format has none and none is read."""

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

    def infer(self, infos: Sequence[TensorInfo]) -> Sequence[TensorInfo]:
        """Return a scalar."""
        return [TensorInfo("float32", ())]

    def apply(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the value."""
        import torch

        return [torch.tensor(self.value)]

    def inverse(self) -> Constant:
        """Refuse: nobody knows that a value is still this one."""
        raise CheckpointError(f"{self.target} has no place in the other format")


@dataclass(frozen=True)
class Identity:
    """A conversion that makes the matrix `[width, width]` which changes nothing, where a checkpoint
    format has no projection."""

    target: str
    width: int
    dtype: str
    sources: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """The one matrix."""
        return (self.target,)

    def infer(self, infos: Sequence[TensorInfo]) -> Sequence[TensorInfo]:
        """Return a square."""
        return [TensorInfo(self.dtype, (self.width, self.width))]

    def apply(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the matrix."""
        import torch

        return [torch.eye(self.width).to(getattr(torch, self.dtype))]

    def inverse(self) -> Identity:
        """Refuse: nobody knows that a matrix is still this one."""
        raise CheckpointError(f"{self.target} has no place in the other format")


class Table:
    """Rules in an order: for each name the first that matches counts.

    Args:
        rules: from one checkpoint format to the other.
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
        # one match for all names that belong together: parts of a whole, or layers of a stack
        matches: dict[tuple[Rule, frozenset[tuple[str, str]]], _Match] = {}
        for name in entries:
            for rule in self.rules:
                words = rule.words(name)
                if words is not None:
                    words.pop(INDEX, None)
                    matches.setdefault((rule, frozenset(words.items())), _Match(rule, words)).names += 1
                    break
        conversions = [match.conversion(entries) for match in matches.values()]
        plan = [conversion for conversion in conversions if conversion is not None]
        makers: dict[str, BoundRule] = {}
        for conversion in plan:
            for target in conversion.targets:
                other = makers.setdefault(target, conversion)
                if other is not conversion:
                    raise CheckpointError(f"{conversion.sources[0]} and {other.sources[0]} both become {target}")
        return plan


@dataclass
class _Match:
    """A rule, what its words in braces stand for, and how many of the given names it reads."""

    rule: Rule
    words: Mapping[str, str]
    names: int = 0

    def conversion(self, entries: Mapping[str, TensorInfo]) -> BoundRule | None:
        """Return the rule at the names that the words make; None where some of its sources are not there."""
        rule = self.rule
        parts = tuple(_filled(part, self.words) for part in rule.parts)
        if rule.stacked:
            first = entries[parts[0]].shape if parts[0] in entries else ()
            layers = self.names if rule.splits else min(first[0], MAX_LAYERS) if first else 0
            wholes = tuple(_filled(rule.whole, {**self.words, INDEX: str(layer)}) for layer in range(layers))
        else:
            wholes = (_filled(rule.whole, self.words),)
        sources, targets = (wholes, parts) if rule.splits else (parts, wholes)
        return BoundRule(rule, sources, targets) if targets and all(name in entries for name in sources) else None


def _shape_after(steps: Iterable[Step], shape: Shape) -> Shape:
    for step in steps:
        shape = step.shape(shape)
    return shape


def _apply(steps: Iterable[Step], tensor: Tensor) -> Tensor:
    for step in steps:
        tensor = step.apply(tensor)
    return tensor


def _pattern(name: str) -> re.Pattern[str]:
    def group(match: re.Match[str]) -> str:
        if match[1] is None:
            return f"(?P<{_REST}>.*)"
        return f"(?P<{match[1]}>{'0|[1-9][0-9]{0,5}' if match[1] == INDEX else '[^./]+'})"

    return re.compile(_WORD.sub(group, re.escape(name)), re.DOTALL)


def _filled(name: str, words: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+|\.\.\.)\}", lambda match: words[_REST if match[1] == "..." else match[1]], name)
