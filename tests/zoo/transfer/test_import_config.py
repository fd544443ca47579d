"""`zoo import`: open_clip's configs become ours, and those of no importer are refused; the command."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path

import pytest
import yaml

import zoo
from support.checkpoints.development_configs import DEVELOPMENT
from support.checkpoints.openclip_configs import changed, comparable
from zoo.catalog.architectures import architectures
from zoo.cli.app import main
from zoo.transfer.import_config import import_architecture
from zoo_core.errors import PluginError
from zoo_formats.openclip.write_config import hub_file


@cache
def peer_configs() -> dict[str, Path]:
    """Return the peer's files by the names that their architectures have here."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.origin is not None
    files = {path.stem: path for path in (Path(spec.origin).parent / "model_configs").glob("*.json")}
    return {
        one.name: files[name] for one in architectures().entries for name in (one.name, *one.aliases) if name in files
    }


# every architecture that both offer


@pytest.mark.parametrize("name", sorted(peer_configs()))
def test_the_peers_config_becomes_our_architecture(name: str) -> None:
    ours = comparable(zoo.config(name))
    if name == "vitamin-xl-384":  # the peer's file says 256, and its weights and its name 384
        ours["vision"]["image_size"] = [256, 256]
    assert comparable(zoo.config(import_architecture("open_clip", peer_configs()[name]))) == ours


def test_there_is_an_architecture_for_each_of_the_peers() -> None:
    import open_clip

    assert len(open_clip.list_models()) == 144
    assert {path.stem for path in peer_configs().values()} == set(open_clip.list_models())


@pytest.mark.parametrize("name", DEVELOPMENT)
def test_a_config_of_the_peers_development_branch_becomes_our_architecture(name: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps(DEVELOPMENT[name]))
    found = zoo.config(import_architecture("open_clip", tmp_path / "theirs.json"))
    assert comparable(found) == comparable(zoo.config(name))
    if "naflex" in name:  # the peer's JSON tells of its preprocessing how pictures are cut
        for key in ("type", "patch_size", "image_seq_len"):
            assert getattr(found.preprocess, key) == getattr(zoo.config(name).preprocess, key)
    if "hf_model_config" in DEVELOPMENT[name]["text_cfg"]:
        assert found.text.config == DEVELOPMENT[name]["text_cfg"]["hf_model_config"]
        assert found.text.name == DEVELOPMENT[name]["text_cfg"]["hf_model_name"]


@pytest.mark.parametrize("name", [one for one in DEVELOPMENT if "hf_model_name" not in DEVELOPMENT[one]["text_cfg"]])
def test_what_is_exported_is_imported_again(name: str, tmp_path: Path) -> None:
    config = zoo.config(name)
    (tmp_path / "ours.json").write_text(json.dumps(hub_file(config.data())))
    assert comparable(zoo.config(import_architecture("open_clip", tmp_path / "ours.json"))) == comparable(config)


# importers of strangers


def test_an_importer_that_returns_no_mapping_is_named(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo_formats.openclip.read_config.import_open_clip", lambda path: [path])
    with pytest.raises(PluginError, match="importer 'open_clip' of .*: it must return a mapping, found list"):
        import_architecture("open_clip", theirs)


# the command


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(changed({"vision_cfg": {"patch_size": 32}})))
    return path


def test_the_command_prints_a_file_that_can_be_used(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "open_clip", str(theirs)]) == 0
    out = capsys.readouterr().out
    assert comparable(zoo.config(yaml.safe_load(out))) == comparable(zoo.config("vit-b32"))
    assert "patch_size: 32" in out and "width" not in out


def test_the_command_writes_a_file_once(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "new" / "own.yaml"
    command = ["import", "open_clip", str(theirs), "--output", str(own)]
    assert main(command) == 0
    assert comparable(zoo.config(own)) == comparable(zoo.config("vit-b32"))
    own.write_text("precious")
    assert main(command) == 2
    assert f"error: {own} is there already; give --force to replace it" in capsys.readouterr().err
    assert own.read_text() == "precious"
    assert main([*command, "--force"]) == 0
    assert comparable(zoo.config(own)) == comparable(zoo.config("vit-b32"))


ERRORS = {
    "no such format": (["openclip", "theirs.json"], "error: no plugin imports 'openclip', did you mean 'open_clip'?"),
    "no such file": (["open_clip", "none.json"], "none.json: cannot be read: No such file or directory"),
    "no JSON": (["open_clip", "broken.json"], "broken.json:1:19: is not JSON: Expecting property name"),
    "no mapping": (["open_clip", "list.json"], "list.json:1:1: expected a mapping of keys at the top level"),
    "no YAML": (["open_clip", "theirs.json", "--output", "own.json"], "own.json: the file of an architecture ends in"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_the_command_refuses(
    arguments: list[str],
    message: str,
    theirs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(theirs.parent)
    Path("broken.json").write_text('{"embed_dim": 512,')
    Path("list.json").write_text("[1]")
    assert main(["import", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
