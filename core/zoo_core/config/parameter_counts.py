"""Parameter counts by arithmetic, so that a config can be refused before anything is allocated (no torch here)."""

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
    options = _block_options(block or BlockConfig(), width, heads, hidden)
    return layers * (attention + perceptron + norms + scales + options)


def _block_options(block: BlockConfig, width: int, heads: int, hidden: int) -> int:
    return sum(
        (
            4 * (width // heads) * block.qk_norm,
            heads * block.scaled_cosine,
            heads * block.scale_heads,
            2 * width * block.scale_attn_inner,
            2 * width * block.scale_attn,
            2 * hidden * block.scale_fc,
        )
    )


def attentional_pooler_parameters(width: int, context_width: int, queries: int) -> int:
    """Return the number of parameters of a `zoo_core.nn.pooling.AttentionalPooler`."""
    projections = 2 * width * width + 2 * width * context_width + 4 * width
    norms = 2 * width + 2 * context_width
    return queries * width + projections + norms
