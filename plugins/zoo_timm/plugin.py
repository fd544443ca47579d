"""Declaration of the timm towers."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="vision-tower",
        name="timm",
        config="zoo_timm.config:TimmConfig",
        factory="zoo_timm.tower:TimmTower",
        summary="Any image backbone of timm: ConvNeXt, ViTamin, EVA, Swin, FastViT and a thousand more",
        requires=("timm",),
        capabilities=frozenset({"tokens", "intermediates", "locking", "gradient-checkpointing"}),
    )
    yield ComponentSpec(
        kind="vision-tower",
        name="naflex",
        config="zoo_timm.config:NaFlexConfig",
        factory="zoo_timm.naflex:NaFlexTower",
        summary="timm's NaFlexViT: pictures in their own aspect ratio, as a variable number of patches",
        requires=("timm",),
        capabilities=frozenset(
            {
                "tokens",
                "intermediates",
                "locking",
                "gradient-checkpointing",
                "variable-image-size",
                "image-patches",
            }
        ),
    )
