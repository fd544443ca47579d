"""What the strings below the fields of a config say, read from its source when somebody asks.

What you would not guess: pydantic reads them as it makes a class (`use_attribute_docstrings`), and that takes longer
than making it. Nobody but a JSON Schema wants them.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from itertools import pairwise
from typing import cast

__all__ = ["field_docstrings"]


def field_docstrings(cls: type, base: type) -> dict[str, str]:
    """Return the string below each field of `cls`: those of its own, and those that it has of classes below `base`.

    A field that is declared again has only what stands below it there. A class without source, such as one of an
    interactive session, gives none.
    """
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if owner is not base and issubclass(owner, base):
            for name in inspect.get_annotations(owner):
                found.pop(name, None)
            found |= _own(owner)
    return found


@cache
def _own(cls: type) -> dict[str, str]:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return {}
    inner = source[0].isspace()
    (definition,) = ast.parse(f"if True:\n{source}" if inner else source).body
    if inner:
        (definition,) = cast("ast.If", definition).body
    found: dict[str, str] = {}
    for field, below in pairwise(cast("ast.ClassDef", definition).body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
            case _:
                pass
    return found
