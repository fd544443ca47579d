"""Config of CLIP's text transformer.

An option that would have no effect is refused: a tower never ignores what its config says.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from zoo_core.config import Ratio, TextTowerConfig, TokenIds
from zoo_core.config.block import BlockConfig
from zoo_core.config.parameter_counts import transformer_parameters
from zoo_core.text.contract import PooledAt, TextReading

__all__ = ["ClipTextConfig"]

PoolType = Literal["argmax", "eos", "first", "last"]
_PLACES: dict[PoolType, PooledAt] = {
    "argmax": "largest id",
    "eos": "end id",
    "first": "first position",
    "last": "last position",
}
TokenId = Annotated[int, Field(ge=0, le=100_000_000)]


class ClipTextConfig(TextTowerConfig):
    """A transformer over token ids, pooled at one position of each row and projected."""

    tower: str = "clip-transformer"
    context_length: Annotated[int, Field(ge=2, le=65_536)] = 77
    """Number of token positions, special tokens included."""
    vocab_size: Annotated[int, Field(ge=2, le=10_000_000)] = 49_408
    """Number of token embeddings."""
    width: Annotated[int, Field(ge=1, le=65_536)] = 512
    """Channels."""
    heads: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Attention heads; divides the width."""
    layers: Annotated[int, Field(ge=1, le=1_000)] = 12
    """Residual blocks."""
    mlp_ratio: Ratio = 4.0
    """Hidden channels of the perceptron, as a multiple of the width (rounded down)."""
    ls_init_value: Annotated[float, Field(gt=0)] | None = None
    """Initial LayerScale of each residual branch; no LayerScale where null."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    """Activation of the perceptron. OpenAI's weights and some others were trained with quick_gelu."""
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Epsilon of the layer norms."""
    block: BlockConfig = BlockConfig()
    """Norms and scales inside the residual blocks."""
    causal: bool = True
    """Hide later tokens from earlier ones."""
    pool_type: PoolType = "argmax"
    """Where the feature is read: at the first of the largest ids (`argmax`), at the first `eos_id` (`eos`), or at
    the first or last position of the row, padding or not."""
    eos_id: TokenId | None = None
    """Id of the end-of-text token, for `pool_type: eos`."""
    class_token: bool = False
    """Append a learned token to each row and pool there (Yu et al. 2022, CoCa). It does not look at padding."""
    pad_mask: bool = False
    """Hide padding from every token, in a tower that is not causal."""
    pad_id: TokenId | None = None
    """Id of the padding, for `class_token` and `pad_mask`."""
    class_token_mask: Literal["published", "exact"] = "published"
    """`published` is how CoCa's weights were trained: the padding mask of a row stands one position late, so that
    its first padding is seen, and the class token does not see itself unless the row is full. `exact` is not."""
    proj_type: Literal["linear", "none"] = "linear"
    """How the pooled token becomes the feature; `none` needs a width of embed_dim."""
    proj_bias: bool = False
    """Give the projection a bias."""

    @property
    def takes_shorter_rows(self) -> bool:
        """Whether what follows the pooled token cannot change the feature, so that it may be left out."""
        return self.causal and self.pool_type in ("argmax", "eos")

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold heads to the width, ids to the vocabulary, and options to those that they need."""
        yield from super().rules()
        if self.width % self.heads:
            yield "heads", f"{self.heads} does not divide the width {self.width}"
        for key, token in (("eos_id", self.eos_id), ("pad_id", self.pad_id)):
            if token is not None and token >= self.vocab_size:
                yield key, f"{token} is not in the vocabulary, whose ids run from 0 to {self.vocab_size - 1}"
        if self.proj_bias and self.proj_type == "none":
            yield "proj_bias", "there is no projection to give a bias; set proj_type: linear, or leave it out"
        # pooling
        if self.pool_type == "eos" and self.eos_id is None:
            yield "eos_id", "pool_type 'eos' needs the id of the end-of-text token"
        if self.eos_id is not None and self.pool_type != "eos":
            yield "eos_id", f"pool_type '{self.pool_type}' does not read it; set pool_type: eos, or leave it out"
        if self.pool_type == "first" and self.causal:
            yield "pool_type", "the first token of a causal tower sees no other; set causal: false"
        if self.class_token and self.pool_type != "last":
            yield (
                "pool_type",
                f"a class_token stands last and is pooled there; set pool_type: last, not {self.pool_type}",
            )
        # padding
        if self.pad_mask and self.class_token:
            yield "pad_mask", "class_token hides padding already; leave pad_mask out"
        elif self.pad_mask and self.causal:
            yield "pad_mask", "a causal tower has no padding mask; set causal: false, or leave pad_mask out"
        masks = self.class_token or self.pad_mask
        if masks and self.pad_id is None:
            yield "pad_id", f"{'class_token' if self.class_token else 'pad_mask'} needs the id of the padding"
        if self.pad_id is not None and not masks:
            yield "pad_id", "nothing reads it; set class_token or pad_mask, or leave it out"
        if self.class_token_mask != "published" and not self.class_token:
            yield "class_token_mask", "there is no class_token; set class_token: true, or leave it out"

    def rules_for(self, embed_dim: int) -> Iterator[tuple[str, str]]:
        """Hold the width to the embedding where nothing projects."""
        yield from projection_rules(self.width, self.proj_type, embed_dim)

    def rules_with(self, ids: TokenIds) -> Iterator[tuple[str, str]]:
        """Hold the place where the feature is read to the end of text."""
        yield from super().rules_with(ids)
        yield from eos_rules(self.eos_id, ids)
        end, count = ids.end, ids.count
        if self.pool_type == "argmax" and end is not None and count is not None and end != count - 1:
            yield (
                "pool_type",
                f"'argmax' reads the feature at the largest id, but of tokenizer '{ids.tokenizer}' that is "
                f"{count - 1}, and the end of text is {end}; set pool_type: eos and eos_id: {end}",
            )

    def largest_id(self, ids: TokenIds) -> int | None:
        """Return the end of text where `argmax` looks for it."""
        return ids.end if self.pool_type == "argmax" else None

    def padding(self) -> int | None:
        """Return `pad_id`, which is set only where something masks it."""
        return self.pad_id

    def token_width(self, embed_dim: int) -> int:
        """Return the channels of the blocks."""
        return self.width

    def supports_kv_cache(self) -> bool:
        """Tell whether the tower is causal."""
        return self.causal

    def reading(self) -> TextReading:
        """Return how the tower reads a row: what follows the pooled token is cut where no token sees it."""
        shorter = self.takes_shorter_rows
        return TextReading(
            fixed_length=not shorter,
            causal=self.causal,
            padding="unreached" if shorter else "read" if self.pad_id is None else "masked",
            pooled_at="class token" if self.class_token else _PLACES[self.pool_type],
        )

    def parameter_count(self, embed_dim: int) -> int:
        """Return the exact number of parameters."""
        class_token = 2 * self.width if self.class_token else 0  # the token and its position
        embeddings = (self.vocab_size + self.context_length) * self.width + class_token
        stack = transformer_parameters(
            self.width,
            self.layers,
            self.heads,
            self.mlp_ratio,
            layer_scale=self.ls_init_value is not None,
            block=self.block,
        )
        projection = self.width * embed_dim if self.proj_type == "linear" else 0
        return embeddings + stack + 2 * self.width + projection + (embed_dim if self.proj_bias else 0)


def projection_rules(width: int, proj_type: str, embed_dim: int) -> Iterator[tuple[str, str]]:
    """Hold the width of a tower to the embedding where nothing projects."""
    if proj_type == "none" and width != embed_dim:
        message = f"'none' makes the width {width} the feature, which must have embed_dim = {embed_dim}"
        yield "proj_type", f"{message}; set proj_type: linear"


def eos_rules(eos_id: int | None, ids: TokenIds) -> Iterator[tuple[str, str]]:
    """Hold the `eos_id` of a tower that reads its feature there to the end of text."""
    if eos_id is not None and ids.end not in (None, eos_id):
        yield "eos_id", f"{eos_id} is not the end of text of tokenizer '{ids.tokenizer}', which is {ids.end}"
