"""What acme-towers adds to zoo. Every zoo command imports this module, so it imports no torch."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the tower."""
    yield ComponentSpec(
        kind="vision-tower",
        name="conv-mean",
        config="acme_towers.config:ConvMeanConfig",
        factory="acme_towers.tower:ConvMean",
        summary="Strided convolutions and the mean over the image",
        capabilities=frozenset({"locking", "variable-image-size"}),
    )


@hookimpl
def zoo_architectures() -> str:
    """Offer the YAML files in `architectures/`."""
    return "acme_towers:architectures"
