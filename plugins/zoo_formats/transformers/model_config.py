"""The config.json of transformers' CLIP and SigLIP as strict data.

A key that is missing has the default of transformers, which for CLIP is quick_gelu. Files of old versions carry some
sixty keys of text generation, which neither model reads; they are named here and passed over. Any other key that is
unknown is refused, as what it stands for would be ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from zoo_core.config import Config
from zoo_core.documents import ENCODER_CONFIG, Document
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError, describe

__all__ = [
    "ACTIVATIONS",
    "ClipFile",
    "ClipTextCfg",
    "ClipVisionCfg",
    "Json",
    "Siglip2File",
    "Siglip2VisionCfg",
    "SiglipFile",
    "SiglipTextCfg",
    "SiglipVisionCfg",
    "StackCfg",
    "as_json",
    "document_of",
    "parsed",
    "ratio",
]

Json = dict[str, Any]
Kind = TypeVar("Kind", bound=Config)
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Activation = Literal["quick_gelu", "gelu", "gelu_pytorch_tanh"]
Epsilon = Annotated[float, Field(gt=0, le=1)]

ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
"""Their names of activations, and ours."""

_PASSED_OVER = """
    _commit_hash _name_or_path add_cross_attention architectures attn_implementation _attn_implementation_autoset
    bad_words_ids begin_suppress_tokens chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dropout dtype early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label initializer_factor
    initializer_range is_decoder is_encoder_decoder label2id length_penalty max_length min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states
    output_scores prefix problem_type pruned_heads remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version
    transformers.js_config typical_p use_bfloat16
"""
PASSED_OVER = frozenset(_PASSED_OVER.split())
"""Keys without an influence on features: how models are initialised, and how other models generate text."""


class StackCfg(Config):
    """What towers of both families name alike."""

    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count = 12
    num_attention_heads: Count
    hidden_act: Activation
    layer_norm_eps: Epsilon
    attention_dropout: float = 0.0

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse dropout, which our attention has not."""
        yield from super().rules()
        if self.attention_dropout:
            yield "attention_dropout", f"cannot be expressed; set it to 0.0, found {self.attention_dropout:g}"
        if self.hidden_size % self.num_attention_heads:
            yield "num_attention_heads", f"{self.num_attention_heads} does not divide hidden_size {self.hidden_size}"

    def stack(self) -> Json:
        """Return what a tower of ours says of its blocks, but for their heads."""
        return {
            "width": self.hidden_size,
            "layers": self.num_hidden_layers,
            "mlp_ratio": ratio(self.hidden_size, self.intermediate_size),
            "activation": ACTIVATIONS[self.hidden_act],
            "norm_eps": self.layer_norm_eps,
        }


class _TextCfg(StackCfg):
    vocab_size: Count
    max_position_embeddings: Count
    pad_token_id: int | None = 1
    bos_token_id: int | None = 49_406


class ClipTextCfg(_TextCfg):
    """CLIP's text tower."""

    hidden_size: Count = 512
    intermediate_size: Count = 2048
    num_attention_heads: Count = 8
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    vocab_size: Count = 49_408
    max_position_embeddings: Count = 77
    eos_token_id: int = 49_407
    projection_dim: Count = 512

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the end of text, where features are read, to the vocabulary."""
        yield from super().rules()
        if not 0 <= self.eos_token_id < self.vocab_size:
            yield (
                "eos_token_id",
                f"{self.eos_token_id} is not in the vocabulary, whose ids run from 0 to {self.vocab_size - 1}; "
                "transformers would read every feature at the first token",
            )


class ClipVisionCfg(StackCfg):
    """CLIP's image tower."""

    hidden_size: Count = 768
    intermediate_size: Count = 3072
    num_attention_heads: Count = 12
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    image_size: Count = 224
    patch_size: Count = 32
    num_channels: Literal[3] = 3
    projection_dim: Count = 512


class _SiglipStackCfg(StackCfg):
    hidden_size: Count = 768
    intermediate_size: Count = 3072
    num_attention_heads: Count = 12
    hidden_act: Activation = "gelu_pytorch_tanh"
    layer_norm_eps: Epsilon = 1e-6


class SiglipTextCfg(_SiglipStackCfg, _TextCfg):
    """SigLIP's text tower; its special tokens are those of its tokenizer, whatever these say."""

    vocab_size: Count = 32_000
    max_position_embeddings: Count = 64
    eos_token_id: int | list[int] | None = 49_407
    projection_size: Count | None = None


class _SiglipImageCfg(_SiglipStackCfg):
    patch_size: Count = 16
    num_channels: Literal[3] = 3
    vision_use_head: bool = True

    def rules(self) -> Iterator[tuple[str, str]]:
        """Refuse a tower without a head."""
        yield from super().rules()
        if not self.vision_use_head:
            yield (
                "vision_use_head",
                "without its pooling head the tower gives tokens and no feature of an image; take the folder of the "
                "model that it was cut out of",
            )


class SiglipVisionCfg(_SiglipImageCfg):
    """SigLIP's image tower."""

    image_size: Count = 224


class Siglip2VisionCfg(_SiglipImageCfg):
    """SigLIP 2's image tower for any aspect ratio: its positions are a square of patches that is resampled."""

    num_patches: Count = 256

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the positions to a square."""
        yield from super().rules()
        if math.isqrt(self.num_patches) ** 2 != self.num_patches:
            yield "num_patches", f"{self.num_patches} patches are no square"


class ClipFile(Config):
    """A `config.json` of `CLIPModel`."""

    text_config: ClipTextCfg = ClipTextCfg()
    vision_config: ClipVisionCfg = ClipVisionCfg()
    projection_dim: Count = 512
    logit_scale_init_value: float = 2.6592


class SiglipFile(Config):
    """A `config.json` of `SiglipModel`."""

    text_config: SiglipTextCfg = SiglipTextCfg()
    vision_config: SiglipVisionCfg = SiglipVisionCfg()


class Siglip2File(Config):
    """A `config.json` of `Siglip2Model`."""

    text_config: SiglipTextCfg = SiglipTextCfg()
    vision_config: Siglip2VisionCfg = Siglip2VisionCfg()


def document_of(folder: Path, model_types: tuple[str, ...]) -> Document | None:
    """Return the `config.json` of a folder, if it is of one of some kinds of models.

    Raises:
        ConfigError: it is of a classifier, which reads its images' features elsewhere.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    document = read_json(path, ENCODER_CONFIG)
    if document.data.get("model_type") not in model_types:
        return None
    named = document.data.get("architectures")
    if "ForImageClassification" in str(named):
        message = (
            f"{describe(named)} sorts images into classes of its own, by other features than those of captions; "
            "take the folder of the model that it was made of"
        )
        raise ConfigError(document.mark(("architectures",)).problem(message, "architectures"))
    return document


def parsed(kind: type[Kind], document: Document) -> Kind:
    """Return a file as strict data.

    Raises:
        ConfigError: keys are unknown or cannot be expressed; all are listed, each with its line.
    """
    try:
        return kind.parse(_essential(document.data))
    except ConfigError as error:
        raise document.locate(error) from None


def _essential(data: Mapping[str, Any]) -> Json:
    """Return a file without what has no influence; a section `..._dict` of old files stands for the section itself."""
    essential = {key: value for key, value in data.items() if key not in PASSED_OVER}
    for section in ("text_config", "vision_config"):
        older = essential.pop(f"{section}_dict", None)
        keys = older if older is not None else essential.get(section)
        if keys is None:
            essential.pop(section, None)
        else:
            essential[section] = _essential(keys) if isinstance(keys, Mapping) else keys
    return essential


def ratio(width: int, hidden: int) -> float:
    """Return a short number whose product with the width, rounded down, is `hidden`.

    It has four digits or fewer than three, as in the configs of the field: 4, 2.5, 3.7362.
    """
    for digits in (0, 1, 2, *range(4, 16)):
        rounded = math.ceil(hidden / width * 10**digits) / 10**digits
        if int(width * rounded) == hidden:
            return rounded
    return hidden / width


def as_json(data: Mapping[str, Any]) -> bytes:
    """Return the text of a JSON file."""
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()
