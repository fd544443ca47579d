"""Tensors in the tree of a pickle that torch wrote.

Each tensor is a view of a storage: its first value, its shape and its strides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from zoo.checkpoints.containers.pickles import Call, Name, Stored
from zoo_core.checkpoints import ITEM_SIZES, TensorInfo

__all__ = ["StorageView", "module_tensors", "storage_item_sizes", "with_tensors"]

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_UNTYPED = ("UntypedStorage", "_UntypedStorage")
_TAGGED = Name("torch.jit._pickle", "restore_type_tag")
"""What TorchScript wraps around containers to keep their types."""
_NESTED = 64
"""How deep trees are followed."""


@dataclass(frozen=True)
class StorageView:
    """A tensor of the tree: where its values lie in a storage, counted in values.

    Attributes:
        storage: the storage's key.
        info: dtype and shape.
        offset: the first value.
        stride: distance between neighbours along each dimension.
    """

    storage: str
    info: TensorInfo
    offset: int
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        """Number of values that the storage must have."""
        if not self.info.count:
            return 0
        return self.offset + 1 + sum((size - 1) * step for size, step in zip(self.info.shape, self.stride, strict=True))

    @property
    def is_contiguous(self) -> bool:
        """Whether its values lie one behind the other, row by row, as none do too."""
        if not self.info.count:
            return True
        expected = 1
        for size, step in zip(reversed(self.info.shape), reversed(self.stride), strict=True):
            if size != 1 and step != expected:
                return False
            expected *= size
        return True


def with_tensors(tree: Any) -> Any:
    """Return a tree with a `StorageView` for each call that rebuilds a tensor; what is nested too deep stays."""
    return _Rebuilding().rebuilt(tree, _NESTED)


class _Rebuilding:
    """Visits each object once: pickles share objects, and may hold themselves."""

    def __init__(self) -> None:
        # by id: the object, which is held so that no other gets its id, and what becomes of it
        self._seen: dict[int, tuple[Any, Any]] = {}

    def rebuilt(self, value: Any, depth: int) -> Any:
        if not isinstance(value, dict | list | tuple | Call) or not depth:
            return cast("Any", value)
        node = cast("Any", value)
        if id(node) not in self._seen:
            self._seen[id(node)] = (node, node)  # an object that holds itself ends here
            self._seen[id(node)] = (node, self._rebuilt(node, depth - 1))
        return self._seen[id(node)][1]

    def _rebuilt(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: self.rebuilt(inner, depth) for key, inner in cast("dict[Any, Any]", value).items()}
        if isinstance(value, list | tuple):
            return [self.rebuilt(inner, depth) for inner in cast("list[Any]", value)]
        if isinstance(value.callee, Name):
            if value.callee == _TAGGED:
                return self.rebuilt(value.arguments[0], depth)
            if value.callee.name.startswith("_rebuild"):
                return _tensor(value)
        value.state = self.rebuilt(value.state, depth)
        return value


def _tensor(call: Call) -> Any:
    """Return the `StorageView` of a call that rebuilds a tensor; the call itself where it is none that we know."""
    try:
        if call.callee.name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return _tensor(call.arguments[0])
        if call.callee.name == "_rebuild_from_type_v2":  # a tensor with attributes
            return _tensor(Call(call.arguments[0], call.arguments[2]))
        storage, offset, shape, stride, *rest = call.arguments
        named, key = storage.key[1].name, storage.key[2]
        if call.callee.name == "_rebuild_tensor_v3":
            dtype = rest[2].name
        elif call.callee.name in ("_rebuild_tensor", "_rebuild_tensor_v2") and named not in _UNTYPED:
            dtype = _STORAGES[named]
        else:
            return call
        view = StorageView(str(key), TensorInfo(dtype, tuple(shape)), offset, tuple(stride))
        numbers = (view.offset, *view.info.shape, *view.stride)
        if (
            dtype not in ITEM_SIZES
            or len(view.info.shape) != len(view.stride)
            or any(type(n) is not int for n in numbers)
        ):
            return call
        return view
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return call


def module_tensors(module: Call, prefix: str = "", depth: int = _NESTED) -> Iterator[tuple[str, StorageView]]:
    """Yield the tensors of a module that was saved whole, by its own names for them.

    Those are its parameters, its buffers and those of its modules, and no other attribute: a model has a tokenizer and
    a preprocessing too, which may hold tensors. Modules of TorchScript have all of them as attributes.
    """
    state: Any = module.state
    if not isinstance(state, dict) or not depth:
        return
    attributes = cast("dict[Any, Any]", state)
    groups = [attributes.get(kind) for kind in ("_parameters", "_buffers", "_modules")]
    transient: Any = attributes.get("_non_persistent_buffers_set")
    if isinstance(transient, Call) and transient.arguments:  # of `set`, in the protocol that torch writes
        transient = transient.arguments[0]
    elif not isinstance(transient, set | frozenset):
        transient = ()
    for group in groups if any(isinstance(group, dict) for group in groups) else [attributes]:
        for name, value in cast("dict[Any, Any]", group if isinstance(group, dict) else {}).items():
            if isinstance(value, StorageView) and not (group is groups[1] and name in transient):
                yield f"{prefix}{name}", value
            elif isinstance(value, Call):
                yield from module_tensors(value, f"{prefix}{name}.", depth - 1)


def storage_item_sizes(tree: Any) -> dict[str, int]:
    """Return the bytes of a value in each storage that a tree mentions."""
    sizes: dict[str, int] = {}
    seen: dict[int, Any] = {}
    waiting: list[Any] = [tree]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, dict):
            waiting += cast("dict[Any, Any]", value).values()
        elif isinstance(value, list | tuple):
            waiting += cast("list[Any]", value)
        elif isinstance(value, Call):
            waiting += [value.arguments, value.state, value.items]
        elif isinstance(value, Stored) and isinstance(value.key, tuple):
            match cast("tuple[Any, ...]", value.key):
                case (_, Name(_, named), key, *_) if named in _STORAGES:
                    sizes[str(key)] = ITEM_SIZES[_STORAGES[named]]
                case _:
                    pass
    return sizes
