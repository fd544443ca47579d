"""Config of CLIP's text transformer; that of its tokenizer is beside it under one roof for the plugin's specs."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from zoo_core.config import Ratio, TextTowerConfig
from zoo_core.sizes import transformer_parameters
from zoo_text.tokenizer_config import ClipBpeConfig

__all__ = ["ClipBpeConfig", "ClipTextConfig"]


class ClipTextConfig(TextTowerConfig):
    """A causal transformer over token ids, pooled at the largest id of each row and projected."""

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
    pool_type: Literal["argmax"] = "argmax"
    """Where the feature is read: `argmax` is the first position of the largest id, which is the end-of-text token."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold heads to the width."""
        yield from super().rules()
        if self.width % self.heads:
            yield "heads", f"{self.heads} does not divide the width {self.width}"

    def parameter_count(self, embed_dim: int) -> int:
        """Return the exact number of parameters."""
        embeddings = (self.vocab_size + self.context_length) * self.width
        stack = transformer_parameters(
            self.width, self.layers, self.mlp_ratio, layer_scale=self.ls_init_value is not None
        )
        return embeddings + stack + 2 * self.width + self.width * embed_dim
