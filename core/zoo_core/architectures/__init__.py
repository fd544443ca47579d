"""Architectures: from a name or a YAML file to a config."""

from zoo_core.architectures.find import Architectures, Entry

__all__ = ["Architectures", "Entry"]
