"""Sizes of Hugging Face encoders and tokenizers.

No file of open_clip states them: open_clip loads both with transformers. Here a table has those of its own configs, and
a JSON file of each other is read: from a folder (`./bert`, `/models/bert`), or from the Hub and its cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from zoo_core.documents import ENCODER_CONFIG, Bounds
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError, Problem
from zoo_core.hub.files import NoSuchFileError, hub_file

__all__ = ["encoder_size", "tokenizer_size"]

ENCODERS = {
    "roberta-base": 50_265,
    "xlm-roberta-base": 250_002,
    "xlm-roberta-large": 250_002,
    "google/mt5-base": 250_112,
    "google/mt5-xl": 250_112,
    "facebook/nllb-200-distilled-600M": 256_206,
    "facebook/nllb-200-distilled-1.3B": 256_206,
    "Alibaba-NLP/gte-modernbert-base": 50_368,
}
"""Token embeddings of the encoders of open_clip's own configs, which are thus read without a network."""
_STATED = {
    "config.json": "text_cfg: {hf_model_config: {vocab_size: ...}}",
    "tokenizer.json": "text_cfg: {vocab_size: ...}",
    "vocab.txt": "text_cfg: {vocab_size: ...}",
}
VOCABULARY = Bounds(bytes=64 * 2**20, values=4_000_000)


def encoder_size(name: str, own: Mapping[str, Any]) -> int:
    """Return the number of token embeddings of an encoder.

    Args:
        name: a repository of the Hub, or a folder.
        own: what open_clip's config says of the encoder's (`hf_model_config`).

    Raises:
        ConfigError: there is no such folder, or its config states no size.
        DownloadError: the Hub's file cannot be had.
    """
    size: Any = own.get("vocab_size", ENCODERS.get(name.removeprefix("FacebookAI/")))
    if size is None:
        path = _file(name, "config.json")
        size = None if path is None else read_json(path, ENCODER_CONFIG).data.get("vocab_size")
    if isinstance(size, bool) or not isinstance(size, int):
        message = f"'{name}' has no config.json with a vocab_size; state it in hf_model_config: {{vocab_size: ...}}"
        raise ConfigError(Problem(message, "text_cfg.hf_model_name"))
    return size


def tokenizer_size(name: str) -> int | None:
    """Return the largest id of a tokenizer plus one; None where its `tokenizer.json` does not tell, or is not there.

    Raises:
        ConfigError: the file cannot be read, or there is no such folder.
        DownloadError: the Hub's file cannot be had.
    """
    path = _file(name, "tokenizer.json")
    if path is None:
        path = _file(name, "vocab.txt")
        return None if path is None else len(path.read_bytes().splitlines())
    data: Any = read_json(path, VOCABULARY).data
    try:
        vocabulary: Any = data["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return 1 + max([*cast("Any", ids), *(token["id"] for token in data.get("added_tokens", ()))])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _file(name: str, file: str) -> Path | None:
    """Return the path of a file of a folder or repository; None where it has none of this name."""
    if name.startswith((".", "/", "~")):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ConfigError(Problem(f"'{name}': there is no such folder", "text_cfg"))
        return folder / file if (folder / file).is_file() else None
    folder = f"./{name.rpartition('/')[2]}"
    fix = f"name a folder that holds it, such as {folder}, or state the size that it tells: {_STATED[file]}"
    try:
        return hub_file(name, file, fix=fix).path
    except NoSuchFileError:
        return None
