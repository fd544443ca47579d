"""Parameter counts by arithmetic.

A config can be refused by its size before anything is allocated.
"""

from zoo_core.config.block import BlockConfig


def transformer_parameters(
    width: int,
    layers: int,
    heads: int,
    mlp_ratio: float,
    *,
    layer_scale: bool = False,
    block: BlockConfig | None = None,
) -> int:
    """Return the number of parameters of a `zoo_core.nn.transformer.Transformer`."""
    hidden = int(width * mlp_ratio)
    attention = 4 * width * width + 4 * width
    perceptron = 2 * width * hidden + hidden + width
    norms = 4 * width
    scales = 2 * width if layer_scale else 0
    chosen = block or BlockConfig()
    options = sum(
        (
            4 * (width // heads) * chosen.qk_norm,
            heads * chosen.scaled_cosine,
            heads * chosen.scale_heads,
            2 * width * chosen.scale_attn_inner,
            2 * width * chosen.scale_attn,
            2 * hidden * chosen.scale_fc,
        )
    )
    return layers * (attention + perceptron + norms + scales + options)


def attentional_pooler_parameters(width: int, context_width: int, queries: int) -> int:
    """Return the number of parameters of a `zoo_core.nn.pooling.AttentionalPooler`."""
    projections = 2 * width * width + 2 * width * context_width + 4 * width
    norms = 2 * width + 2 * context_width
    return queries * width + projections + norms
