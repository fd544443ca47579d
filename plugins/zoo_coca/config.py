"""Configs of CoCa: the architecture, and how captions are searched for.

There is no width of the image tokens and no vocabulary of the decoder to set: both follow from the towers.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from zoo_core.config import Config, Ratio, TextTowerConfig, VisionTowerConfig
from zoo_core.config.dual_encoder import DualEncoderConfig
from zoo_core.config.parameter_counts import transformer_parameters


class MultimodalConfig(Config):
    """The decoder: blocks over the caption, each followed by one that looks at the image."""

    width: Annotated[int, Field(ge=1, le=65_536)] = 512
    """Channels; those of the tokens of both towers."""
    heads: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Attention heads; divides the width."""
    layers: Annotated[int, Field(ge=1, le=1_000)] = 12
    """Pairs of blocks."""
    mlp_ratio: Ratio = 4.0
    """Hidden channels of the perceptron, as a multiple of the width (rounded down)."""
    ls_init_value: Annotated[float, Field(gt=0)] | None = None
    """Initial LayerScale of each residual branch; no LayerScale where null."""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    """Activation of the perceptron."""
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Epsilon of the layer norms."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold heads to the width."""
        yield from super().rules()
        if self.width % self.heads:
            yield "heads", f"{self.heads} does not divide the width {self.width}"

    def parameter_count(self, vocab_size: int) -> int:
        """Return the exact number of parameters."""
        blocks = transformer_parameters(
            self.width, 2 * self.layers, self.heads, self.mlp_ratio, layer_scale=self.ls_init_value is not None
        )
        norms = 2 * self.width * (self.layers + 1)
        return blocks + norms + self.width * vocab_size


class CocaConfig(DualEncoderConfig):
    """A dual encoder whose tokens a decoder turns into captions (Yu et al. 2022)."""

    model: str = "coca"
    multimodal: MultimodalConfig = MultimodalConfig()
    """The decoder."""
    text_sees_ahead: bool = False
    """Accept a text tower whose tokens depend on later ones, as coca_roberta's do. Its features are right, but the
    decoder is shown what it has to predict: its caption loss teaches little, and it cannot write captions."""

    def own_parameter_count(self) -> int:
        """Count the decoder too."""
        return super().own_parameter_count() + self.multimodal.parameter_count(self.text.vocab_size)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the tokens of both towers to what the decoder takes."""
        yield from super().rules()
        yield from decoder_rules(self.multimodal, self.vision, self.text, self.embed_dim, self.text_sees_ahead)


def decoder_rules(
    decoder: MultimodalConfig, vision: VisionTowerConfig, text: TextTowerConfig, embed_dim: int, text_sees_ahead: bool
) -> Iterator[tuple[str, str]]:
    """Yield `(key, what is wrong with it)` for each reason that a decoder cannot take the tokens of two towers."""
    for key, config in (("vision", vision), ("text", text)):
        width = config.token_width(embed_dim)
        if width is None:
            yield f"{key}.tower", f"'{config.tower}' does not give the decoder its tokens; choose one that does"
        elif width != decoder.width:
            yield "multimodal.width", f"{decoder.width} is not the width {width} of the {key} tokens"
    ahead = not text.supports_kv_cache()
    if text.token_width(embed_dim) is not None and ahead and not text_sees_ahead:
        yield (
            "text",
            f"tokens of '{text.tower}' depend on later ones, and would show the decoder what it has to "
            "predict; make the tower causal, or set text_sees_ahead: true to have it all the same",
        )
    if text_sees_ahead and not ahead:
        yield "text_sees_ahead", f"tokens of '{text.tower}' do not depend on later ones; leave it out"


Strategy = Literal["greedy", "beam", "top_k", "top_p"]

_STRATEGIES: dict[Strategy, frozenset[str]] = {
    "greedy": frozenset(),
    "beam": frozenset({"num_beams", "num_beam_groups", "diversity_penalty", "length_penalty"}),
    "top_k": frozenset({"temperature", "top_k"}),
    "top_p": frozenset({"temperature", "top_p"}),
}
"""Options that belong to some strategies only."""


class GenerationConfig(Config):
    """How captions are searched for. Lengths count every id of a row: the start, a prompt and the end."""

    strategy: Strategy = "beam"
    """`greedy` takes the most probable token, `beam` looks for the most probable caption, `top_k` and `top_p` draw
    from the most probable tokens."""
    max_length: Annotated[int, Field(ge=2)] = 30
    """Most ids of a row; a caption that has not ended by then is cut."""
    min_length: Annotated[int, Field(ge=0)] = 5
    """Fewest ids before the end of text."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logits before drawing."""
    top_k: Annotated[int, Field(ge=1)] = 50
    """How many tokens are drawn from."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Draw from the fewest tokens whose probabilities add up to this (Holtzman et al. 2020)."""
    num_beams: Annotated[int, Field(ge=1, le=1_000)] = 6
    """Captions kept at a time. The search of an image ends when so many have ended."""
    num_beam_groups: Annotated[int, Field(ge=1)] = 1
    """Groups of beams that each keep away from the tokens of those before (Vijayakumar et al. 2018)."""
    diversity_penalty: Annotated[float, Field(ge=0)] = 0.5
    """Taken from the log-probability of a token for each beam of an earlier group that just chose it."""
    length_penalty: float = 1.0
    """Captions are compared by log-probability over (ids after the prompt) to this power."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Divides positive and multiplies negative logits of ids that the row already holds (Keskar et al. 2019)."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold lengths and groups together, and options to their strategy."""
        yield from super().rules()
        if self.min_length >= self.max_length:
            yield "min_length", f"{self.min_length} is not below max_length = {self.max_length}"
        if self.num_beams % self.num_beam_groups:
            yield "num_beam_groups", f"{self.num_beam_groups} does not divide num_beams = {self.num_beams}"
        options = self.model_fields_set
        if "diversity_penalty" in options and self.num_beam_groups == 1 and self.strategy == "beam":
            yield "diversity_penalty", "there is one group of beams; set num_beam_groups, or leave it out"
        unread = frozenset[str]().union(*_STRATEGIES.values()) - _STRATEGIES[self.strategy]
        for option in sorted(options & unread):
            takers = " and ".join(repr(name) for name, options in _STRATEGIES.items() if option in options)
            yield option, f"strategy '{self.strategy}' does not read it, only {takers}; leave it out"
