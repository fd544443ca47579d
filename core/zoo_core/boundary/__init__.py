"""Checks at the boundary: public arguments, code of plugins, code of libraries."""

from zoo_core.boundary.arguments import (
    Contract,
    checked,
)

__all__ = [
    "Contract",
    "checked",
]
