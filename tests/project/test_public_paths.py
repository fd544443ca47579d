"""The import paths that authors of plugins were promised, and the names that stand there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

PROMISED = {
    "zoo_core.checkpoints": "CheckpointFormat Conversion ConvertedSource ITEM_SIZES TensorInfo TensorSource",
    "zoo_core.config": (
        "CheckpointFormatConfig ComponentConfig Config EmbedDim LossConfig ModelConfig PreprocessConfig ProcessorConfig "
        "Ratio Section Size TOKENIZER_FOLDER TextTowerConfig TokenIds TokenizerConfig TowerConfig VisionTowerConfig"
    ),
    "zoo_core.errors": (
        "AmbiguousNameError CapabilityError CheckpointError ConfigError DownloadError ImageFileError InputError "
        "MismatchError MissingDependencyError NotFiniteError PluginError Problem SaveError SlowDtypeWarning "
        "TruncatedTextWarning UnknownNameError ZooError ZooWarning describe did_you_mean one_of reason"
    ),
    "zoo_core.images": "ImageLike MAX_PIXELS Preprocessor",
    "zoo_core.interfaces": "LayerGroup Loss TextTower Tower VisionTower",
    "zoo_core.models.modality": "Modality Processor",
    "zoo_core.plugin": "API_VERSION CAPABILITIES Capability ComponentSpec KINDS Kind ModalitySpec hookimpl",
    "zoo_core.registry": "Component Plugin Registry default_registry",
    "zoo_core.testing": "BrokenPromiseError HEAVY check_component check_config check_plugin",
}
"""Module -> the names that stay there from one release to the next; a module may offer more."""


@pytest.mark.parametrize(("module", "names"), PROMISED.items(), ids=PROMISED)
def test_promised_names_stand_at_their_import_paths(module: str, names: str) -> None:
    offered = importlib.import_module(module)
    assert set(names.split()) <= set(offered.__all__)
    assert [name for name in offered.__all__ if not hasattr(offered, name)] == []


GUIDES = [*DOCS.glob("write-a-*.md"), *(DOCS / "examples").rglob("*.py")]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_what_a_guide_imports_is_promised(guide: Path) -> None:
    imports = re.findall(r"^from (zoo_core[\w.]*) import (.+)$", guide.read_text(), flags=re.MULTILINE)
    for module, names in imports:
        assert set(names.split(", ")) <= set(PROMISED.get(module, "").split()), module
