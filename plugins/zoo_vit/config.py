"""Config of the vision transformer.

An option that would have no effect is refused: a tower never ignores what its config says.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from zoo_core.config import Ratio, Size, VisionTowerConfig
from zoo_core.config.block import BlockConfig
from zoo_core.config.parameter_counts import attentional_pooler_parameters, transformer_parameters

AttentionalPool = Literal["single", "parallel", "cascade"]
PoolType = Literal["tok", "avg"]


class ViTConfig(VisionTowerConfig):
    """A vision transformer with a class token and a linear projection."""

    tower: str = "vit"
    image_size: Size = (224, 224)
    """Height and width in pixels of the images."""
    patch_size: Size = (16, 16)
    """Height and width in pixels of a patch; divides the image size."""
    width: Annotated[int, Field(ge=1, le=65_536)] = 768
    """Channels."""
    layers: Annotated[int, Field(ge=1, le=1_000)] = 12
    """Residual blocks."""
    head_width: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Channels of an attention head; divides the width."""
    mlp_ratio: Ratio = 4.0
    """Hidden channels of the perceptron, as a multiple of the width (rounded down)."""
    ls_init_value: Annotated[float, Field(gt=0)] | None = None
    """Initial LayerScale of each residual branch; no LayerScale where null."""
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the patches that training leaves out at random (Li et al. 2023)."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    """Activation of the perceptron. OpenAI's weights and some others were trained with quick_gelu."""
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Epsilon of the layer norms."""
    block: BlockConfig = BlockConfig()
    """Norms and scales inside the residual blocks."""
    ln_pre: bool = True
    """Layer norm before the blocks."""
    pos_embed: Literal["learnable", "sin_cos_2d"] = "learnable"
    """Positions: learned, or fixed sines and cosines of row and column (Chen et al. 2021, MoCo v3)."""
    pool_type: PoolType = "tok"
    """The feature: the class token (`tok`), or the mean of the patches (`avg`). After `attentional_pool: single`
    the first query stands for the class token, the others for the patches."""
    final_ln_after_pool: bool = False
    """Norm the pooled token alone, instead of all tokens before."""
    attentional_pool: AttentionalPool | None = None
    """Let learned queries attend to the tokens (Yu et al. 2022, CoCa), and pool what comes out (`single`, as CoCa's
    weights do); or read the feature with one query more, from the tokens (`parallel`) or from what the others gave
    (`cascade`)."""
    attn_pooler_queries: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Number of learned queries."""
    attn_pooler_heads: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Attention heads of the learned queries; divides embed_dim."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold patches to the image, heads to the width, and options to those that they need."""
        yield from super().rules()
        for side, image, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            if image % patch:
                yield "patch_size", f"{patch} does not divide the image {side} {image}"
        if self.width % self.head_width:
            yield "head_width", f"{self.head_width} does not divide the width {self.width}"
        if self.pos_embed == "sin_cos_2d" and self.width % 4:
            yield "pos_embed", f"'sin_cos_2d' needs a width that 4 divides, found {self.width}"
        if self.attentional_pool is None:
            for key in ("attn_pooler_queries", "attn_pooler_heads"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield key, "there is no attentional_pool; set attentional_pool: single, or leave it out"
            return
        if self.final_ln_after_pool:
            yield "final_ln_after_pool", "attentional_pool has a place of its own for the norm; leave this out"
        if self.attentional_pool != "single" and self.pool_type != "tok":
            yield (
                "pool_type",
                f"attentional_pool '{self.attentional_pool}' reads the feature with a query of its own; leave this out",
            )
        if self.pool_type == "avg" and self.attn_pooler_queries == 1:
            yield "attn_pooler_queries", "pool_type 'avg' is the mean of all queries but the first: give it at least 2"

    def rules_for(self, embed_dim: int) -> Iterator[tuple[str, str]]:
        """Hold the heads of the learned queries to the embedding, which is as wide as the queries."""
        if self.attentional_pool is not None and embed_dim % self.attn_pooler_heads:
            yield "attn_pooler_heads", f"{self.attn_pooler_heads} does not divide embed_dim = {embed_dim}"

    def token_width(self, embed_dim: int) -> int:
        """Return the channels of the patches, or of what the attentional pool makes of them."""
        return self.width if self.attentional_pool is None else embed_dim

    def parameter_count(self, embed_dim: int) -> int:
        """Return the exact number of parameters; positions that are not learned are none."""
        rows, columns = self.grid
        patches = 3 * self.patch_size[0] * self.patch_size[1] * self.width
        learned = rows * columns + 1 if self.pos_embed == "learnable" else 0
        stack = transformer_parameters(
            self.width,
            self.layers,
            self.width // self.head_width,
            self.mlp_ratio,
            layer_scale=self.ls_init_value is not None,
            block=self.block,
        )
        ln_pre = 2 * self.width if self.ln_pre else 0
        count = patches + (learned + 1) * self.width + ln_pre + stack
        # after the blocks
        pooled = self.width if self.attentional_pool is None else embed_dim
        normed = embed_dim if self.attentional_pool == "single" else self.width
        count += 2 * normed + pooled * embed_dim
        if self.attentional_pool is not None:
            count += attentional_pooler_parameters(embed_dim, self.width, self.attn_pooler_queries)
        if self.attentional_pool in ("parallel", "cascade"):
            context = self.width if self.attentional_pool == "parallel" else embed_dim
            count += attentional_pooler_parameters(embed_dim, context, queries=1)
        return count
