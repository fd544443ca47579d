"""Sources: each is understood once, and whatever takes one takes them all."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import zoo
from support.models.tiny_architectures import CLIP
from zoo.building.describe import describe_model
from zoo.building.layer_groups import layer_groups
from zoo.building.source import resolve
from zoo_core.architectures.load import ArchitectureLoader
from zoo_core.errors import AmbiguousNameError, ConfigError, InputError, UnknownNameError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model in every form that has files."""
    root = tmp_path_factory.mktemp("sources")
    (root / "tiny.yaml").write_text(yaml.safe_dump(CLIP), encoding="utf-8")
    zoo.save(zoo.build(CLIP), root / "saved")
    zoo.convert(root / "saved", root / "foreign", to="transformers")
    return root


SOURCES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a name": ("name", lambda _: "digits-tiny"),
    "a name in another spelling": ("name", lambda _: "Digits_Tiny"),
    "a file": ("file", lambda root: root / "tiny.yaml"),
    "the name of a file": ("file", lambda root: str(root / "tiny.yaml")),
    "a mapping": ("mapping", lambda _: CLIP),
    "a config": ("config", lambda _: zoo.config(CLIP)),
    "a saved folder": ("saved", lambda root: root / "saved"),
    "the name of a saved folder": ("saved", lambda root: str(root / "saved")),
    "a folder of another library": ("foreign", lambda root: root / "foreign"),
    "a name and a tag": ("name", lambda _: "digits-tiny:demo"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_is_of_one_kind_and_knows_its_config_and_whether_it_has_weights(folders: Path, case: str) -> None:
    kind, make = SOURCES[case]
    source = resolve(make(folders))
    assert source.kind == kind
    assert source.config.embed_dim == zoo.config("digits-tiny" if kind == "name" else CLIP).embed_dim
    assert source.config is source.config
    assert source.has_weights is (kind in ("saved", "foreign") or case == "a name and a tag")
    changed = source.config_with(["description=another"])
    assert (changed.description, source.config.description != "another") == ("another", True)


@pytest.mark.parametrize("case", [case for case in SOURCES if case != "a name and a tag"])
def test_the_config_of_whatever_build_takes_is_that_of_the_model(folders: Path, case: str) -> None:
    source = SOURCES[case][1](folders)
    assert zoo.config(source) == zoo.build(source).config


@pytest.mark.parametrize("case", [case for case in SOURCES if case not in ("a mapping", "a config")])
def test_what_commands_show_of_an_architecture_they_show_of_every_source(folders: Path, case: str) -> None:
    source = str(SOURCES[case][1](folders))
    shown = describe_model(source)
    assert shown["config"] == resolve(source).config.data()
    assert Path(shown["file"]).exists()
    assert layer_groups(source)["vision"]


def test_a_model_of_any_modalities_is_shown_with_its_towers_and_parts(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump({**CLIP, "model": "dual-encoder"}))
    shown = describe_model(str(path))
    assert set(shown["towers"]) == {"vision", "text"}
    assert set(shown["components"]) == {"model", "vision", "text", "tokenizer", "preprocess"}


def test_a_name_with_a_tag_has_the_preprocessing_of_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.catalog.pretrained import Pretrained

    entry = Pretrained.parse({"hub": {"repo": "acme/digits"}, "preprocess": {"mean": [0.1, 0.2, 0.3]}})
    monkeypatch.setattr("zoo.catalog.pretrained.entries_of", lambda _: {"theirs": entry})
    source: Any = resolve("digits-tiny:theirs")
    assert tuple(source.config.preprocess.mean) == (0.1, 0.2, 0.3)
    assert tuple(source.config_with(["vision.layers=1"]).preprocess.mean) == (0.1, 0.2, 0.3)


def test_a_name_with_a_tag_is_shown_with_that_tag_alone() -> None:
    assert list(describe_model("digits-tiny:demo")["pretrained"]) == ["demo"]


def test_a_name_with_a_tag_is_converted(tmp_path: Path) -> None:
    folder = zoo.convert("digits-tiny:demo", tmp_path / "digits")
    assert zoo.config(folder).embed_dim == zoo.config("digits-tiny").embed_dim
    zoo.load(folder, probe=True)


UNKNOWN = {
    "a misspelled name with a tag": ("digits-tinny:demo", "'digits-tinny', did you mean 'digits-tiny:demo'?"),
    "a misspelled tag": ("digits-tiny:dmo", "'digits-tiny' has no pretrained tag 'dmo', did you mean 'demo'?"),
    "a misspelled name with a tag of nobody": ("digits-tinny:x", "'digits-tinny:x', did you mean 'digits-tiny'?"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_name_with_a_tag_that_is_unknown_is_told_with_the_tag(case: str) -> None:
    text, message = UNKNOWN[case]
    with pytest.raises(UnknownNameError) as error:
        describe_model(text)
    assert message in str(error.value)


LONG = ["x" * 300, "x/" * 3000, f"{'x' * 300}/y", f"digits-tiny:{'x' * 300}", f"{'x' * 300}:demo", "x" * 300 + ".pt"]


@pytest.mark.parametrize("text", LONG, ids=lambda text: text[:15])
def test_what_no_system_has_for_a_path_is_no_folder(text: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        describe_model(text)
    with pytest.raises(UnknownNameError):
        zoo.pull(text, tmp_path / "pulled")


def test_a_folder_that_is_named_as_a_file_is_refused_as_one_or_read_for_its_model(
    folders: Path, tmp_path: Path
) -> None:
    path = tmp_path / "folder.yaml"
    path.mkdir()
    for source in (path, str(path)):
        with pytest.raises(ConfigError, match="is not a regular file"):
            zoo.config(source)
    path.rmdir()
    path.symlink_to(folders / "saved")
    assert zoo.config(path) == zoo.config(str(path)) == zoo.config(CLIP)


def test_python_names_the_tag_of_a_misspelled_name_in_its_own_argument() -> None:
    with pytest.raises(UnknownNameError, match=r"mean zoo\.build\('digits-tiny', pretrained='demo'\)\?"):
        zoo.build("digits-tinny:demo")


def test_weights_of_a_folder_of_another_library_are_not_replaced(folders: Path) -> None:
    with pytest.raises(InputError, match=r"foreign is a model with weights of its own; leave out pretrained="):
        zoo.build(folders / "foreign", pretrained=folders / "saved" / "model.safetensors")


def test_a_folder_that_is_named_as_an_architecture_is_asked_about_everywhere(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits-tiny").symlink_to(folders / "saved")
    monkeypatch.chdir(tmp_path)
    for function in (zoo.build, zoo.config, zoo.tokenizer, zoo.preprocess, describe_model):
        with pytest.raises(AmbiguousNameError, match="is an architecture, and a model in this folder"):
            function("digits-tiny")


BUILDS: dict[str, tuple[Callable[[Path], Any], dict[str, int]]] = {
    "a file": (lambda root: zoo.build(root / "tiny.yaml"), {"config": 1}),
    "a name with weights": (lambda root: zoo.build("digits-tiny", pretrained="demo"), {"config": 1}),
    "a saved folder, loaded": (lambda root: zoo.load(root / "saved"), {"config": 1, "zoo.json": 1, "its digest": 1}),
    "a saved folder, built": (lambda root: zoo.build(root / "saved"), {"config": 1, "zoo.json": 1, "its digest": 1}),
    "a folder of another library": (lambda root: zoo.build(root / "foreign"), {"config": 1, "foreign config": 1}),
}


@pytest.mark.parametrize("case", BUILDS)
def test_building_reads_what_a_source_says_once(folders: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    reads: Counter[str] = Counter()

    def counted(place: str, what: str) -> None:
        module, _, name = place.rpartition(".")
        owner: Any = (
            ArchitectureLoader if module.endswith("ArchitectureLoader") else __import__(module, fromlist=[name])
        )
        function = getattr(owner, name)

        def spy(*arguments: Any, **options: Any) -> Any:
            reads[what] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, spy)

    counted("zoo_core.architectures.load.ArchitectureLoader.load", "config")
    counted("zoo.saved.manifest.read_json", "zoo.json")
    counted("zoo.saved.manifest.digest_of", "its digest")
    counted("zoo.checkpoints.open.read_foreign_config", "foreign config")
    counted("zoo.checkpoints.compatibility.read_foreign_config", "foreign config")
    build, expected = BUILDS[case]
    build(folders)
    assert reads == expected


def test_a_large_config_of_another_library_is_read_by_every_reader_of_it(folders: Path, tmp_path: Path) -> None:
    """transformers writes the names of 21,000 classes into some: more than an architecture of ours may hold."""
    labels = {str(number): f"class {number}" for number in range(21_000)}
    config = json.loads((folders / "foreign" / "config.json").read_text())
    for name, change in (("clip", {}), ("other", {"model_type": "acme"})):
        shutil.copytree(folders / "foreign", tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps(config | {"id2label": labels} | change))
    assert zoo.config(tmp_path / "clip").embed_dim == CLIP["embed_dim"]
    with pytest.raises(UnknownNameError, match="has model_type: 'acme', which no installed plugin reads"):
        zoo.build(tmp_path / "other")
