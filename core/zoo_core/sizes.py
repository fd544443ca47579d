"""Parameter counts by arithmetic, so that a config can be refused before anything is allocated (no torch here)."""


def transformer_parameters(width: int, layers: int, mlp_ratio: float, *, layer_scale: bool = False) -> int:
    """Return the number of parameters of a `zoo_core.transformer.Transformer`."""
    hidden = int(width * mlp_ratio)
    attention = 4 * width * width + 4 * width
    perceptron = 2 * width * hidden + hidden + width
    norms = 4 * width
    return layers * (attention + perceptron + norms + (2 * width if layer_scale else 0))
