"""Folders that zoo 0.1.0 saved: models with their probes, sets of embeddings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.testing import assert_close

import zoo
from support.models.tiny_architectures import CLIP
from support.saved_by_0_1_0.write import CAPTIONS, gradient
from zoo.cli.app import main
from zoo.saved.read import open_saved

FOLDER = Path(__file__).parents[2] / "support" / "saved_by_0_1_0"
MODELS = ["clip", "coca", "custom-text-clip"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no environment be known, so that every probe is compared."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))


def recorded(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / "features.json").read_text())[name]


def test_the_folders_are_of_the_first_version() -> None:
    for name in MODELS:
        assert json.loads((FOLDER / name / "zoo.json").read_text())["versions"]["zoo"] == "0.1.0"


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_0_1_0_saved_loads_verifies_and_gives_its_features(name: str) -> None:
    findings = zoo.verify(FOLDER / name)
    assert {"config.yaml", "model.safetensors", "text tower"} <= {finding.part for finding in findings}
    assert all(finding.ok for finding in findings)
    model = zoo.load(FOLDER / name, verify=True, probe=True)
    features = {
        "image": model.encode_image(gradient()),
        "text": model.encode_text(CAPTIONS),
        "probabilities": model.probabilities(gradient(), CAPTIONS),
    }
    for key, expected in recorded(name).items():
        assert_close(features[key], torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_0_1_0_saved_keeps_its_weights_and_config_when_it_is_saved_anew(name: str, tmp_path: Path) -> None:
    model = zoo.load(FOLDER / name)
    again = zoo.load(zoo.save(model, tmp_path / "again"), probe=True)
    assert again.config == model.config
    entries = model.state_dict()
    assert again.state_dict().keys() == entries.keys()
    for key, value in again.state_dict().items():
        assert torch.equal(value, entries[key])


@pytest.mark.parametrize("model", ["clip", "dual-encoder"])
def test_a_key_that_was_not_there_when_a_model_was_saved_has_the_meaning_of_then(model: str, tmp_path: Path) -> None:
    folder = zoo.save(zoo.build({**CLIP, "model": model}), tmp_path / "model", probe=False)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["preprocess"].pop("alpha") == "drop"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert open_saved(folder).config.preprocess.alpha == "ignore"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_changed_weight_of_a_folder_of_0_1_0_is_found(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER / "clip", tmp_path / "clip"))
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 4
    (folder / "model.safetensors").write_bytes(content)
    assert [finding.part for finding in zoo.verify(folder) if finding.ok is False] == ["model.safetensors"]


def test_a_set_of_embeddings_that_0_1_0_wrote_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(FOLDER / "embeddings", tmp_path / "embeddings")
    (tmp_path / "captions.txt").write_text(f"{CAPTIONS[0]}\na new one\n")
    captions, model = str(tmp_path / "captions.txt"), str(FOLDER / "clip")
    arguments = ["embed", "--text", captions, "--model", model, "--out", str(folder)]
    assert main(arguments) == 0
    assert "1 embeddings of width 8, beside 1 that were there" in capsys.readouterr().out
    assert sorted(zoo.read_set(folder).ids) == sorted([*CAPTIONS, "a new one"])
    manifest = folder / "embeddings.json"
    manifest.write_text(manifest.read_text().replace('"zoo.version": "0.1.0"', '"zoo.version": "0.0.1"'))
    assert main(arguments) == 2
    assert f"zoo.version is 0.0.1, here {zoo.__version__}" in capsys.readouterr().err


def test_a_set_of_embeddings_that_0_1_0_wrote_is_read(tmp_path: Path) -> None:
    ids, vectors, failures = zoo.read_set(shutil.copytree(FOLDER / "embeddings", tmp_path / "embeddings"))
    assert not failures
    assert sorted(ids) == sorted(CAPTIONS)
    text = torch.nn.functional.normalize(torch.tensor(recorded("clip")["text"]), dim=-1)
    rows = torch.stack([text[CAPTIONS.index(caption)] for caption in ids])
    assert_close(torch.from_numpy(vectors), rows, rtol=1e-4, atol=1e-5)
