"""Pickles as trees, of which nothing is called.

A pickle is a program for a stack machine. This is that machine without the instructions that reach outside: a global
becomes a `Name`, a call becomes a `Call`, and containers and plain values become what they are. So a checkpoint can be
listed without torch, whatever classes of training code it mentions, and a malicious one does no harm. A file that would
run code is refused all the same, since its author did not mean to hand over weights.
"""

from __future__ import annotations

import _compat_pickle  # how pickle itself reads names of Python 2, which the protocol that torch writes has
import pickletools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any, cast

from zoo.checkpoints.containers.pickled_calls import makes_data

__all__ = ["Call", "Name", "PickleError", "Stored", "read_pickle"]


class PickleError(ValueError):
    """Bytes that are no pickle, or one that nothing writes."""


@dataclass(frozen=True)
class Name:
    """A global: a class or a function of a module."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Call:
    """What calling something would give; `state` is what its attributes would become."""

    callee: Any
    arguments: Any
    state: Any = None
    items: list[Any] = field(default_factory=list[Any])


@dataclass(eq=False)
class Stored:
    """A reference to something outside the pickle, such as the bytes of a tensor."""

    key: Any


_MAPPINGS = (Name("collections", "OrderedDict"), Name("collections", "defaultdict"), Name("builtins", "dict"))
_MARK = object()
MAX_KEY = 100
"""Values in a key of a mapping or in a member of a set, those in tuples in it included."""
_PLAIN = re.compile(r"(BIN)?INT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_)?(BIN)?(STRING|BYTES|UNICODE)8?|BYTEARRAY8")
"""Instructions whose argument is a value of its own."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_NOTHING = frozenset(("PROTO", "FRAME"))


def read_pickle(file: IO[bytes]) -> Any:
    """Return the tree of the pickle that a file is at; the file is behind it afterwards.

    Raises:
        PickleError: it is none, has instructions that no checkpoint needs, or would run code for whoever unpickles it.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in cast("Iterator[tuple[Any, Any, int]]", pickletools.genops(file)):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except PickleError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise PickleError(f"it is no valid pickle: {' '.join(str(error).split())[:80]}") from None
    raise PickleError("it ends before its end")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if _PLAIN.fullmatch(name):
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name not in _NOTHING:
            handler = getattr(self, f"_{name.lower()}", None)
            if handler is None:
                raise PickleError(f"it has the instruction {name}, which no checkpoint needs")
            handler(argument)

    def _since_mark(self) -> list[Any]:
        """Pop what was pushed since the last mark, and the mark."""
        mark = len(self.stack) - 1
        while self.stack[mark] is not _MARK:
            mark -= 1
        values = self.stack[mark + 1 :]
        del self.stack[mark:]
        return values

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    # Memory

    def _put(self, argument: Any) -> None:
        self.memo[int(argument)] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, argument: Any) -> None:
        self.stack.append(self.memo[int(argument)])

    _binget = _long_binget = _get

    # Containers

    def _list(self, _: Any) -> None:
        self.stack.append(self._since_mark())

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _take(self, count: int) -> list[Any]:
        taken = self.stack[-count:]
        if len(taken) < count or _MARK in taken:
            raise PickleError("it takes more from its stack than is there")
        del self.stack[-count:]
        return taken

    def _tuple1(self, _: Any) -> None:
        self.stack.append(tuple(self._take(1)))

    def _tuple2(self, _: Any) -> None:
        self.stack.append(tuple(self._take(2)))

    def _tuple3(self, _: Any) -> None:
        self.stack.append(tuple(self._take(3)))

    def _dict(self, _: Any) -> None:
        values = self._since_mark()
        self.stack.append(_mapping(zip(values[::2], values[1::2], strict=True)))

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(map(_key, self._since_mark())))

    def _append(self, _: Any) -> None:
        self._extend(self._take(1))

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Call) else target).extend(values)

    def _additems(self, _: Any) -> None:
        members = self._since_mark()
        self.stack[-1] |= frozenset(map(_key, members))

    def _setitem(self, _: Any) -> None:
        self._set_items(self._take(2))

    def _setitems(self, _: Any) -> None:
        self._set_items(self._since_mark())

    def _set_items(self, values: list[Any]) -> None:
        pairs = zip(values[::2], values[1::2], strict=True)
        target = self.stack[-1]
        if isinstance(target, Call):
            target.items.extend(pairs)
        else:
            target.update(_mapping(pairs))

    # What would reach outside

    def _global(self, argument: Any) -> None:
        self.stack.append(_named(*str(argument).split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        self.stack.append(_named(str(module), str(name)))

    def _reduce(self, _: Any) -> None:
        callee, arguments = self._take(2)
        self._call(callee, arguments)

    def _call(self, callee: Any, arguments: Any) -> None:
        if callee in _MAPPINGS:
            self.stack.append(_mapping(arguments[0]) if arguments and isinstance(arguments[0], list) else {})
        elif isinstance(callee, Name) and makes_data(callee.module, callee.name, arguments):
            self.stack.append(Call(callee, arguments))
        else:
            passes_on = bool(arguments) and isinstance(arguments[0], Name)  # what it calls in turn is told too
            called = _spelled(Call(callee, arguments) if passes_on else callee)
            raise PickleError(
                f"it would call {called} when it is unpickled, which no weights need and which may do harm; zoo ran "
                "nothing. Ask its authors for safetensors, or, where you trust the file as much as a program, unpickle "
                "it yourself and save the state_dict() of its model with safetensors"
            )

    def _newobj(self, _: Any) -> None:
        callee, arguments = self._take(2)
        self.stack.append({} if callee in _MAPPINGS else Call(callee, arguments))

    def _newobj_ex(self, _: Any) -> None:
        callee, arguments, options = self._take(3)
        self.stack.append(Call(callee, (arguments, options)))

    def _inst(self, argument: Any) -> None:
        self._call(_named(*str(argument).split(" ", 1)), self._since_mark())

    def _obj(self, _: Any) -> None:
        callee, *arguments = self._since_mark()
        self._call(callee, arguments)

    def _build(self, _: Any) -> None:
        (state,) = self._take(1)
        target = self.stack[-1]
        if isinstance(target, Name):
            raise PickleError(f"it would change {target} when it is unpickled, which no weights need; zoo ran nothing")
        if isinstance(target, Call):
            target.state = state

    def _persid(self, argument: Any) -> None:
        self.stack.append(Stored(argument))

    def _binpersid(self, _: Any) -> None:
        (key,) = self._take(1)
        self.stack.append(Stored(key))


def _mapping(pairs: Iterable[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _key(value: Any) -> Any:
    """Return what a mapping or a set is about to hash; the hash of a tuple in a tuple, and so on, may take for ever."""
    inside, count = [value], 0
    while inside:
        part = inside.pop()
        count += 1
        if count > MAX_KEY:
            raise PickleError(f"one of its keys holds more than {MAX_KEY} values")
        if isinstance(part, tuple | frozenset):
            inside += islice(cast("tuple[Any, ...] | frozenset[Any]", part), MAX_KEY)
    return value


def _named(module: str, name: str) -> Name:
    """Return what a module names, by its name in Python 3."""
    return Name(
        *_compat_pickle.NAME_MAPPING.get((module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name))
    )


def _spelled(callee: Any) -> str:
    """Return what would be called, for people: `posix.system`, also where `getattr` would look it up."""
    if isinstance(callee, Call):
        match callee.arguments:
            case (Name() as owner, str(name)) if callee.callee == Name("builtins", "getattr"):
                callee = f"{owner}.{name}"
            case (Name() as first, *_):
                callee = f"{callee.callee} of {first}"
            case _:
                callee = f"what {callee.callee} gives"
    text = str(callee)
    return f"{text if text.isprintable() else ascii(text):.120}"
