"""CLIP and CustomTextCLIP, with the constructor and the names of open_clip.

Both keep the text tower in `text`. CLIP also shows its parts at the top (`clip.transformer`, `clip.ln_final`, ...) and
writes its state dict in the published format; the parts exist once, the names are looked up in the tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from zoo_clip.checkpoints import flatten, nest, own_names
from zoo_core.boundary import checked
from zoo_core.config import TextTowerConfig, VisionTowerConfig
from zoo_core.config.dual_encoder import ConstructorArguments
from zoo_core.models.build_tower import build_tower
from zoo_core.models.constructors import low_precision, parse_towers
from zoo_core.models.dual_encoder import LOGIT_SCALE, DualEncoder
from zoo_core.nn.precision import cast_matrices
from zoo_core.nn.state_dict import is_functional_call, publishes
from zoo_core.registry import default_registry

SHOWN = {"attn_mask": "attn_mask", "text_eos_id": "eos_id", "text_pool_type": "pool_type"}
"""What CLIP shows of its text tower beside the parts, by the names that it has there."""


class CustomTextCLIP(DualEncoder):
    """Two towers and a logit scale.

    Args:
        embed_dim: width of the joint embedding space.
        vision_cfg: config of the image tower, or a mapping (its `tower` key picks which; `vit` where it has none).
        text_cfg: config of the text tower, or a mapping (`clip-transformer` where it names none).
        quick_gelu: build both towers with the activation `quick_gelu`; a tower whose config declares a
            `fixed_activation`, such as a ResNet's, stays as it is, and any other without a choice is refused.
        init_logit_scale: initial logarithm of the factor between cosines and logits.
        init_logit_bias: initial offset of the logits; no such parameter where None.
        nonscalar_logit_scale: give scale and bias the shape `[1]` in outputs and state dicts.
        cast_dtype: float16 or bfloat16 for the matrix products; norms and logit scale stay in float32.
        output_dict: `forward` returns a dict instead of a tuple.

    Raises:
        ConfigError: a tower's config is wrong; every problem is named.
    """

    def __init__(
        self,
        embed_dim: int,
        vision_cfg: VisionTowerConfig | Mapping[str, Any],
        text_cfg: TextTowerConfig | Mapping[str, Any],
        quick_gelu: bool = False,
        init_logit_scale: float = LOGIT_SCALE,
        init_logit_bias: float | None = None,
        nonscalar_logit_scale: bool = False,
        cast_dtype: torch.dtype | None = None,
        output_dict: bool = False,
    ) -> None:
        arguments = ConstructorArguments(
            embed_dim=embed_dim,
            quick_gelu=quick_gelu,
            init_logit_scale=init_logit_scale,
            init_logit_bias=init_logit_bias,
            nonscalar_logit_scale=nonscalar_logit_scale,
            output_dict=output_dict,
        )
        half = low_precision(cast_dtype)
        registry = default_registry()
        vision, text = parse_towers(
            vision_cfg, text_cfg, vision="vit", text="clip-transformer", quick_gelu=arguments.quick_gelu
        )
        super().__init__(
            {
                "image": build_tower(registry, vision, arguments.embed_dim),
                "text": build_tower(registry, text, arguments.embed_dim),
            },
            init_logit_scale=arguments.init_logit_scale,
            init_logit_bias=arguments.init_logit_bias,
            nonscalar_logit_scale=arguments.nonscalar_logit_scale,
            output_dict=arguments.output_dict,
        )
        if half is not None:
            cast_matrices(self, half)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self.text is not None:
            nest(state_dict, prefix, self.text, own_names(self.text) - own_names(self))
        super()._load_from_state_dict(state_dict, prefix, *args)


class CLIP(CustomTextCLIP):
    """CustomTextCLIP whose text tower also shows at the top, and whose state dict has the published format.

    The arguments are those of `CustomTextCLIP`.
    """

    @checked
    def state_dict(self, *args: Any, prefix: str = "", **kwargs: Any) -> Any:
        """Return the state dict without the prefix `text.`; `nested_state_dict` keeps it."""
        state = super().state_dict(*args, prefix=prefix, **kwargs)
        if publishes():
            flatten(state, prefix)
        return state

    def nested_state_dict(self) -> dict[str, Any]:
        """Return the state dict in the format of CustomTextCLIP, with the text tower's weights under `text.`."""
        return cast("dict[str, Any]", super().state_dict())

    def no_weight_decay(self) -> set[str]:
        """Return the names as `named_parameters` gives them, and as the state dict does."""
        names = super().no_weight_decay()
        return names | {name.removeprefix("text.") for name in names}

    def __getattr__(self, name: str) -> Any:
        """Look for the parts of the text tower by their published names."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            text = self.__dict__.get("_modules", {}).get("text")
            if text is not None and (name in own_names(text) or name in SHOWN):
                return getattr(text, SHOWN.get(name, name))
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        """Set parts of the text tower by their published names."""
        text = self.__dict__.get("_modules", {}).get("text")
        if isinstance(text, nn.Module) and name not in own_names(self) and name in own_names(text):
            if name in text._parameters and is_functional_call():
                text._parameters[name] = value
            else:
                setattr(text, name, value)
        else:
            super().__setattr__(name, value)
