"""Saved models on the Hub, and models that need none: pushed, loaded by address, pulled, with all their files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from support.checkpoints.saved_folders import TINY, with_tokenizer
from support.hf_hub_server import Hub, used
from support.tokenizers.tiny_tokenizers import MAKERS
from zoo.cli.app import main
from zoo.hub.address import parse_address
from zoo_core.errors import CheckpointError, ConfigError, DownloadError, InputError, SaveError
from zoo_core.hub.lockfile import lock_file

pytestmark = [
    # the Hub's client and its HTTP client do not agree on how a file is uploaded
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    # tiny tokenizers spell captions byte by byte; that some are cut is not the question here
    pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning"),
]


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with used(tmp_path, monkeypatch) as hub:
        yield hub


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return zoo.build(TINY)


def same(one: Any, other: Any) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


CAPTIONS = ["A photo of a cat, asleep!", "Ein Bild von einem Hund", ""]


# Tokenizer files


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("wordpiece", {}),
        ("byte-bpe", {"cleaning": "lower"}),
        ("unigram", {}),
        ("sentencepiece", {"cleaning": "canonicalize"}),
        ("nllb", {"language": "deu_Latn"}),
    ],
)
def test_a_saved_model_brings_the_files_of_its_tokenizer(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = with_tokenizer(MAKERS[kind](tmp_path / "files"), **options)
    expected = model.tokenizer(CAPTIONS)
    folder = zoo.save(model, tmp_path / "model")
    shutil.rmtree(tmp_path / "files")
    assert any(name.startswith("tokenizer/") for name in json.loads((folder / "zoo.json").read_text())["files"])
    loaded = zoo.load(folder)
    for tokenizer in (loaded.tokenizer, zoo.tokenizer(folder), zoo.tokenizer(loaded)):
        assert torch.equal(tokenizer(CAPTIONS), expected)
    assert all(one.ok for one in zoo.verify(folder))
    again = zoo.save(loaded, tmp_path / "again")
    shutil.rmtree(folder)
    assert torch.equal(zoo.load(again).tokenizer(CAPTIONS), expected)


def told_in(folder: Path, place: Path) -> list[Path]:
    """Return the files of a folder that tell of another folder."""
    return [path for path in folder.rglob("*") if path.is_file() and str(place).encode() in path.read_bytes()]


def test_a_saved_model_says_nothing_of_the_folder_that_its_tokenizer_was_in(tmp_path: Path) -> None:
    model = with_tokenizer(MAKERS["wordpiece"](tmp_path / "files"), cleaning="lower")
    folder = zoo.save(model, tmp_path / "model")
    assert not told_in(folder, tmp_path / "files")
    alike = with_tokenizer(shutil.copytree(tmp_path / "files", tmp_path / "other"), cleaning="lower")
    alike.load_state_dict(model.state_dict())
    again = zoo.save(alike, tmp_path / "again")
    assert (again / "zoo.json").read_bytes() == (folder / "zoo.json").read_bytes()


def test_weights_fit_the_architecture_of_any_folder_that_their_tokenizer_was_in(tmp_path: Path) -> None:
    model = with_tokenizer(MAKERS["wordpiece"](tmp_path / "files"))
    folder = zoo.save(model, tmp_path / "model")
    assert model.config is not None
    assert same(zoo.build(model.config, pretrained=folder / "model.safetensors"), model)


@pytest.mark.parametrize(
    ("override", "kept"),
    [("tokenizer.cleaning=lower", True), ("tokenizer.name=acme/other", False)],
)
def test_a_change_of_the_tokenizer_keeps_its_files_unless_it_names_others(
    override: str, kept: bool, tmp_path: Path
) -> None:
    folder = zoo.save(with_tokenizer(MAKERS["wordpiece"](tmp_path / "files")), tmp_path / "model")
    shutil.rmtree(tmp_path / "files")
    tokenizer: Any = zoo.build(folder, overrides=[override]).tokenizer
    if kept:
        assert torch.equal(tokenizer(CAPTIONS), zoo.load(folder).tokenizer([text.lower() for text in CAPTIONS]))
    else:
        with pytest.raises(DownloadError, match="tokenizer.name: acme/other: "):
            tokenizer(CAPTIONS)


def test_a_saved_model_brings_the_ranks_of_tiktoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    from zoo_tiktoken.tokenizer import TiktokenTokenizer

    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ca": 256, b"cat": 257, b"do": 258}
    tiny = tiktoken.Encoding("tiny", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 259})
    monkeypatch.setattr("zoo_tiktoken.tokenizer._load_encoding", lambda _: tiny)
    tokenizer = {"type": "tiktoken", "encoding": "tiny", "vocab_size": 263}
    model = zoo.build(TINY | {"text": TINY["text"] | {"vocab_size": 263, "pool_type": "last"}, "tokenizer": tokenizer})
    expected = model.tokenizer(CAPTIONS)
    folder = zoo.save(model, tmp_path / "model")
    monkeypatch.setattr("zoo_tiktoken.tokenizer._load_encoding", lambda _: pytest.fail("asked tiktoken for its ranks"))
    loaded = zoo.load(folder)
    assert torch.equal(loaded.tokenizer(CAPTIONS), expected)
    assert loaded.tokenizer.decode(loaded.tokenizer("où est le cat?", 40)[0]) == "où est le cat?"
    assert isinstance(loaded.tokenizer, TiktokenTokenizer)
    assert {path.name for path in (folder / "tokenizer").iterdir()} == {"ranks.tiktoken", "encoding.json"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: (files / "tokenizer.json").write_text("{}"), r"tokenizer/tokenizer\.json (has|holds)"),
        (lambda files: (files / "tokenizer.json").unlink(), r"tokenizer/tokenizer\.json is missing"),
        (lambda files: (files / "added_tokens.json").write_text("{}"), "added_tokens.json was not there when"),
    ],
)
def test_tokenizer_files_that_were_changed_are_refused(
    change: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    folder = zoo.save(with_tokenizer(MAKERS["wordpiece"](tmp_path / "files")), tmp_path / "model")
    change(folder / "tokenizer")
    with pytest.raises(CheckpointError, match=message):
        zoo.load(folder)
    assert next(one.part for one in zoo.verify(folder) if one.ok is False).startswith("tokenizer/")


def test_a_model_whose_tokenizer_is_not_to_be_had_is_saved_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = with_tokenizer(MAKERS["wordpiece"](tmp_path / "files"))
    shutil.rmtree(tmp_path / "files")
    folder = zoo.save(model, tmp_path / "model")
    assert "is saved without the files of its tokenizer" in caplog.text
    assert "were not to be had" in json.loads((folder / "zoo.json").read_text())["lacking"]["tokenizer"]
    assert "there is no such folder" in caplog.text
    assert not told_in(folder, tmp_path / "files")
    with pytest.raises(ConfigError, match="there is no such folder"):
        zoo.push_to_hub(model, "acme/tiny")


def test_a_text_encoder_of_the_hub_is_saved_with_its_whole_config(tmp_path: Path) -> None:
    published = {"model_type": "bert", "vocab_size": 49408, "hidden_size": 32, "num_hidden_layers": 1}
    published |= {"num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 20, "leftover": 1}
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(published))
    text = {"tower": "hf-text", "name": str(tmp_path / "encoder"), "vocab_size": 49408, "context_length": 16}
    model = zoo.build(TINY | {"model": "custom-text-clip", "text": text})
    folder = zoo.save(model, tmp_path / "model")
    shutil.rmtree(tmp_path / "encoder")
    loaded = zoo.load(folder)
    assert same(loaded, model)
    assert loaded.config is not None
    assert loaded.config.text.data()["config"]["hidden_size"] == 32


# Pushed, and loaded by address


def test_what_was_pushed_is_what_is_loaded(model: Any, hub: Hub, tmp_path: Path) -> None:
    address = zoo.push_to_hub(model, "acme/tiny", private=True)
    assert hub.private == {"acme/tiny": True}
    folder = hub.repositories["acme/tiny"]["main"]
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "model.safetensors", "zoo.json", "README.md"}
    assert 'zoo.load("hf-hub:acme/tiny")' in (folder / "README.md").read_text()
    for source in ("hf-hub:acme/tiny", "hf-hub:acme/tiny@main", address):
        loaded = zoo.build(source)
        assert same(loaded, model)
    assert same(zoo.load("hf-hub:acme/tiny", verify=True, probe=True), model)
    assert zoo.preprocess("hf-hub:acme/tiny").config == model.preprocess.config
    assert torch.equal(zoo.tokenizer("hf-hub:acme/tiny")(CAPTIONS), model.tokenizer(CAPTIONS))
    assert all(one.ok for one in zoo.verify("hf-hub:acme/tiny"))


def test_a_model_with_tokenizer_files_goes_to_the_hub_and_back(hub: Hub, tmp_path: Path) -> None:
    model = with_tokenizer(MAKERS["nllb"](tmp_path / "files"), language="eng_Latn")
    expected = model.tokenizer(CAPTIONS)
    zoo.push_to_hub(zoo.save(model, tmp_path / "model"), "acme/tiny")
    shutil.rmtree(tmp_path / "files")
    assert torch.equal(zoo.build("hf-hub:acme/tiny").tokenizer(CAPTIONS), expected)


def test_a_push_is_one_commit_that_takes_out_what_the_older_model_had(model: Any, hub: Hub, tmp_path: Path) -> None:
    first = zoo.push_to_hub(with_tokenizer(MAKERS["nllb"](tmp_path / "files")), "acme/tiny")
    (hub.repositories["acme/tiny"]["main"] / "picture.png").write_bytes(b"png")
    before = len(hub.requests)
    zoo.push_to_hub(model, "acme/tiny")
    assert sum("/commit/" in one for one in hub.requests[before:]) == 1
    held = {path.name for path in hub.repositories["acme/tiny"]["main"].rglob("*")}
    assert "picture.png" in held
    assert "tokenizer.json" not in held
    assert first != "hf-hub:acme/tiny"


def test_a_push_to_a_branch_leaves_the_main_one(model: Any, hub: Hub) -> None:
    zoo.push_to_hub(model, "acme/tiny")
    with torch.no_grad():
        model.visual.proj.add_(1)
    zoo.push_to_hub(model, "acme/tiny", revision="next")
    assert same(zoo.build("hf-hub:acme/tiny@next"), model)
    assert not same(zoo.build("hf-hub:acme/tiny"), model)


@pytest.mark.parametrize("stage", ["/api/repos/create", "/preupload/", "/lfs/", "/commit/"])
def test_a_push_that_breaks_leaves_the_repository_as_it_was(
    stage: str, model: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    zoo.push_to_hub(model, "acme/tiny")
    before = hub.repositories["acme/tiny"]["main"]
    hub.refused.add(stage)
    with torch.no_grad():
        model.visual.proj.add_(1)
    with pytest.raises(SaveError, match="^acme/tiny was not written to: .*The Hub holds what it held before"):
        zoo.push_to_hub(model, "acme/tiny")
    assert any(stage in one for one in hub.requests[-8:])
    assert hub.repositories["acme/tiny"]["main"] == before
    hub.refused.clear()
    zoo.push_to_hub(model, "acme/tiny")
    assert hub.repositories["acme/tiny"]["main"] != before


def test_a_folder_that_was_changed_is_not_pushed(model: Any, hub: Hub, tmp_path: Path) -> None:
    folder = zoo.save(model, tmp_path / "model")
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "\n")
    with pytest.raises(CheckpointError, match="is not the model that was saved: config.yaml"):
        zoo.push_to_hub(folder, "acme/tiny")
    assert hub.requests == []


@pytest.mark.parametrize("repo", ["tiny", "acme/tiny@main", "hf-hub:acme/tiny", "a/b/c", "https://huggingface.co/a/b"])
def test_a_name_that_is_no_repository_is_refused(repo: str, model: Any) -> None:
    with pytest.raises(InputError, match="organisation/name"):
        zoo.push_to_hub(model, repo)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("hf-hub:acme/tiny", ("acme/tiny", None)),
        ("hf-hub:acme/tiny@v1.0", ("acme/tiny", "v1.0")),
        ("hf-hub:acme/tiny@refs/pr/1", ("acme/tiny", "refs/pr/1")),
    ],
)
def test_an_address_names_a_repository_and_a_revision(source: str, found: tuple[str, str | None]) -> None:
    assert parse_address(source) == found


@pytest.mark.parametrize("source", ["hf-hub:", "hf-hub:tiny", "hf-hub:a/b/c", "hf-hub:a/b@", "hf-hub:a/b@v 1"])
def test_a_malformed_address_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="expected hf-hub:organisation/name"):
        zoo.build(source)


def test_a_model_that_was_loaded_once_needs_no_hub(
    model: Any, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    zoo.push_to_hub(model, "acme/tiny")
    with pytest.raises(DownloadError, match="acme/tiny: zoo.json: it is not in the local cache, and local_files_only"):
        zoo.build("hf-hub:acme/tiny", local_files_only=True)
    zoo.build("hf-hub:acme/tiny")
    hub.requests.clear()
    assert same(zoo.build("hf-hub:acme/tiny", local_files_only=True), model)
    lock_file().unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert same(zoo.build("hf-hub:acme/tiny"), model)
    assert hub.requests == []


def test_a_branch_that_moves_does_not_move_a_model_that_was_loaded(model: Any, hub: Hub) -> None:
    zoo.push_to_hub(model, "acme/tiny")
    first = zoo.build("hf-hub:acme/tiny")
    with torch.no_grad():
        model.visual.proj.add_(1)
    newer = zoo.push_to_hub(model, "acme/tiny")
    assert same(zoo.build("hf-hub:acme/tiny"), first)
    assert same(zoo.build(newer), model)


def test_weights_that_are_not_those_of_zoo_json_are_refused(model: Any, hub: Hub, tmp_path: Path) -> None:
    zoo.push_to_hub(model, "acme/tiny")
    served = hub.repositories["acme/tiny"]["main"]
    content = bytearray((served / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (served / "model.safetensors").write_bytes(content)  # and the Hub tells the digest of this
    with pytest.raises(DownloadError, match="model.safetensors: expected sha256 .* it is another file than is meant"):
        zoo.build("hf-hub:acme/tiny")


def test_a_repository_that_holds_something_else_is_told(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pytorch_model.bin").write_bytes(b"pickle")
    hub.move("acme/other", tmp_path / "other")
    with pytest.raises(DownloadError, match="hf-hub:acme/other: the repository holds no zoo.json and no config of"):
        zoo.build("hf-hub:acme/other")


def test_zoo_json_cannot_name_a_file_elsewhere(model: Any, hub: Hub) -> None:
    from zoo.saved.manifest import digest_of

    zoo.push_to_hub(model, "acme/tiny")
    path = hub.repositories["acme/tiny"]["main"] / "zoo.json"
    origin = json.loads(path.read_text())
    origin["files"]["../../escaped"] = origin["files"]["config.yaml"]
    path.write_text(json.dumps(origin | {"digest": digest_of(origin)}))
    with pytest.raises(CheckpointError, match=r"files.*: names a file outside of the folder: '../../escaped'"):
        zoo.build("hf-hub:acme/tiny")


def test_the_command_pushes_a_folder_and_prints_its_address(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = zoo.save(model, tmp_path / "model")
    assert main(["push", str(folder), "acme/tiny", "--private"]) == 0
    assert same(zoo.build(capsys.readouterr().out.strip()), model)
    assert main(["info", "hf-hub:acme/tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["embed_dim"] == 16
    assert main(["push", str(tmp_path / "nowhere"), "acme/tiny"]) == 2


# Pulled

ALONE = """
import json, socket, sys
def refuse(*args): raise AssertionError(f"asked for a network: {args}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
import torch, zoo
model = zoo.build(sys.argv[1])
text = model.encode_text(["a photo of a cat"])
image = model.encode_image(torch.ones(1, 3, 32, 32))
print(json.dumps([text.tolist(), image.tolist(), model.tokenizer("a photo of a cat").tolist()]))
"""


def alone(folder: Path, home: Path) -> list[Any]:
    """Return what a model gives in a process without network, cache or anything of this user."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "ZOO_"))}
    environment |= {"HOME": str(home), "HF_HOME": str(home / "hf"), "ZOO_HOME": str(home / "zoo")}
    command = [sys.executable, "-c", ALONE, str(folder)]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_that_was_pulled_needs_no_network(hub: Hub, tmp_path: Path, capsys: Any) -> None:
    model = with_tokenizer(MAKERS["sentencepiece"](tmp_path / "files"), cleaning="canonicalize")
    zoo.push_to_hub(model, "acme/tiny")
    assert main(["pull", "hf-hub:acme/tiny", "--to", str(tmp_path / "pulled")]) == 0
    shutil.rmtree(tmp_path / "files")
    shutil.rmtree(tmp_path / "cache")
    assert not any(path.is_symlink() for path in (tmp_path / "pulled").rglob("*"))
    home = tmp_path / "elsewhere"
    home.mkdir()
    (tmp_path / "pulled").rename(home / "model")
    with torch.inference_mode():
        ids = model.tokenizer("a photo of a cat")
        expected = [model.encode_text(ids), model.encode_image(torch.ones(1, 3, 32, 32)), ids]
    for found, value in zip(alone(home / "model", home), expected, strict=True):
        assert torch.allclose(torch.tensor(found), value, atol=1e-6)


def test_pretrained_weights_are_pulled_by_architecture_and_tag(hub: Hub, tmp_path: Path) -> None:
    folder = zoo.pull("digits-tiny:demo", tmp_path / "digits")
    assert json.loads((folder / "zoo.json").read_text())["source"] == {
        "architecture": "digits-tiny",
        "tag": "demo",
        "license": "mit",
    }
    assert same(zoo.load(folder, verify=True, probe=True), zoo.build("digits-tiny", pretrained="demo"))
    assert same(zoo.load(zoo.pull("digits-tiny", folder)), zoo.load(folder))


def test_a_pulled_model_says_where_its_weights_came_from(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    from zoo.catalog.pretrained import Pretrained

    (tmp_path / "served").mkdir()
    save_file(zoo.build("digits-tiny").state_dict(), tmp_path / "served" / "open_clip_model.safetensors")
    commit = hub.move("acme/digits", tmp_path / "served")
    entry = Pretrained.parse({"hub": {"repo": "acme/digits"}, "preprocess": {"mean": [0.1, 0.2, 0.3]}})
    monkeypatch.setattr("zoo.catalog.pretrained.entries_of", lambda _: {"theirs": entry})
    folder = zoo.pull("digits-tiny:theirs", tmp_path / "digits")
    source = json.loads((folder / "zoo.json").read_text())["source"]
    assert (source["repo"], source["commit"], len(source["sha256"])) == ("acme/digits", commit, 64)
    assert f"of `acme/digits` at commit {commit}" in (folder / "README.md").read_text()
    assert list(zoo.config(folder).data()["preprocess"]["mean"]) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("vit-b32", InputError, r"'vit-b32' has \d+ pretrained tags; write vit-b32:TAG \(allowed: commonpool"),
        ("vit-s16", InputError, "has 0 pretrained tags"),
        ("vit-b32:openai", LookupError, "'vit-b32-quickgelu' has these weights"),
        ("vit-b23:openai", LookupError, "unknown architecture 'vit-b23'"),
    ],
)
def test_a_tag_that_is_missing_or_unknown_is_told(source: str, kind: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        zoo.pull(source, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_of_something_else_is_not_pulled_over(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    with pytest.raises(SaveError, match="exists and is no saved model"):
        zoo.pull("digits-tiny:demo", tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").exists()
