"""Config of the modern text transformer.

An option that would have no effect is refused, as in CLIP's.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from zoo_core.config import Ratio, TextTowerConfig, TokenIds
from zoo_core.text.contract import TextReading
from zoo_text.clip.config import TokenId, eos_rules, projection_rules

__all__ = ["ModernTextConfig"]


class ModernTextConfig(TextTowerConfig):
    """A transformer over rows of any length, with rotary positions; padding is left out everywhere."""

    tower: str = "modern-transformer"
    context_length: Annotated[int, Field(ge=2, le=1_048_576)] = 77
    """Most tokens of a row, special tokens included. There is no parameter for positions."""
    vocab_size: Annotated[int, Field(ge=2, le=10_000_000)] = 49_408
    """Number of token embeddings."""
    width: Annotated[int, Field(ge=1, le=65_536)] = 512
    """Channels."""
    heads: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Attention heads; divides the width."""
    layers: Annotated[int, Field(ge=1, le=1_000)] = 12
    """Residual blocks."""
    causal: bool = True
    """Hide later tokens from earlier ones."""
    pos_embed: Literal["rope", "none"] = "rope"
    """`rope` turns queries and keys by their place (Su et al. 2021); `none` leaves order to causality."""
    rope_temperature: Annotated[float, Field(gt=1, le=1e12)] = 10_000.0
    """Ratio between the slowest and the fastest turn of `rope`."""
    mlp: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    """Perceptron: gated by SiLU (`swiglu`, Shazeer 2020), or two layers with GELU or a squared ReLU between them."""
    mlp_ratio: Ratio = 4.0
    """Hidden channels of the perceptron, as a multiple of the width (rounded down). `swiglu` has three matrices of
    this size, not two; 8/3 makes it as large as the others are with 4."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """The kind of every norm."""
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """Epsilon of the norms."""
    norm_placement: Literal["pre", "sandwich"] = "pre"
    """Norm before each branch, or also behind it (Ding et al. 2021, CogView)."""
    pre_norm: bool = False
    """Norm the embedded tokens before the first block."""
    qk_norm: bool = False
    """Norm each head's queries and keys (Henry et al. 2020)."""
    attn_gated: bool = False
    """Multiply what attention gives by a sigmoid of its input, channel by channel."""
    value_residual: bool = False
    """Mix the values of each block but the first with the first one's, by a learned share (Zhou et al. 2024)."""
    reg_tokens: Annotated[int, Field(ge=0, le=4_096)] = 0
    """Learned tokens before each row, which are not pooled (Darcet et al. 2023). The tokens of a causal tower look at
    them, but they do not look at the tokens."""
    ls_init_value: Annotated[float, Field(gt=0)] | None = None
    """Initial LayerScale of each residual branch; no LayerScale where null."""
    zero_init_residual: bool = False
    """Start with branches that add nothing."""
    attention_bias: bool = False
    """Give the layers of attention, the pooling one's as well, a bias."""
    mlp_bias: bool = False
    """Give the layers of the perceptron a bias."""
    gate_bias: bool | None = None
    """Give the gate of `attn_gated` a bias, which starts it open; `attention_bias` decides where null."""
    pool_type: Literal["eos", "mean", "map"] = "eos"
    """How tokens become one feature: the one at the first `eos_id` (where a row has none, the last that is no
    padding), their mean, or attention of a learned query (`map`)."""
    eos_id: TokenId | None = None
    """Id of the end-of-text token, for `pool_type: eos`."""
    pad_id: TokenId
    """Id of the padding, which has to stand behind a caption: it is not attended to, nor pooled."""
    proj_type: Literal["linear", "none"] = "linear"
    """How the pooled token becomes the feature; `none` needs a width of embed_dim."""
    proj_bias: bool = False
    """Give the projection a bias."""

    @property
    def gate_has_bias(self) -> bool:
        """Whether the gate of attention has a bias."""
        return self.attention_bias if self.gate_bias is None else self.gate_bias

    @property
    def hidden(self) -> int:
        """Hidden channels of the perceptron."""
        return int(self.width * self.mlp_ratio)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold heads to the width, ids to the vocabulary, and options to those that they need."""
        yield from super().rules()
        if self.width % self.heads:
            yield "heads", f"{self.heads} does not divide the width {self.width}"
        elif self.pos_embed == "rope" and self.width // self.heads % 2:
            head = self.width // self.heads
            yield "heads", f"a head has {head} channels, and rope turns pairs; make them even, or set pos_embed: none"
        if self.pos_embed == "none" and self.rope_temperature != 10_000:
            yield "rope_temperature", "nothing reads it; set pos_embed: rope, or leave it out"
        if self.hidden < 1:
            yield "mlp_ratio", f"{self.mlp_ratio:g} leaves no hidden channel of a width of {self.width}"
        if self.value_residual and self.layers == 1:
            yield "value_residual", "the only block has none before it; set layers to at least 2, or leave it out"
        if self.gate_bias is not None and not self.attn_gated:
            yield "gate_bias", "there is no gate to give a bias; set attn_gated: true, or leave it out"
        if self.proj_bias and self.proj_type == "none":
            yield "proj_bias", "there is no projection to give a bias; set proj_type: linear, or leave it out"
        for key, token in (("eos_id", self.eos_id), ("pad_id", self.pad_id)):
            if token is not None and token >= self.vocab_size:
                yield key, f"{token} is not in the vocabulary, whose ids run from 0 to {self.vocab_size - 1}"
        if self.pool_type == "eos" and self.eos_id is None:
            yield "eos_id", "pool_type 'eos' needs the id of the end-of-text token"
        if self.eos_id is not None and self.pool_type != "eos":
            yield "eos_id", f"pool_type '{self.pool_type}' does not read it; set pool_type: eos, or leave it out"
        if self.eos_id == self.pad_id:
            yield "pad_id", f"{self.pad_id} is the end of text as well, which would be left out as padding"

    def rules_for(self, embed_dim: int) -> Iterator[tuple[str, str]]:
        """Hold the width to the embedding where nothing projects."""
        yield from projection_rules(self.width, self.proj_type, embed_dim)

    def rules_with(self, ids: TokenIds) -> Iterator[tuple[str, str]]:
        """Hold the place where the feature is read to the end of text."""
        yield from super().rules_with(ids)
        yield from eos_rules(self.eos_id, ids)

    def padding(self) -> int:
        """Return `pad_id`."""
        return self.pad_id

    def token_width(self, embed_dim: int) -> int:
        """Return the channels of the blocks."""
        return self.width

    def supports_kv_cache(self) -> bool:
        """Tell whether the tower is causal."""
        return self.causal

    def reading(self) -> TextReading:
        """Return how the tower reads a row: without its padding, always."""
        return TextReading(
            fixed_length=False,
            causal=self.causal,
            padding="masked",
            pooled_at="end id" if self.pool_type == "eos" else "all kept tokens",
        )

    def parameter_count(self, embed_dim: int) -> int:
        """Return the exact number of parameters."""
        width, bias = self.width, self.attention_bias
        norm = (2 if self.norm == "layernorm" else 1) * width
        head_norms = 2 * norm // self.heads if self.qk_norm else 0
        attention = 4 * width * (width + bias) + self.attn_gated * width * (width + self.gate_has_bias) + head_norms
        into, out = (2 if self.mlp == "swiglu" else 1) * self.hidden, self.hidden
        perceptron = into * (width + self.mlp_bias) + width * (out + self.mlp_bias)
        norms = (4 if self.norm_placement == "sandwich" else 2) * norm
        scales = 0 if self.ls_init_value is None else 2 * width
        shares = self.layers - 1 if self.value_residual else 0
        blocks = self.layers * (attention + perceptron + norms + scales) + shares
        embeddings = (self.vocab_size + self.reg_tokens) * width + self.pre_norm * norm
        pool = width + 3 * width * (width + bias) + head_norms if self.pool_type == "map" else 0
        projection = embed_dim * (width + self.proj_bias) if self.proj_type == "linear" else 0
        return embeddings + blocks + norm + pool + projection
