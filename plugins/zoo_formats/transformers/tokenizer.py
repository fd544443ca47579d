"""The tokenizer of a folder of transformers.

The folder's own files give the ids that transformers gives, and nothing is cleaned before them. How captions were
cleaned in training is a step of the tokenizer there, and another one in each family: SigLIP's drops punctuation, SigLIP
2's makes lower case and no more. A control token that a caption spells out becomes its id, unless the files say
`split_special_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_core.documents import TOKENIZER_CONFIG
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError

__all__ = ["folder_tokenizer", "holds_vocabulary"]

CONFIG = "tokenizer_config.json"
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


def holds_vocabulary(folder: Path) -> bool:
    """Tell whether a folder holds a tokenizer."""
    return any((folder / name).is_file() for name in VOCABULARIES)


def folder_tokenizer(folder: Path, vocab_size: int, row: int = 0) -> Mapping[str, Any]:
    """Return the `tokenizer` section of the tokenizer of a folder.

    Args:
        folder: of a model.
        vocab_size: of its tower.
        row: ids that the tower reads of every caption, padding included; 0 where padding does not count.

    Raises:
        ConfigError: its config cannot be read, or pads rows on the left or to fewer ids, which changes every feature.
    """
    path = folder / CONFIG
    document = read_json(path, TOKENIZER_CONFIG) if path.is_file() else None
    values = document.data if document else {}
    if document and values.get("padding_side") == "left":
        message = "pads rows on the left, and they are padded on the right here; set it to 'right' if the model was"
        raise ConfigError(document.mark(("padding_side",)).problem(f"{message} trained so", "padding_side"))
    most = values.get("model_max_length")
    if document and isinstance(most, int | float) and most < row:
        message = (
            f"pads rows to {most:g} ids, and the tower reads {row} here; set it to {row} if the model was trained so"
        )
        raise ConfigError(document.mark(("model_max_length",)).problem(message, "model_max_length"))
    return {
        "type": "hf",
        "name": str(folder.resolve()),
        "vocab_size": vocab_size,
        "cleaning": "none",
        "special_tokens_in_text": not values.get("split_special_tokens", False),
    }
