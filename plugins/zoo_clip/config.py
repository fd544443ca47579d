"""Configs of CLIP and CustomTextCLIP."""

from zoo_core.config.dual_encoder import DualEncoderConfig


class ClipConfig(DualEncoderConfig):
    """Two towers and a logit scale (Radford et al. 2021)."""

    model: str = "clip"


class CustomTextClipConfig(ClipConfig):
    """CLIP with the text tower's weights under `text.`."""

    model: str = "custom-text-clip"
