"""Files of the tokenizer in the folder of a model.

CLIP's byte pairs ship with their plugin and need none. A tokenizer of the Hub is loaded from here, and its config still
says which repository it came from; one of a folder says no more of that folder.
"""

from __future__ import annotations

from pathlib import Path

from zoo.checkpoints.open import checkpoint_formats
from zoo.saved.read import SavedModel
from zoo_core.config import TOKENIZER_FOLDER, TokenizerConfig
from zoo_core.errors import PluginError
from zoo_core.text.tokenizer import Tokenizer

__all__ = ["read_foreign_tokenizer", "read_tokenizer", "write_tokenizer"]


def write_tokenizer(tokenizer: Tokenizer | None, folder: Path) -> None:
    """Write the files of a tokenizer into the folder of a model.

    Raises:
        ZooError: they are not to be had here.
        PluginError: a name is not that of a file.
    """
    if tokenizer is None:
        return
    for name, content in tokenizer.files().items():
        if Path(name).name != name:
            raise PluginError(f"{type(tokenizer).__name__}: files() gives base names, found {name!r}")
        (folder / TOKENIZER_FOLDER).mkdir(exist_ok=True)
        (folder / TOKENIZER_FOLDER / name).write_bytes(content)


def read_tokenizer(tokenizer: Tokenizer | None, saved: SavedModel) -> None:
    """Have a tokenizer take its files from the folder of a saved model, where `zoo.json` says that some were saved.

    One that names a folder takes them from there too: it is that of the model, whatever the current folder holds.
    """
    if tokenizer is None:
        return
    config = getattr(tokenizer, "config", None)
    named = isinstance(config, TokenizerConfig) and any(config.local_paths())
    if named or any(name.startswith(f"{TOKENIZER_FOLDER}/") for name in saved.manifest.files):
        tokenizer.use_files(saved.folder.absolute() / TOKENIZER_FOLDER)


def read_foreign_tokenizer(tokenizer: Tokenizer | None, folder: Path) -> None:
    """Have a tokenizer take its files from the folder of another library, where that holds them."""
    if tokenizer is not None and any(format.holds_tokenizer(folder) for _, format in checkpoint_formats()):
        tokenizer.use_files(folder.absolute())
