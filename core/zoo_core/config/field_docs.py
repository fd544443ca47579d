"""Docstrings of config fields, read from the source on demand.

pydantic would read them whenever it makes a class (`use_attribute_docstrings`), which takes longer than making it. Only
a JSON Schema needs them.
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
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if owner is not base and issubclass(owner, base):
            for name in inspect.get_annotations(owner):
                docs.pop(name, None)
            docs |= _declared_docs(owner)
    return docs


@cache
def _declared_docs(cls: type) -> dict[str, str]:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return {}
    inner = source[0].isspace()
    (definition,) = ast.parse(f"if True:\n{source}" if inner else source).body
    if inner:
        (definition,) = cast("ast.If", definition).body
    docs: dict[str, str] = {}
    for field, below in pairwise(cast("ast.ClassDef", definition).body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = inspect.cleandoc(text)
            case _:
                pass
    return docs
