"""Calls of a pickle that make data without running code.

Nothing is called either way, but a file that would run code for whoever unpickles it is refused. What needs no call is
never a question here: an object that is made without its initialiser, as modules and settings of training code are, and
functions and classes that are only mentioned.
"""

from __future__ import annotations

import sys
from typing import Any, cast

__all__ = ["HARMLESS", "makes_data"]

HARMLESS = frozenset(
    f"{module}.{name}"
    for module, names in {
        "builtins": "object type bool int float complex str bytes bytearray list tuple set frozenset dict slice range "
        "getattr",
        "_codecs": "encode",
        "argparse": "Namespace",
        "array": "array _array_reconstructor",
        "collections": "OrderedDict defaultdict deque Counter",
        "copyreg": "_reconstructor __newobj__ __newobj_ex__",
        "datetime": "date datetime time timedelta timezone",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "functools": "partial",
        "itertools": "count",
        "logging": "getLogger",
        "numpy": "dtype ndarray",
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy.core.numeric": "_frombuffer",
        "numpy.random._pickle": "__randomstate_ctor __generator_ctor __bit_generator_ctor",
        "operator": "attrgetter getitem itemgetter methodcaller or_",
        "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
        "re": "_compile",
        "torch": "device",
        "torch.jit._pickle": "build_boollist build_doublelist build_intlist build_tensor_from_id build_tensorlist "
        "restore_type_tag",
        "torch.serialization": "_get_layout",
        "types": "GenericAlias SimpleNamespace",
        "uuid": "UUID",
    }.items()
    for name in names.split()
)
"""What may be called: constructors of plain data, and functions that only put together what they are given.

`getattr`, `partial` and the like give a function without calling it; calling what they give is refused.
"""
_REBUILDING = ("torch._utils._rebuild_", "torch._tensor._rebuild_")
"""How the functions begin by which torch puts tensors together."""
_REBUILDING_OF_CYTHON = "__pyx_unpickle_"
"""The same of Cython, for its classes."""
_NEWER_NAMES = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "pathlib._local": "pathlib",
}
"""Modules by the names of newer versions of Python and numpy."""


def makes_data(module: str, name: str, arguments: Any) -> bool:
    """Tell whether a call of what a module names does no more than to make data of its arguments.

    Classes of packages are taken to do so, as enumerations and settings of training code, and exceptions; those of
    Python's own library only where they are known, since `subprocess.Popen` is a class too.
    """
    module = _NEWER_NAMES.get(module, module)
    full = f"{module}.{name}"
    if full == "copyreg._reconstructor":  # initialises what it makes as its second argument would, but for `object`
        return _module_of(arguments, 1) == "builtins"
    if full == "torch._tensor._rebuild_from_type_v2":  # calls its first argument
        return _module_of(arguments, 0) in ("torch._utils", "torch._tensor")
    if full == "builtins.type":  # with more than one it would make a class
        return len(arguments) == 1
    if full in HARMLESS or full.startswith(_REBUILDING) or name.startswith(_REBUILDING_OF_CYTHON):
        return True
    package = module.partition(".")[0]
    known_library = package in sys.stdlib_module_names and package != "builtins"
    return not known_library and name.rpartition(".")[2].lstrip("_")[:1].isupper()


def _module_of(arguments: Any, at: int) -> str:
    values = cast("tuple[Any, ...]", arguments)
    module = getattr(values[at], "module", "") if len(values) > at else ""
    return _NEWER_NAMES.get(module, module)
