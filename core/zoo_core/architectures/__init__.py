"""Architectures: from a name or a YAML file to a config."""

from zoo_core.architectures.find import Architectures, Entry, is_path

__all__ = ["Architectures", "Entry", "is_path"]
