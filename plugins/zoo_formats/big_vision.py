"""SigLIP as big_vision publishes it, in arrays of Flax.

The story of the table: Flax keeps heads as an axis of their own, `[width, heads, head width]`, and matrices the other
way round. Some files hold one array for each layer, others stack all layers of a tower into one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from zoo_core.checkpoints import CheckpointFormat, Conversion, TensorInfo
from zoo_core.checkpoints.rules import Rule, Table
from zoo_core.checkpoints.tensor_steps import SCALAR, TRANSPOSED, MergeAxes, Permute, Reshape, Step
from zoo_formats.config import BigVisionConfig

__all__ = ["BigVision"]

ATTENTION = "MultiHeadDotProductAttention_0"
Row = tuple[tuple[str, ...], str, tuple[Step, ...]]
"""Names of theirs, the name of ours, and what happens in between."""


@dataclass(frozen=True)
class _Names:
    """What the parts of a block, or of a pooling head, are called in a tower of ours."""

    norms: tuple[str, ...]
    attention: Mapping[tuple[str, ...], str]
    out: str
    mlp: tuple[str, str]


QUERY_KEY_VALUE = ("query", "key", "value")
IMAGE_BLOCK = _Names(("norm1", "norm2"), {QUERY_KEY_VALUE: "attn.qkv."}, "attn.proj", ("mlp.fc1", "mlp.fc2"))
TEXT_BLOCK = _Names(("ln_1", "ln_2"), {QUERY_KEY_VALUE: "attn.in_proj_"}, "attn.out_proj", ("mlp.c_fc", "mlp.c_proj"))
POOL = _Names(("norm",), {("query",): "q.", ("key", "value"): "kv."}, "proj", ("mlp.fc1", "mlp.fc2"))


class BigVision(CheckpointFormat):
    """The format of big_vision's SigLIP."""

    name = "big_vision SigLIP"

    def __init__(self, config: BigVisionConfig) -> None:
        pass

    def recognises(self, entries: Mapping[str, TensorInfo]) -> bool:
        """Tell by the embeddings of both towers."""
        root = _root(entries)
        return f"{root}img/embedding/kernel" in entries and f"{root}txt/Embed_0/embedding" in entries

    def plan(self, entries: Mapping[str, TensorInfo]) -> Sequence[Conversion]:
        """Return the conversions to a timm backbone and a text tower below `text.`."""
        return Table(_rules(entries)).plan(entries)


def _root(entries: Mapping[str, TensorInfo]) -> str:
    return "params/" if "params/b" in entries else ""


def _rules(entries: Mapping[str, TensorInfo]) -> Iterator[Rule]:
    root = _root(entries)
    image, text, trunk = f"{root}img/", f"{root}txt/", "visual.trunk."
    yield Rule(f"{root}t", "logit_scale", SCALAR)
    yield Rule(f"{root}b", "logit_bias", SCALAR)
    yield Rule(f"{image}embedding/kernel", f"{trunk}patch_embed.proj.weight", Permute((3, 2, 0, 1)))
    yield Rule(f"{image}embedding/bias", f"{trunk}patch_embed.proj.bias")
    yield Rule(f"{image}pos_embedding", f"{trunk}pos_embed")
    yield from _blocks(f"{image}Transformer/", f"{trunk}blocks", IMAGE_BLOCK, entries)
    yield from _plain(_norm(f"{image}Transformer/encoder_norm", f"{trunk}norm"))
    yield Rule(f"{image}MAPHead_0/probe", f"{trunk}attn_pool.latent")
    yield from _plain(_block(f"{image}MAPHead_0/", f"{trunk}attn_pool.", POOL, _head_width(f"{image}MAPHead", entries)))
    yield Rule(f"{text}Embed_0/embedding", "text.token_embedding.weight")
    yield Rule(f"{text}pos_embedding", "text.positional_embedding", Reshape((1, None, None), (None, None)))
    yield from _blocks(f"{text}Encoder_0/", "text.transformer.resblocks", TEXT_BLOCK, entries)
    yield from _plain(_norm(f"{text}Encoder_0/encoder_norm", "text.ln_final"))
    yield from _plain(_linear(f"{text}head", "text.text_projection"))


def _plain(rows: Iterator[Row]) -> Iterator[Rule]:
    return (Rule(parts, whole, *steps) for parts, whole, steps in rows)


def _blocks(theirs: str, ours: str, names: _Names, entries: Mapping[str, TensorInfo]) -> Iterator[Rule]:
    """Yield the rules of a tower's blocks, whether all layers are stacked into one array or not."""
    width = _head_width(f"{theirs}encoderblock", entries)
    for parts, whole, steps in _block(f"{theirs}encoderblock/", f"{ours}.{{index}}.", names, width):
        yield Rule(parts, whole, *steps, stacked=True)
    yield from _plain(_block(f"{theirs}encoderblock_{{n}}/", f"{ours}.{{n}}.", names, width))


def _head_width(prefix: str, entries: Mapping[str, TensorInfo]) -> int:
    """Return the channels of an attention head below a prefix; 1 where there is none, and nothing to convert."""
    for key, info in entries.items():
        if key.startswith(prefix) and key.endswith(f"/{ATTENTION}/query/kernel") and info.shape:
            return max(info.shape[-1], 1)
    return 1


def _block(theirs: str, ours: str, names: _Names, head_width: int) -> Iterator[Row]:
    for number, norm in enumerate(names.norms):
        yield from _norm(f"{theirs}LayerNorm_{number}", ours + norm)
    for joined, name in names.attention.items():
        kernels = tuple(f"{theirs}{ATTENTION}/{part}/kernel" for part in joined)  # each [width, heads, head width]
        biases = tuple(f"{theirs}{ATTENTION}/{part}/bias" for part in joined)  # each [heads, head width]
        yield kernels, f"{ours}{name}weight", (MergeAxes(1, head_width), TRANSPOSED)
        yield biases, f"{ours}{name}bias", (MergeAxes(0, head_width),)
    out = f"{theirs}{ATTENTION}/out"  # [heads, head width, width]
    yield (f"{out}/kernel",), f"{ours}{names.out}.weight", (Permute((2, 0, 1)), MergeAxes(1, head_width))
    yield (f"{out}/bias",), f"{ours}{names.out}.bias", ()
    for number, layer in enumerate(names.mlp):
        yield from _linear(f"{theirs}MlpBlock_0/Dense_{number}", ours + layer)


def _norm(theirs: str, ours: str) -> Iterator[Row]:
    yield (f"{theirs}/scale",), f"{ours}.weight", ()
    yield (f"{theirs}/bias",), f"{ours}.bias", ()


def _linear(theirs: str, ours: str) -> Iterator[Row]:
    yield (f"{theirs}/kernel",), f"{ours}.weight", (TRANSPOSED,)
    yield (f"{theirs}/bias",), f"{ours}.bias", ()
