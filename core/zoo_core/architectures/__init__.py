"""Architectures: from a name or a YAML file to a config."""

from zoo_core.architectures.find import (
    Architectures,
    Entry,
    check_source,
    is_path,
)

__all__ = [
    "Architectures",
    "Entry",
    "check_source",
    "is_path",
]
