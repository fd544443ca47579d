"""Declaration of the vision transformer."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="vision-tower",
        name="vit",
        config="zoo_vit.config:ViTConfig",
        factory="zoo_vit.tower:VisionTransformer",
        summary="Vision transformer with a class token, as CLIP uses it",
        capabilities=frozenset({"tokens", "intermediates", "locking", "gradient-checkpointing"}),
    )


@hookimpl
def zoo_exports() -> dict[str, str]:
    """Offer the config under the name that the field knows."""
    return {"CLIPVisionCfg": "zoo_vit.config:ViTConfig"}
