"""The text tower and tokenizer of open_clip's JSON as strict data.

The keys of three towers and three tokenizers stand side by side. open_clip ignores those that belong to another one,
and takes any unknown `text_arch` for CLIP's. Here a key of the other native tower is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from zoo_core.config import Config
from zoo_formats.openclip.json_stack import StackCfg

__all__ = ["ENCODINGS", "ModernKeys", "TextCfg", "vocabulary"]


class Vocabulary(NamedTuple):
    """The number of ids of a tokenizer and two of them; the number is None where `vocab_size` says it."""

    size: int | None
    pad_id: int
    eos_id: int


TOKENIZERS = {
    "bert-base-uncased": Vocabulary(30_522, 0, 102),
    "roberta-base": Vocabulary(50_265, 1, 2),
    "xlm-roberta-base": Vocabulary(250_002, 1, 2),
    "xlm-roberta-large": Vocabulary(250_002, 1, 2),
    "facebook/xlm-v-base": Vocabulary(None, 1, 2),
    "google/mt5-base": Vocabulary(250_100, 0, 1),
    "google/mt5-xl": Vocabulary(250_100, 0, 1),
    "facebook/nllb-200-distilled-600M": Vocabulary(256_204, 1, 2),
    "facebook/nllb-200-distilled-1.3B": Vocabulary(256_204, 1, 2),
    "Alibaba-NLP/gte-modernbert-base": Vocabulary(50_368, 50_283, 50_282),
}
"""What is in no file of open_clip, of Hugging Face tokenizers."""
SIGLIP = {"-SigLIP2": Vocabulary(None, 0, 1), "-SigLIP": Vocabulary(None, 1, 1)}
"""The same of the many repositories of one tokenizer, by a part of their names; the first that fits counts."""
ENCODINGS = {
    "gpt2": 50_257,
    "r50k_base": 50_257,
    "p50k_base": 50_281,
    "p50k_edit": 50_284,
    "cl100k_base": 100_277,
    "o200k_base": 200_019,
}
"""Ids of tiktoken's encodings, without the three that open_clip puts above them."""
POOLS = {"clip": ("argmax", "eos", "first", "last"), "modern": ("argmax", "eos", "map", "mean")}
CLIP_ONLY = (
    "act_kwargs",
    "norm_kwargs",
    "block_type",
    "scaled_cosine_attn",
    "scale_heads",
    "scale_attn_inner",
    "scale_attn",
    "scale_fc",
    "embed_cls",
    "no_causal_mask",
)
"""What the modern text transformer does not read."""


def vocabulary(tokenizer: str) -> Vocabulary | None:
    """Return what is known of a Hugging Face tokenizer."""
    families = (family for part, family in SIGLIP.items() if tokenizer.startswith("timm/ViT-") and part in tokenizer)
    return TOKENIZERS.get(tokenizer.removeprefix("FacebookAI/")) or next(families, None)


class ModernKeys(Config):
    """What only the modern text transformer of the development branch reads."""

    attention_mode: Literal["causal", "bidirectional"] = "causal"
    pos_embed: Literal["", "none", "rope"] = "rope"
    rope_temperature: float = 10_000.0
    mlp_type: Literal["mlp", "relu2", "swiglu"] = "swiglu"
    norm_type: Literal["layernorm", "rmsnorm"] | None = None
    norm_eps: float = 1e-6
    attn_gated: bool = False
    pre_norm: bool = False
    norm_placement: Literal["pre", "sandwich"] = "pre"
    zero_init_residual: bool = False
    reg_tokens: int = 0
    value_residual: bool = False
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    gate_bias: bool | None = None


class TextCfg(StackCfg, ModernKeys):
    """CLIP's text transformer, the modern one, or a Hugging Face encoder where one is named; and its tokenizer."""

    other_names: ClassVar[Mapping[str, str]] = {"proj": "hf_proj_type", "pooler_type": "hf_pooler_type"}
    """What open_clip called these in its first configs of such encoders."""

    text_arch: Literal["clip", "modern"] = "clip"

    context_length: int = 77
    variable_text: bool = False
    vocab_size: int = 49_408
    hf_tokenizer_name: str | None = None
    tokenizer_type: Literal["", "tiktoken"] = ""
    tiktoken_name: str = "cl100k_base"
    tokenizer_mode: Literal["", "clips"] | None = None
    tokenizer_kwargs: dict[str, Any] | None = None
    width: int = 512
    heads: int = 8
    layers: int = 12
    embed_cls: bool = False
    pad_id: int = 0
    bos_id: int | None = None
    eos_id: int | None = None
    no_causal_mask: bool = False
    final_ln_after_pool: bool = False
    pool_type: Literal["argmax", "eos", "first", "last", "map", "mean"] = "argmax"
    proj_type: Literal["linear", "none"] = "linear"
    proj_bias: bool = False
    hf_model_name: str | None = None
    hf_model_pretrained: bool = True
    hf_model_config: dict[str, Any] | None = None
    hf_proj_type: Literal["linear", "mlp"] | None = "mlp"
    hf_pooler_type: Literal["mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler"] = "mean_pooler"

    @property
    def kind(self) -> Literal["clip", "hf", "modern"]:
        """Which tower this is."""
        return "hf" if self.hf_model_name else self.text_arch

    @property
    def tiktoken_ids(self) -> dict[str, int]:
        """The ids above those of the encoding, by their keys here; the last is the largest."""
        first = ENCODINGS[self.tiktoken_name]
        return {"eos_id": first, "pad_id": first + 1, "bos_id": first + 2}

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold towers to what they read, and tokenizers to their options."""
        yield from super().rules()
        yield from self._tower_rules()
        tiktoken = self.tokenizer_type == "tiktoken"
        options = {"add_bos", "add_eos"} if tiktoken else {"strip_sep_token", "language"}
        allowed = {"clean"} | (options if tiktoken or self.hf_tokenizer_name else set())
        for key in sorted((self.tokenizer_kwargs or {}).keys() - allowed):
            yield f"tokenizer_kwargs.{key}", f"cannot be expressed; allowed: {', '.join(sorted(allowed))}"
        if not tiktoken:
            return
        if self.hf_tokenizer_name:
            yield "hf_tokenizer_name", "tokenizer_type 'tiktoken' leaves it unread; leave one of them out"
        if self.tiktoken_name not in ENCODINGS:
            names = ", ".join(ENCODINGS)
            yield "tiktoken_name", f"the size of {self.tiktoken_name!r} is in no config of open_clip; known: {names}"
            return
        for key, token_id in self.tiktoken_ids.items():
            if key in self.model_fields_set and getattr(self, key) not in (None, token_id):
                yield key, f"{getattr(self, key)} is not the one of {self.tiktoken_name}, which is {token_id}"

    def _tower_rules(self) -> Iterator[tuple[str, str]]:
        """Refuse what was meant for the other of the two native towers: open_clip would ignore it in silence."""
        if self.hf_model_name and self.text_arch == "modern":
            yield "text_arch", "'modern' is no Hugging Face encoder, and hf_model_name names one; leave one of them out"
        if self.kind == "hf":
            return
        allowed = POOLS[self.kind]
        if self.pool_type not in allowed:
            choice = ", ".join(allowed)
            yield "pool_type", f"'{self.pool_type}' is not known to text_arch '{self.kind}' (allowed: {choice})"
        others = CLIP_ONLY if self.kind == "modern" else tuple(ModernKeys.model_fields)
        for key in others:
            if getattr(self, key) != type(self).model_fields[key].default:
                other = "clip" if self.kind == "modern" else "modern"
                yield key, f"open_clip reads it with text_arch '{other}' only, and this is '{self.kind}'; leave it out"
        if self.kind == "modern" and self.pool_type in ("argmax", "eos") and self.eos_id is None:
            yield "eos_id", f"pool_type '{self.pool_type}' of text_arch 'modern' needs the id of the end-of-text token"
