"""Invertible steps on one tensor: permute, reshape, merge axes.

No value is lost and none is computed, so what goes through a step and back is the same bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SCALAR", "TRANSPOSED", "MergeAxes", "Permute", "Reshape", "Shape", "Step"]

Shape = tuple[int, ...]


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
            sizes = ", ".join("any" if size is None else str(size) for size in self.before)
            raise ValueError(f"expected shape [{sizes}], found {list(shape)}")
        free = iter([have for want, have in zip(self.before, shape, strict=True) if want is None])
        return tuple(next(free) if want is None else want for want in self.after)

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
        axes = shape[self.axis : len(shape) - len(after)]
        if self.fold and len(axes) == 2 and axes[1] == self.inner:
            return (*before, axes[0] * self.inner, *after)
        if not self.fold and len(axes) == 1 and axes[0] % self.inner == 0:
            return (*before, axes[0] // self.inner, self.inner, *after)
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
