"""The peer, open_clip 3.3.0, beside ours: scaled-down twins of every architecture that both of us offer.

A twin keeps what makes an architecture what it is: number of heads, ratios, LayerScale, activation, patch.
Ours is built from our YAML, theirs from their JSON: nothing but the scale is common to both. The peer is
imported where it is needed: that takes seconds, and processes that only want a tiny model of ours do without.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo.catalog import architectures

torch.set_num_threads(1)  # threads of a tiny model only wait for each other: 30 times slower on a busy machine

Json = dict[str, Any]

SHRINK = 8
"""Widths are divided by this; it divides every width and head width there is."""
LAYERS = 3
VOCABULARY = 1024
GRID = (3, 2)
"""Rows and columns of patches: unequal, so that a swap of height and width shows."""


@cache
def peer_names() -> dict[str, str]:
    """Return the peer's name of each of our architectures that it has too."""
    import open_clip

    theirs = set(open_clip.list_models())
    entries = architectures().entries
    return {one.name: alias for one in entries for alias in one.aliases if alias in theirs}


def peer_config(name: str) -> Json:
    """Return the peer's JSON for one of our names."""
    import open_clip

    config = open_clip.get_model_config(peer_names()[name])
    assert config is not None
    return config


def small_peer_config(name: str) -> Json:
    """Return the peer's JSON for one of our names, scaled down."""
    config = peer_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    patch = vision["patch_size"]
    config["embed_dim"] //= SHRINK
    vision["head_width"] = vision.get("head_width", 64) // SHRINK
    vision["image_size"] = [side * patch for side in GRID]
    text["vocab_size"] = VOCABULARY
    for tower in (vision, text):
        tower["width"] //= SHRINK
        tower["layers"] = LAYERS
    return config


def small_overrides(name: str) -> list[str]:
    """Return the overrides that scale one of our architectures down."""
    config: Any = zoo.config(name)
    height, width = (side * patch for side, patch in zip(GRID, config.vision.patch_size, strict=True))
    return [
        f"embed_dim={config.embed_dim // SHRINK}",
        f"vision.width={config.vision.width // SHRINK}",
        f"vision.head_width={config.vision.head_width // SHRINK}",
        f"vision.layers={LAYERS}",
        f"vision.image_size=[{height},{width}]",
        f"text.width={config.text.width // SHRINK}",
        f"text.layers={LAYERS}",
        f"text.vocab_size={VOCABULARY}",
        f"tokenizer.vocab_size={VOCABULARY}",
    ]


def small_pair(name: str, *overrides: str) -> tuple[Any, Any]:
    """Return our scaled-down model of a name and the peer's, with the same weights, in evaluation mode."""
    import open_clip

    ours = zoo.build(name, overrides=[*small_overrides(name), *overrides])
    theirs = randomized(open_clip.CLIP(**small_peer_config(name))).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def tiny_arguments(**changes: Any) -> Json:
    """Return arguments for a constructor of either side: the smallest model with every part that CLIP has."""
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 3, "head_width": 16}
    text = {"context_length": 12, "vocab_size": VOCABULARY, "width": 24, "heads": 2, "layers": 3}
    return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, **changes}


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every weight anew: at the start LayerScale hides the blocks, and biases are zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.copy_(noise * (parameter[0].numel() ** -0.5))
            elif name.endswith((".weight", ".gamma")):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.ndim == 1 and parameter.numel() > 1:
                parameter.copy_(0.1 * noise)
    return model


def images(model: Any, count: int = 2, seed: int = 0) -> Tensor:
    """Return `[count, 3, H, W]` noise of the size that a model of ours takes."""
    return torch.randn(count, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(seed))


def captions(model: Any, count: int = 2, seed: int = 0) -> Tensor:
    """Return token ids `[count, context_length]` as a tokenizer lays them out: start, words, end, padding."""
    generator = torch.Generator().manual_seed(seed)
    last = model.vocab_size - 1
    text = torch.zeros(count, model.context_length, dtype=torch.int64)
    for number, row in enumerate(text):
        words = 1 + (3 * number) % (model.context_length - 2)
        row[0], row[words + 1] = last - 1, last
        row[1 : words + 1] = torch.randint(1, last - 1, (words,), generator=generator)
    return text


def published(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return a model's parameters by the names of its state dict."""
    return {key: value for key, value in model.state_dict(keep_vars=True).items() if isinstance(value, nn.Parameter)}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """Return the gradients of a model's parameters by the names of its state dict."""
    return {key: parameter.grad for key, parameter in published(model).items()}
