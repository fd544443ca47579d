"""Declaration of CLIP's modified ResNet."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="vision-tower",
        name="modified-resnet",
        config="zoo_resnet.config:ModifiedResNetConfig",
        factory="zoo_resnet.tower:ModifiedResNet",
        summary="ResNet with anti-aliased strides and attention pooling, as CLIP uses it",
        capabilities=frozenset({"tokens", "intermediates", "locking", "gradient-checkpointing", "variable-image-size"}),
    )
