"""Configs of the checkpoint formats.

A format has no options, so that each is its name.
"""

from zoo_core.config import CheckpointFormatConfig


class TransformersClipConfig(CheckpointFormatConfig):
    """CLIP of Hugging Face transformers."""

    type: str = "transformers-clip"


class TransformersSiglipConfig(CheckpointFormatConfig):
    """SigLIP of Hugging Face transformers, and SigLIP 2 at fixed resolutions."""

    type: str = "transformers-siglip"


class TransformersSiglip2Config(CheckpointFormatConfig):
    """SigLIP 2 of Hugging Face transformers for pictures in their own aspect ratio."""

    type: str = "transformers-siglip2"


class BigVisionConfig(CheckpointFormatConfig):
    """SigLIP as big_vision publishes it."""

    type: str = "big-vision"


class OpenAIConfig(CheckpointFormatConfig):
    """CLIP as OpenAI published it."""

    type: str = "openai"


class MobileClipConfig(CheckpointFormatConfig):
    """MobileCLIP as Apple published it."""

    type: str = "mobileclip"
