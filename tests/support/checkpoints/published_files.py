"""Weights as big_vision and Apple publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from support import peer
from support.checkpoints.foreign import WORDS

Json = dict[str, Any]


def big_vision_arrays(stacked: bool, width: int = 32, heads: int = 2, layers: int = 2) -> dict[str, Any]:
    """Return random arrays in the layout that big_vision saves."""
    generator = torch.Generator().manual_seed(0)
    inner, head = 3 * width, width // heads

    def attention(prefix: str) -> dict[str, tuple[int, ...]]:
        sides = {f"{prefix}/{one}/kernel": (width, heads, head) for one in ("query", "key", "value")}
        biases = {f"{prefix}/{one}/bias": (heads, head) for one in ("query", "key", "value")}
        return sides | biases | {f"{prefix}/out/kernel": (heads, head, width), f"{prefix}/out/bias": (width,)}

    def norm(prefix: str) -> dict[str, tuple[int, ...]]:
        return {f"{prefix}/scale": (width,), f"{prefix}/bias": (width,)}

    def mlp(prefix: str) -> dict[str, tuple[int, ...]]:
        first = {f"{prefix}/Dense_0/kernel": (width, inner), f"{prefix}/Dense_0/bias": (inner,)}
        return first | {f"{prefix}/Dense_1/kernel": (inner, width), f"{prefix}/Dense_1/bias": (width,)}

    def blocks(prefix: str) -> dict[str, tuple[int, ...]]:
        one = (
            norm("LayerNorm_0") | norm("LayerNorm_1") | mlp("MlpBlock_0") | attention("MultiHeadDotProductAttention_0")
        )
        if stacked:
            return {f"{prefix}encoderblock/{key}": (layers, *shape) for key, shape in one.items()}
        return {f"{prefix}encoderblock_{n}/{key}": shape for n in range(layers) for key, shape in one.items()}

    shapes = {
        "params/t": (1,),
        "params/b": (1,),
        "params/img/embedding/kernel": (16, 16, 3, width),
        "params/img/embedding/bias": (width,),
        "params/img/pos_embedding": (1, 4, width),
        **blocks("params/img/Transformer/"),
        **norm("params/img/Transformer/encoder_norm"),
        "params/img/MAPHead_0/probe": (1, 1, width),
        **norm("params/img/MAPHead_0/LayerNorm_0"),
        **mlp("params/img/MAPHead_0/MlpBlock_0"),
        **attention("params/img/MAPHead_0/MultiHeadDotProductAttention_0"),
        "params/txt/Embed_0/embedding": (WORDS, width),
        "params/txt/pos_embedding": (1, 12, width),
        **blocks("params/txt/Encoder_0/"),
        **norm("params/txt/Encoder_0/encoder_norm"),
        "params/txt/head/kernel": (width, width),
        "params/txt/head/bias": (width,),
    }
    return {key: torch.randn(shape, generator=generator).numpy() for key, shape in shapes.items()}


def big_vision_file(folder: Path, stacked: bool = False, root: str = "params/") -> tuple[Path, dict[str, Tensor]]:
    """Write weights of big_vision, and return the file and what the peer makes of it."""
    import numpy
    import open_clip
    import timm
    from open_clip.convert import load_big_vision_weights

    file = folder / "weights.npz"
    numpy.savez(file, **{key.replace("params/", root): one for key, one in big_vision_arrays(stacked).items()})
    text = {"context_length": 12, "vocab_size": WORDS, "width": 32, "heads": 2, "layers": 2, "mlp_ratio": 3}
    arguments = peer.tiny_arguments(embed_dim=32, init_logit_bias=-10)
    arguments["text_cfg"] = text | {"proj_bias": True, "no_causal_mask": True, "pool_type": "last"}
    theirs = open_clip.CustomTextCLIP(**arguments)
    theirs.visual = torch.nn.Module()
    theirs.visual.trunk = timm.create_model(
        "vit_base_patch16_siglip_224", img_size=32, embed_dim=32, depth=2, num_heads=2, mlp_ratio=3, num_classes=0
    )
    load_big_vision_weights(theirs, str(file))
    return file, dict(theirs.state_dict())


APPLE_PARTS = {
    "stem": "patch_embed",
    "conv_kxk": "rbr_conv",
    "conv_scale": "rbr_scale",
    "identity": "rbr_skip",
    "final_conv": "conv_exp",
    "large_conv": "lkb_origin",
    "mlp": "convffn",
}


def apple_fastvit_name(key: str, stages: int) -> str:
    """Return the name that an entry of timm's FastViT has in Apple's files, where all that a stage holds is a row."""
    row: list[str] = []
    for stage in range(stages):
        row += [f"stages.{stage}.downsample."] if stage else []
        row += [f"stages.{stage}.pos_emb."] if stage == stages - 1 else []
        row += [f"stages.{stage}.blocks."]
    for place, prefix in enumerate(row):
        if key.startswith(prefix):
            rest = key.removeprefix(prefix).replace("pos_enc", "pe")
            key = f"network.{place}.{rest}"
    key = key.replace(".se.fc1.", ".se.reduce.").replace(".se.fc2.", ".se.expand.").removesuffix(".gamma")
    return ".".join(APPLE_PARTS.get(part, part) for part in key.split("."))


def apple_hybrid_name(key: str) -> str:
    names = {"patch_embed.backbone.": "patch_emb.", ".conv.": ".block.conv.", ".bn.": ".block.norm."}
    if key.startswith("patch_embed."):
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        return key
    key = key.replace("blocks.", "transformer.").replace(".norm1.", ".pre_norm_mha.0.")
    key = key.replace(".attn.qkv.", ".pre_norm_mha.1.qkv_proj.").replace(".attn.proj.", ".pre_norm_mha.1.out_proj.")
    key = key.replace(".norm2.", ".pre_norm_ffn.0.").replace(".mlp.fc1.", ".pre_norm_ffn.1.")
    return key.replace(".mlp.fc2.", ".pre_norm_ffn.4.").replace("norm.", "post_transformer_norm.", key[:5] == "norm.")


def apple_text(width: int = 24) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "embedding_layer.weight": (WORDS, width),
        "positional_embedding.pos_embed.pos_embed": (1, 1, 12, width),
        "final_layer_norm.weight": (width,),
        "final_layer_norm.bias": (width,),
        "projection_layer": (width, 16),
    }
    for layer in range(2):
        block = f"transformer.{layer}"
        for part, rows in {"pre_norm_mha.1.qkv_proj": 3 * width, "pre_norm_mha.1.out_proj": width}.items():
            shapes |= {f"{block}.{part}.weight": (rows, width), f"{block}.{part}.bias": (rows,)}
        for part in ("pre_norm_mha.0", "pre_norm_ffn.0"):
            shapes |= {f"{block}.{part}.weight": (width,), f"{block}.{part}.bias": (width,)}
        shapes |= {f"{block}.pre_norm_ffn.1.weight": (4 * width, width), f"{block}.pre_norm_ffn.1.bias": (4 * width,)}
        shapes |= {f"{block}.pre_norm_ffn.4.weight": (width, 4 * width), f"{block}.pre_norm_ffn.4.bias": (width,)}
    return {f"text_encoder.{key}": torch.randn(shape) for key, shape in shapes.items()}


def mobileclip_file(file: Path, tower: str) -> dict[str, Tensor]:
    """Write weights of Apple's, and return what the peer makes of them, which has to load in its model."""
    import open_clip
    import timm
    from open_clip.convert import convert_mobile_clip_state_dict

    fast = tower.startswith("fastvit")
    if fast:
        sizes: Json = {"embed_dims": (16, 16, 16, 32), "layers": (1, 1, 2, 1)}
    else:
        sizes = {"depth": 2}
    trunk: Any = timm.create_model(tower, num_classes=16, **sizes)
    state = {key: torch.randn_like(one) if one.is_floating_point() else one for key, one in trunk.state_dict().items()}
    state |= {key: one.abs() for key, one in state.items() if key.endswith("running_var")}
    head = "head.fc." if fast else "head."
    projection, bias = state.pop(f"{head}weight"), state.pop(f"{head}bias")
    names = {key: apple_fastvit_name(key, 4) if fast else apple_hybrid_name(key) for key in state}
    published = {f"image_encoder.model.{names[key]}": one for key, one in state.items()}
    published[f"image_encoder.model.{'head.proj' if fast else 'classifier.proj'}"] = projection.T.contiguous()
    if not fast:
        published["image_encoder.model.pos_embed.pos_embed.pos_embed"] = state["pos_embed"][None]
        del published["image_encoder.model.pos_embed"]
    published |= apple_text() | {"logit_scale": torch.tensor(3.0)}
    torch.save(published, file)

    arguments = peer.tiny_arguments(embed_dim=16)
    arguments["text_cfg"] |= {"vocab_size": WORDS, "layers": 2}
    theirs: Any = open_clip.CustomTextCLIP(**arguments)
    theirs.visual = torch.nn.Module()
    theirs.visual.trunk = trunk
    expected = convert_mobile_clip_state_dict(theirs, published, fastvit=fast)
    assert torch.equal(expected[f"visual.trunk.{head}bias"], torch.zeros_like(bias))
    theirs.load_state_dict(expected, strict=True)
    return expected
