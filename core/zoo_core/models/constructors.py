"""Arguments of constructors such as `CLIP(512, vision_cfg, text_cfg)`.

They take what an architecture takes, by the names that open_clip has for it, and refuse what an architecture refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from zoo_core.config import ComponentConfig, Section, TextTowerConfig, VisionTowerConfig
from zoo_core.errors import ConfigError, InputError, describe

__all__ = ["low_precision", "parse_towers", "with_quick_gelu"]

LOW_PRECISION = (torch.float16, torch.bfloat16)


def parse_towers(
    vision_cfg: VisionTowerConfig | Mapping[str, Any],
    text_cfg: TextTowerConfig | Mapping[str, Any],
    *,
    vision: str,
    text: str,
    quick_gelu: bool,
) -> tuple[Any, Any]:
    """Return the configs of both towers.

    Args:
        vision_cfg, text_cfg: configs, or mappings, whose `tower` keys pick the towers.
        vision, text: the towers of mappings without that key.
        quick_gelu: see `with_quick_gelu`.

    Raises:
        ConfigError: a config is wrong; every problem is named.
    """
    image_tower = Section(VisionTowerConfig, default=vision).parse(vision_cfg, "vision_cfg")
    text_tower = Section(TextTowerConfig, default=text).parse(text_cfg, "text_cfg")
    first, second = with_quick_gelu(image_tower, text_tower) if quick_gelu else (image_tower, text_tower)
    return first, second


def with_quick_gelu(*towers: Any) -> list[Any]:
    """Choose quick_gelu in each tower with a choice; one whose config declares a `fixed_activation` stays as it is.

    Raises:
        ConfigError: a tower has no activation to choose, or none of them has.
    """
    choosing: list[ComponentConfig] = [config for config in towers if "activation" in _class(config).model_fields]
    for config in towers:
        if config not in choosing and (not choosing or config.fixed_activation is None):
            raise ConfigError(f"quick_gelu: tower '{config.component}' has no activation to choose")
    return [
        _class(config).parse({**config.data(), "activation": "quick_gelu"}) if config in choosing else config
        for config in towers
    ]


def _class(config: ComponentConfig) -> type[ComponentConfig]:
    return type(config)


def low_precision(cast_dtype: object) -> torch.dtype | None:
    """Return the dtype that matrices are to be cast to; None where they stay in float32.

    Raises:
        InputError: it is none that matrices can be cast to.
    """
    is_allowed = isinstance(cast_dtype, torch.dtype) and cast_dtype in (torch.float32, *LOW_PRECISION)
    if cast_dtype is not None and not is_allowed:
        raise InputError(f"cast_dtype must be None, float32, float16 or bfloat16, found {describe(cast_dtype)}")
    return next((dtype for dtype in LOW_PRECISION if dtype is cast_dtype), None)
