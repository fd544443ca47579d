"""State dicts of CLIP: published and nested names.

Published CLIP checkpoints hold the text tower's weights at the top (`transformer.resblocks.0...`), since the first
CLIP had no module for its text tower. Checkpoints of CustomTextCLIP nest them (`text.transformer.resblocks.0...`).
Both are accepted everywhere; which one is given back is the model's business.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo_core.nn.state_dict import rename_entry

TEXT = "text."


def own_names(module: nn.Module) -> frozenset[str]:
    """Return the names directly below a module: parameters, buffers and children."""
    return frozenset(
        name
        for mapping in (module._parameters, module._buffers, module._modules)  # pyright: ignore[reportPrivateUsage]
        for name in mapping
    )


def nest(state_dict: dict[str, Any], prefix: str, text: nn.Module, text_names: frozenset[str]) -> None:
    """Move the text tower's entries below `text.`, in place; a key in both formats stays in both, and is refused."""
    for key in list(state_dict):
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name.partition(".")[0] in text_names:
            rename_entry(state_dict, key, prefix + TEXT + name, text)


def flatten(state_dict: dict[str, Any], prefix: str) -> None:
    """Move the entries below `text.` to the top, in place and without changing the order."""
    for key in list(state_dict):
        value = state_dict.pop(key)
        name = key.removeprefix(prefix)
        state_dict[prefix + name.removeprefix(TEXT) if key.startswith(prefix) else key] = value
