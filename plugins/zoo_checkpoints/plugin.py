"""Declares the layouts."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="checkpoint-format",
        name="transformers-clip",
        config="zoo_checkpoints.config:TransformersClipConfig",
        factory="zoo_checkpoints.transformers_clip:TransformersClip",
        summary="CLIP of Hugging Face transformers, whole or one tower; read and written",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="transformers-siglip",
        config="zoo_checkpoints.config:TransformersSiglipConfig",
        factory="zoo_checkpoints.transformers_siglip:TransformersSiglip",
        summary="SigLIP of Hugging Face transformers, whole or one tower; read and written",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="transformers-siglip2",
        config="zoo_checkpoints.config:TransformersSiglip2Config",
        factory="zoo_checkpoints.transformers_siglip2:TransformersSiglip2",
        summary="SigLIP 2 of Hugging Face transformers for pictures in their own aspect ratio; read and written",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="big-vision",
        config="zoo_checkpoints.config:BigVisionConfig",
        factory="zoo_checkpoints.big_vision:BigVision",
        summary="SigLIP as big_vision publishes it (.npz)",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="openai",
        config="zoo_checkpoints.config:OpenAIConfig",
        factory="zoo_checkpoints.openai:OpenAI",
        summary="CLIP as OpenAI published it, trained with quick_gelu",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="mobileclip",
        config="zoo_checkpoints.config:MobileClipConfig",
        factory="zoo_checkpoints.mobileclip:MobileClip",
        summary="MobileCLIP S1, S2 and B as Apple published them",
    )
