"""Configs of CLIP and CustomTextCLIP: whole architectures, and the arguments of their constructors."""

from zoo_core.config import Config, EmbedDim
from zoo_core.dual_encoder_config import DualEncoderConfig, LogitBias, LogitScale


class ClipConfig(DualEncoderConfig):
    """Two towers and a logit scale (Radford et al. 2021)."""

    model: str = "clip"


class CustomTextClipConfig(ClipConfig):
    """CLIP with the text tower's weights under `text.`."""

    model: str = "custom-text-clip"


class ClipArguments(Config):
    """The plain arguments of the constructors, so that a wrong one is refused as a wrong key is."""

    embed_dim: EmbedDim
    quick_gelu: bool
    init_logit_scale: LogitScale
    init_logit_bias: LogitBias | None
    nonscalar_logit_scale: bool
    output_dict: bool
