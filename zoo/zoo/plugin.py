"""Declaration of the architectures and pretrained entries that ship with zoo."""

from zoo_core.plugin import hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_architectures() -> str:
    """Offer the YAML files beside this module."""
    return "zoo:architectures"


@hookimpl
def zoo_pretrained() -> str:
    """Offer the pretrained entries beside this module."""
    return "zoo:pretrained"
