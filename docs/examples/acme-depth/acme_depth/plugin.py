"""What acme-depth adds to zoo. Every zoo command imports this module, so it imports no torch."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, ModalitySpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_modalities() -> Iterator[ModalitySpec]:
    """Declare depth maps as a kind of input."""
    yield ModalitySpec(
        name="depth",
        handler="acme_depth.modality:DepthModality",
        tower_config="acme_depth.config:DepthTowerConfig",
        processor_config="acme_depth.config:DepthPreprocessConfig",
        files=(".npy",),
    )


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare a tower of depth maps, and what makes tensors of them."""
    yield ComponentSpec(
        kind="tower",
        modality="depth",
        name="depth-conv",
        config="acme_depth.config:DepthConvConfig",
        factory="acme_depth.tower:DepthConv",
        summary="Two convolutions and the mean over the map",
    )
    yield ComponentSpec(
        kind="preprocessor",
        modality="depth",
        name="depth-map",
        config="acme_depth.config:DepthMapConfig",
        factory="acme_depth.modality:DepthMaps",
        summary="Resize maps and divide them by the largest depth",
    )


@hookimpl
def zoo_architectures() -> str:
    """Offer the YAML files in `architectures/`."""
    return "acme_depth:architectures"
