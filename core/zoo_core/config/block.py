"""Options of a residual block: the section `block` of a tower's config.

Each is off by default: the plain block is the one of Radford et al. 2021. `zoo_core.nn.transformer` builds them.
"""

from collections.abc import Iterator

from zoo_core.config import Config


class BlockConfig(Config):
    """Norms and learned scales inside a residual block."""

    qk_norm: bool = False
    """Layer norm of each head's queries and keys (Henry et al. 2020)."""
    scaled_cosine: bool = False
    """Attend by cosine times a learned scale of at most 100 for each head (Liu et al. 2022, Swin V2)."""
    scale_heads: bool = False
    """A learned factor for each head's output (Shleifer et al. 2021, NormFormer)."""
    scale_attn_inner: bool = False
    """Layer norm between the heads and the output projection (Wang et al. 2022, Sub-LN)."""
    scale_attn: bool = False
    """Layer norm after the attention (NormFormer)."""
    scale_fc: bool = False
    """Layer norm inside the perceptron, after its activation (NormFormer)."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse two norms of queries and keys at once."""
        yield from super().rules()
        if self.qk_norm and self.scaled_cosine:
            yield "qk_norm", "scaled_cosine already brings queries and keys to unit length; choose one of the two"
