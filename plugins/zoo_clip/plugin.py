"""Declaration of CLIP, CustomTextCLIP and the dual encoder of any modalities."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="model",
        name="clip",
        config="zoo_clip.config:ClipConfig",
        factory="zoo_clip.model:CLIP.from_config",
        summary="Two towers and a logit scale; state dicts in the format of published CLIP checkpoints",
    )
    yield ComponentSpec(
        kind="model",
        name="custom-text-clip",
        config="zoo_clip.config:CustomTextClipConfig",
        factory="zoo_clip.model:CustomTextCLIP.from_config",
        summary="The same with the text tower's weights under 'text.', for towers of any kind",
    )
    yield ComponentSpec(
        kind="model",
        name="dual-encoder",
        config="zoo_core.config.dual_encoder:AnyModalityConfig",
        factory="zoo_core.models.dual_encoder:DualEncoder.from_config",
        summary="Towers of any two or more modalities and a logit scale; state dicts as custom-text-clip has them",
    )


@hookimpl
def zoo_exports() -> dict[str, str]:
    """Offer the model classes under the names that the field knows."""
    return {"CLIP": "zoo_clip.model:CLIP", "CustomTextCLIP": "zoo_clip.model:CustomTextCLIP"}
