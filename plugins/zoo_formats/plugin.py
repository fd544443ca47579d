"""Declaration of the checkpoint formats, and the importer of open_clip's model configs."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="checkpoint-format",
        name="transformers-clip",
        config="zoo_formats.config:TransformersClipConfig",
        factory="zoo_formats.transformers.clip:TransformersClip",
        summary="CLIP of Hugging Face transformers, whole or one tower; read and written",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="transformers-siglip",
        config="zoo_formats.config:TransformersSiglipConfig",
        factory="zoo_formats.transformers.siglip:TransformersSiglip",
        summary="SigLIP of Hugging Face transformers, whole or one tower; read and written",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="transformers-siglip2",
        config="zoo_formats.config:TransformersSiglip2Config",
        factory="zoo_formats.transformers.siglip2:TransformersSiglip2",
        summary="SigLIP 2 of Hugging Face transformers for pictures in their own aspect ratio; read and written",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="big-vision",
        config="zoo_formats.config:BigVisionConfig",
        factory="zoo_formats.big_vision:BigVision",
        summary="SigLIP as big_vision publishes it (.npz)",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="openai",
        config="zoo_formats.config:OpenAIConfig",
        factory="zoo_formats.openai:OpenAI",
        summary="CLIP as OpenAI published it, trained with quick_gelu",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="mobileclip",
        config="zoo_formats.config:MobileClipConfig",
        factory="zoo_formats.mobileclip:MobileClip",
        summary="MobileCLIP S1, S2 and B as Apple published them",
    )
    yield ComponentSpec(
        kind="checkpoint-format",
        name="open-clip",
        config="zoo_formats.openclip.json_config:OpenClipFormatConfig",
        factory="zoo_formats.openclip.format:OpenClip",
        summary="Folders of open_clip, and its repositories on the Hub; read and written",
    )


@hookimpl
def zoo_importers() -> dict[str, str]:
    """Offer the reader of open_clip's JSON."""
    return {"open_clip": "zoo_formats.openclip.read_config:import_open_clip"}
