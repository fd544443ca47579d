"""The peer, open_clip 3.3.0, beside ours: scaled-down twins of every architecture that both of us offer.

A twin keeps what makes an architecture what it is: number of heads, ratios, LayerScale, activation, patch.
Ours is built from our YAML, theirs from their JSON: nothing but the scale is common to both. The peer is
imported where it is needed: that takes seconds, and processes that only want a tiny model of ours do without.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo.catalog.architectures import architectures

torch.set_num_threads(1)  # threads of a tiny model only wait for each other: 30 times slower on a busy machine

Json = dict[str, Any]

SHRINK = 8
"""Widths are divided by this; it divides every width and head width there is."""
LAYERS = 3
DEPTHS = [2, 1, 1, 2]
"""Blocks of the stages of a residual network."""
VOCABULARY = 1024
GRID = (3, 2)
"""Rows and columns of patches: unequal, so that a swap of height and width shows."""
NATIVE = {"vit", "modified-resnet", "clip-transformer"}
RESIDUAL_IMAGE = 64
"""Height and width of the images of a residual network, whose grid has to be square in the peer."""


@cache
def peer_names(over_timm: bool = False) -> dict[str, str]:
    """Return the peer's name of each of our architectures that it has too.

    Those over a timm backbone, or those whose towers are native on both sides.
    """
    import open_clip

    theirs = set(open_clip.list_models())
    wanted = _is_over_timm if over_timm else _is_native
    return {
        one.name: alias
        for one in architectures().entries
        for alias in one.aliases
        if alias in theirs and wanted(zoo.config(one.name))
    }


def _is_over_timm(config: Any) -> bool:
    return config.vision.component == "timm"


def _is_native(config: Any) -> bool:
    """Tell whether the sweep can scale an architecture down: CLIP over towers that are not another library's."""
    return config.model == "clip" and {config.vision.component, config.text.component} <= NATIVE


def peer_config(name: str) -> Json:
    """Return the peer's JSON for one of our names."""
    import open_clip

    config = open_clip.get_model_config(peer_names()[name])
    assert config is not None
    return config


def is_residual(name: str) -> bool:
    """Tell whether the vision tower of one of our names is a residual network."""
    return isinstance(peer_config(name)["vision_cfg"]["layers"], list)


def small_peer_config(name: str) -> Json:
    """Return the peer's JSON for one of our names, scaled down."""
    config = peer_config(name)
    config["embed_dim"] //= SHRINK
    config["vision_cfg"] = small_vision(config["vision_cfg"])
    config["text_cfg"] = small_text(config["text_cfg"])
    return config


def small_vision(section: Json) -> Json:
    """Return the peer's JSON of a vision transformer or a residual network, scaled down."""
    small = section | {
        "width": section["width"] // SHRINK,
        "head_width": section.get("head_width", 64) // SHRINK,
    }
    if isinstance(section["layers"], list):
        return small | {"layers": DEPTHS, "image_size": RESIDUAL_IMAGE}
    return small | {"layers": LAYERS, "image_size": [side * section["patch_size"] for side in GRID]}


def small_text(section: Json) -> Json:
    """Return the peer's JSON of its own text transformer, scaled down."""
    import open_clip

    given = open_clip.CLIPTextCfg(**section)
    return section | {"width": given.width // SHRINK, "heads": given.heads, "layers": LAYERS, "vocab_size": VOCABULARY}


def our_vision(section: Json, quick_gelu: bool = False) -> Json:
    """Return the values of our config that say what the peer's JSON of a native vision tower says."""
    import open_clip

    given = open_clip.CLIPVisionCfg(**section)
    if isinstance(section["layers"], list):
        assert given.patch_size is None
        return {key: getattr(given, key) for key in ("image_size", "layers", "width", "head_width")}
    values = _our_values(given, quick_gelu) | {
        "image_size": given.image_size,
        "patch_size": given.patch_size,
        "head_width": given.head_width,
        "patch_dropout": given.patch_dropout,
        "ln_pre": not given.no_ln_pre,
        "pos_embed": given.pos_embed_type,
        "final_ln_after_pool": given.final_ln_after_pool,
        "attn_pooler_queries": given.attn_pooler_queries,
        "attn_pooler_heads": given.attn_pooler_heads,
    }
    if given.attentional_pool:
        values["attentional_pool"] = "single" if given.attentional_pool is True else given.attentional_pool
    return values


def our_text(section: Json, quick_gelu: bool = False) -> Json:
    """Return the values of our config that say what the peer's JSON of its own text transformer says."""
    import open_clip

    given = open_clip.CLIPTextCfg(**section)
    values = _our_values(given, quick_gelu) | {
        "context_length": given.context_length,
        "vocab_size": given.vocab_size,
        "heads": given.heads,
        "causal": not given.no_causal_mask,
        "proj_type": given.proj_type,
        "proj_bias": given.proj_bias and given.proj_type != "none",
    }
    if given.embed_cls:
        values |= {"class_token": True, "pool_type": "last", "pad_id": given.pad_id}
    elif given.pool_type == "eos":
        values["eos_id"] = given.eos_id
    return values


def _our_values(given: Any, quick_gelu: bool) -> Json:
    """Return what both towers name alike."""
    approximate = (given.act_kwargs or {}).get("approximate")
    same = ("width", "layers", "mlp_ratio", "ls_init_value", "pool_type")
    options = ("qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
    return {key: getattr(given, key) for key in same} | {
        "activation": "quick_gelu" if quick_gelu else "gelu_tanh" if approximate == "tanh" else "gelu",
        "norm_eps": (given.norm_kwargs or {}).get("eps", 1e-5),
        "block": {key: getattr(given, key) for key in options} | {"scaled_cosine": given.scaled_cosine_attn},
    }


def small_overrides(name: str) -> list[str]:
    """Return the overrides that scale one of our architectures down."""
    config: Any = zoo.config(name)
    if is_residual(name):
        layers, image_size = DEPTHS, [RESIDUAL_IMAGE, RESIDUAL_IMAGE]
    else:
        layers, image_size = LAYERS, [side * patch for side, patch in zip(GRID, config.vision.patch_size, strict=True)]
    return [
        f"embed_dim={config.embed_dim // SHRINK}",
        f"vision.width={config.vision.width // SHRINK}",
        f"vision.head_width={config.vision.head_width // SHRINK}",
        f"vision.layers={layers}",
        f"vision.image_size={image_size}",
        f"text.width={config.text.width // SHRINK}",
        f"text.layers={LAYERS}",
        f"text.vocab_size={VOCABULARY}",
        *(["tokenizer.type=clip-bpe"] if config.text.pool_type != "eos" else []),  # its end of text is the last id
        f"tokenizer.vocab_size={VOCABULARY}",
    ]


def small_pair(name: str, *overrides: str) -> tuple[Any, Any]:
    """Return our scaled-down model of a name and the peer's, with the same weights, in evaluation mode."""
    ours = zoo.build(name, overrides=[*small_overrides(name), *overrides])
    return twins(ours, peer_model(small_peer_config(name)))


def peer_json(name: str) -> Json:
    """Return the peer's JSON of one of our architectures, over a timm backbone or not."""
    import open_clip

    config = open_clip.get_model_config((peer_names() | peer_names(over_timm=True))[name])
    assert config is not None
    return config


def peer_model(config: Json) -> nn.Module:
    """Return the peer's model of its JSON."""
    import open_clip

    config = dict(config)
    return (open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP)(**config)


def twins(ours: Any, theirs: nn.Module) -> tuple[Any, Any]:
    """Give a model or tower of ours and the peer's the same weights, and both evaluation mode."""
    randomized(theirs).eval()
    ours.eval().load_state_dict(theirs.state_dict())
    return ours, theirs


def tiny_arguments(**changes: Any) -> Json:
    """Return arguments for a constructor of either side: the smallest model with every part that CLIP has."""
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 3, "head_width": 16}
    text = {"context_length": 12, "vocab_size": VOCABULARY, "width": 24, "heads": 2, "layers": 3}
    return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, **changes}


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every weight and running statistic anew: at the start LayerScale hides the blocks, and biases are zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.copy_(noise * (parameter[0].numel() ** -0.5))
            elif name.endswith("bn3.weight"):  # ends a residual branch; a louder one lets 50 blocks outgrow float32
                parameter.copy_(0.3 + 0.03 * noise)
            elif name.endswith((".weight", ".gamma")):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.ndim == 1 and parameter.numel() > 1:
                parameter.copy_(0.1 * noise)
    for name, statistic in model.named_buffers():
        if name.endswith("running_mean"):
            statistic.copy_(0.1 * torch.randn(statistic.shape, generator=generator))
        elif name.endswith("running_var"):
            statistic.copy_(0.5 + torch.rand(statistic.shape, generator=generator))
    return model


def images(model: Any, count: int = 2, seed: int = 0) -> Tensor:
    """Return `[count, 3, H, W]` noise of the size that a model of ours takes."""
    return torch.randn(count, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(seed))


def captions(model: Any, count: int = 2, seed: int = 0) -> Tensor:
    """Return token ids `[count, context_length]` as a tokenizer lays them out: start, words, end, padding."""
    generator = torch.Generator().manual_seed(seed)
    last = model.vocab_size - 1
    eos_id = getattr(model.text, "eos_id", None)
    end = last if eos_id is None else eos_id
    text = torch.zeros(count, model.context_length, dtype=torch.int64)
    for number, row in enumerate(text):
        words = 1 + (3 * number) % (model.context_length - 2)
        row[0], row[words + 1] = last - 1, end
        row[1 : words + 1] = torch.randint(3, last - 1, (words,), generator=generator)
    return text


def published(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's parameters by the names of its state dict; those that are several of ours are joined."""
    buffers = dict(model.named_buffers())
    return {key: value for key, value in model.state_dict(keep_vars=True).items() if key not in buffers}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """Return the gradients of a model's parameters by the names, and in the shapes, of its state dict."""
    twin = copy.deepcopy(model)
    for ours, parameter in zip(twin.parameters(), model.parameters(), strict=True):
        ours.data = torch.full_like(ours, torch.nan) if parameter.grad is None else parameter.grad
    names = published(model)
    found = {key: value for key, value in twin.state_dict().items() if key in names}
    return {key: None if gradient.isnan().all() else gradient for key, gradient in found.items()}
