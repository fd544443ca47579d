"""Weights from the Hub: what they are held to, and what is told where they cannot be had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from support.checkpoints.foreign import WORDS, equal
from support.checkpoints.published_files import big_vision_file, mobileclip_file
from support.hf_hub_server import Hub, serving, use
from support.models.tiny_architectures import CLIP, SIGLIP
from zoo.catalog.pretrained import HubWeights, Pretrained
from zoo.hub.weights import fetch_weights
from zoo_core.errors import CheckpointError, DownloadError
from zoo_core.hub.lockfile import Pin, lock_file, pin, pinned

NAME = "open_clip_model.safetensors"


def weights(folder: Path, seed: int) -> Path:
    """Write weights of digits-tiny that show where they come from."""
    folder.mkdir()
    torch.manual_seed(seed)
    save_file(zoo.build("digits-tiny").state_dict(), folder / NAME)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a repository with weights, as a tag of digits-tiny."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    folder = weights(tmp_path / "served", seed=5)
    with serving({"acme/digits": {"main": folder, "v1": folder}}) as hub:
        use(hub, monkeypatch, tmp_path / "cache")
        yield hub


@pytest.fixture
def served(hub: Hub) -> Path:
    return hub.repositories["acme/digits"]["main"]


SOURCE = HubWeights(repo="acme/digits")


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("blobs/*") if path.is_file()]


def tagged(monkeypatch: pytest.MonkeyPatch, **entry: Any) -> None:
    found = Pretrained.parse({"hub": {"repo": "acme/digits"}, **entry})
    monkeypatch.setattr("zoo.catalog.pretrained.entries_of", lambda _: {"theirs": found})
    monkeypatch.setattr(
        "zoo.building.pretrained.is_path", lambda _: False
    )  # architectures in files have the tag as well


def test_weights_come_from_the_hub_with_the_preprocessing_of_their_training(
    hub: Hub, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = {"cleaning": "lower", "padding": "unreached"}
    tagged(monkeypatch, activation="gelu", text=text, preprocess={"mean": [0.1, 0.2, 0.3], "interpolation": "bilinear"})
    model: Any = zoo.build("digits-tiny", pretrained="theirs")
    torch.manual_seed(5)
    assert torch.equal(model.visual.proj, zoo.build("digits-tiny").state_dict()["visual.proj"])
    assert (list(model.preprocess.config.mean), model.config.preprocess.interpolation) == ([0.1, 0.2, 0.3], "bilinear")
    (served / NAME).unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(zoo.build("digits-tiny", pretrained="theirs").state_dict()["visual.proj"], model.visual.proj)


def gone(served: Path) -> None:
    (served / NAME).unlink()


@pytest.mark.parametrize(
    ("entry", "change", "kind", "message"),
    [
        ({"hub": {"repo": "acme/gone"}}, None, DownloadError, f"acme/gone: {NAME}: the Hub shows no such repository"),
        (
            {"hub": {"repo": "acme/digits", "revision": "v2"}},
            None,
            DownloadError,
            f"acme/digits at revision 'v2': {NAME}: .* no such revision",
        ),
        ({}, gone, DownloadError, f"acme/digits: the repository holds none of {NAME}, .*_model.bin; give a file"),
        ({"sha256": "0" * 64}, None, DownloadError, f"{NAME}: expected sha256 000.*: it is another file than is meant"),
        (
            {"activation": "quick_gelu"},
            None,
            CheckpointError,
            "was trained with activation quick_gelu, but vision.activation is gelu",
        ),
        (
            {"text": {"cleaning": "canonicalize"}},
            None,
            CheckpointError,
            "'theirs' was trained with text cleaning 'canonicalize', but that of the architecture is 'lower'",
        ),
        (
            {"text": {"padding": "read"}},
            None,
            CheckpointError,
            "was trained with text padding 'read', but .*'unreached'",
        ),
    ],
    ids=["no repository", "no revision", "no weights", "other bytes", "activation", "cleaning", "padding"],
)
def test_what_cannot_be_had_from_the_hub_is_told(
    entry: dict[str, Any], change: Any, kind: type, message: str, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change is not None:
        change(served)
    tagged(monkeypatch, **entry)
    with pytest.raises(kind, match=message):
        zoo.build("digits-tiny", pretrained="theirs")


def test_without_a_network_the_line_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError) as caught:
        zoo.build("rn50-quickgelu", pretrained="openai")
    assert str(caught.value) == (
        f"timm/resnet50_clip.openai: {NAME}: it is not in the local cache, and HF_HUB_OFFLINE is set; "
        f"run `hf download timm/resnet50_clip.openai {NAME}` where there is a network, or give a file: "
        "pretrained='file.safetensors'"
    )
    assert (caught.value.repo, caught.value.file) == ("timm/resnet50_clip.openai", NAME)
    assert hub.requests == []


def test_a_hub_that_is_not_there_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as gone:
        monkeypatch.setattr(
            huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", gone.address + "/{repo_id}/{revision}/{filename}"
        )
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 0.1)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(DownloadError, match=r"not in the local cache, and the Hub cannot be reached \(.*refused\)"):
        fetch_weights(SOURCE)


def test_safetensors_are_looked_for_beside_the_pickle_that_an_entry_names(served: Path) -> None:
    (served / NAME).rename(served / "weights.safetensors")
    found = fetch_weights(HubWeights(repo="acme/digits", file="weights.bin"))
    assert found.path.name == "weights.safetensors"


def pickled(served: Path, name: str, change: Any = dict) -> None:
    torch.save(change(load_file(served / NAME)), served / name)
    gone(served)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("open_clip_pytorch_model.bin", {}),
        ("pytorch_model.bin", {"file": "pytorch_model.bin"}),
        ("a.pt", {"file": "a.pt"}),
    ],
)
def test_weights_that_are_there_as_a_pickle_alone_are_read_from_it(
    name: str, entry: Any, hub: Hub, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled(served, name, lambda state: {"state_dict": {f"module.{key}": one for key, one in state.items()}})
    tagged(monkeypatch, hub={"repo": "acme/digits"} | entry)
    model = zoo.build("digits-tiny", pretrained="theirs")
    torch.manual_seed(5)
    assert equal(model.state_dict(), zoo.build("digits-tiny").state_dict())
    assert pinned("acme/digits", name) is not None
    hub.requests.clear()
    zoo.build("digits-tiny", pretrained="theirs")
    assert hub.requests == []


class Malicious:
    def __reduce__(self) -> Any:
        return Path.touch, (Path(os.environ["ZOO_HOME"]).parent / "ran",)


def test_a_pickle_of_the_hub_that_would_run_code_runs_none(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled(served, "open_clip_pytorch_model.bin", lambda state: state | {"visual.proj": Malicious()})
    tagged(monkeypatch)
    with pytest.raises(CheckpointError, match="it would call pathlib.Path.touch when it is unpickled"):
        zoo.build("digits-tiny", pretrained="theirs")
    assert not (tmp_path / "ran").exists()


def test_an_entry_may_be_a_file_of_big_vision(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, expected = big_vision_file(tmp_path)
    gone(served)
    file.rename(served / "webli.npz")
    vision = SIGLIP["vision"] | {"kwargs": {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 3}}
    text = SIGLIP["text"] | {"width": 32, "mlp_ratio": 3, "norm_eps": 1e-5}
    (tmp_path / "siglip.yaml").write_text(json.dumps(SIGLIP | {"vision": vision, "text": text}))
    tagged(monkeypatch, hub={"repo": "acme/digits", "file": "webli.npz"})
    assert equal(zoo.build(str(tmp_path / "siglip.yaml"), pretrained="theirs").state_dict(), expected)


def test_an_entry_may_be_a_file_of_apple(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = mobileclip_file(served / "mobileclip.pt", "vit_base_mci_224")
    gone(served)
    vision = {"tower": "timm", "name": "vit_base_mci_224", "image_size": 224, "pool": None, "proj": "head"}
    text = CLIP["text"] | {"vocab_size": WORDS, "causal": False, "pool_type": "argmax"}
    config = CLIP | {"model": "custom-text-clip", "vision": vision | {"kwargs": {"depth": 2}}, "text": text}
    config["tokenizer"] = {"type": "hf", "name": "./nowhere", "vocab_size": WORDS}
    (tmp_path / "mobileclip.yaml").write_text(json.dumps(config))
    tagged(monkeypatch, hub={"repo": "acme/digits", "file": "mobileclip.pt"})
    assert equal(zoo.build(str(tmp_path / "mobileclip.yaml"), pretrained="theirs").state_dict(), expected)


def test_the_cache_is_looked_through_without_a_network(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = HubWeights(repo="acme/digits", file="weights.bin")
    assert fetch_weights(source).path.name == NAME
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_weights(source).path.name == NAME
    lock_file().unlink()  # as another user of the cache has it
    assert fetch_weights(source).path.name == NAME


# What the bytes are held to


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_bytes_of_equal_size_that_the_hub_does_not_advertise_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.altered[NAME] = flipped
    with pytest.raises(DownloadError, match="it is damaged: the Hub tells digest [0-9a-f]{64}, found .* so ask again"):
        fetch_weights(SOURCE)
    assert cached(tmp_path) == []
    assert not lock_file().exists()
    hub.altered.clear()
    assert fetch_weights(SOURCE).path.is_file()


def test_a_small_file_is_held_to_the_digest_of_git(hub: Hub, served: Path) -> None:
    from zoo_core.hub.files import hub_file

    (served / "config.json").write_text("{}")
    hub.altered["config.json"] = lambda _: b"[]"
    with pytest.raises(DownloadError, match=r"config.json: it is damaged: the Hub tells digest [0-9a-f]{40}, found"):
        hub_file("acme/digits", "config.json")
    hub.altered.clear()
    assert hub_file("acme/digits", "config.json").path.read_text() == "{}"


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client's cache hold files in place of links, as on Windows."""
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda _: False)


@pytest.mark.usefixtures("without_links")
def test_a_cache_without_links_is_held_to_what_the_hub_tells(hub: Hub, served: Path, tmp_path: Path) -> None:
    from zoo_core.hub.files import hub_file

    (served / "config.json").write_text("{}")
    for name, change, length in ((NAME, flipped, 64), ("config.json", lambda _: b"[]", 40)):
        hub.altered[name] = change
        with pytest.raises(DownloadError, match=f"it is damaged: the Hub tells digest [0-9a-f]{{{length}}}, found"):
            hub_file("acme/digits", name)
        hub.altered.clear()
        path = hub_file("acme/digits", name).path
        assert path.read_bytes() == (served / name).read_bytes()
        assert not path.is_symlink()
        hub.requests.clear()
        hub_file("acme/digits", name)
        assert hub.requests == []


@pytest.mark.usefixtures("without_links")
def test_a_file_that_was_compared_with_nothing_is_told(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    huggingface_hub.hf_hub_download("acme/digits", NAME)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_weights(SOURCE).path.is_file()
    assert "the bytes were compared with nothing" in caplog.text


def test_a_file_that_comes_short_is_refused_and_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.altered[NAME] = lambda content: content[:1000]
    with pytest.raises(DownloadError, match="the Hub tells digest|the download failed"):
        fetch_weights(SOURCE)
    assert cached(tmp_path) == []


def test_a_transfer_that_stalls_ends_with_an_error(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.stalled[NAME] = 1.0
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    with pytest.raises(DownloadError, match=r"the download failed \(.*; nothing was kept of it, so try again"):
        fetch_weights(SOURCE)
    assert cached(tmp_path) == []


def test_a_poisoned_cache_is_told_even_where_its_size_fits(hub: Hub, tmp_path: Path) -> None:
    fetch_weights(SOURCE)
    (blob,) = cached(tmp_path)
    blob.write_bytes(flipped(blob.read_bytes()))
    with pytest.raises(DownloadError, match="it is damaged: .* it was removed from the cache, so ask again"):
        fetch_weights(SOURCE)
    assert fetch_weights(SOURCE).path.is_file()


def test_a_file_is_read_for_its_digest_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch_weights(SOURCE)
    monkeypatch.setattr("zoo_core.hub.files.sha256_of", lambda _: pytest.fail("was read again"))
    assert fetch_weights(SOURCE) == first
    with pytest.raises(pytest.fail.Exception):
        fetch_weights(SOURCE, verify=True)


def test_a_pinned_file_of_the_cache_asks_nothing_of_the_hub(hub: Hub) -> None:
    fetch_weights(SOURCE)
    hub.requests.clear()
    fetch_weights(SOURCE)
    assert hub.requests == []


# Pins


def test_the_first_download_pins_commit_digest_and_size(hub: Hub, served: Path) -> None:
    found = fetch_weights(SOURCE)
    assert (found.commit, found.size) == (hub.move("acme/digits", served), (served / NAME).stat().st_size)
    assert pinned("acme/digits", NAME) == Pin(commit=found.commit, sha256=found.sha256, size=found.size)
    assert pinned("acme/digits", NAME, "v1") is None
    told = json.loads(lock_file().read_text())["pins"]["acme/digits"][NAME]
    assert told == {"commit": found.commit, "sha256": found.sha256, "size": found.size}


def test_a_branch_that_moves_does_not_move_the_weights(hub: Hub, tmp_path: Path) -> None:
    first = fetch_weights(SOURCE)
    hub.move("acme/digits", weights(tmp_path / "newer", seed=6))
    shutil.rmtree(tmp_path / "cache")
    assert fetch_weights(SOURCE) == first
    lock_file().unlink()
    assert fetch_weights(SOURCE).sha256 != first.sha256


def test_a_history_that_was_rewritten_is_told_where_the_weights_are_others(hub: Hub, tmp_path: Path) -> None:
    first = fetch_weights(SOURCE)
    moved = weights(tmp_path / "newer", seed=5)
    (moved / "note.txt").write_text("squashed")
    hub.move("acme/digits", moved)
    hub.forget("acme/digits")
    shutil.rmtree(tmp_path / "cache")
    again = fetch_weights(SOURCE)
    assert (again.sha256, again.commit != first.commit) == (first.sha256, True)
    assert pinned("acme/digits", NAME) == Pin(commit=again.commit, sha256=again.sha256, size=again.size)

    hub.move("acme/digits", weights(tmp_path / "other", seed=6))
    hub.forget("acme/digits")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(DownloadError) as caught:
        fetch_weights(SOURCE)
    told = str(caught.value)
    assert f"sha256 {first.sha256} of {first.size} bytes then (commit {again.commit})" in told
    assert told.endswith(f"to take what the Hub has now, take its lines out of {lock_file()}")


def test_a_pin_that_came_from_another_machine_holds_here(hub: Hub) -> None:
    commit = hub.move("acme/digits", hub.repositories["acme/digits"]["main"])
    pin("acme/digits", NAME, Pin(commit=commit, sha256="0" * 64, size=7))
    with pytest.raises(DownloadError, match="not the file that was pinned at first: sha256 0{64} of 7 bytes then"):
        fetch_weights(SOURCE)


def test_a_user_whose_folder_is_closed_downloads_all_the_same(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "file" / "home"))
    assert fetch_weights(SOURCE).path.is_file()
    assert f"{NAME} of acme/digits is not pinned" in caplog.text


PINNER = """
import sys
from zoo_core.hub.lockfile import Pin, pin
for number in range(25):
    pin("acme/digits", f"{sys.argv[1]}-{number}", Pin(commit="c" * 40, sha256="d" * 64, size=number))
"""


def test_two_processes_that_pin_at_once_lose_no_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    running = [subprocess.Popen([sys.executable, "-c", PINNER, name]) for name in ("one", "two")]
    assert [process.wait(60) for process in running] == [0, 0]
    names = json.loads(lock_file().read_text())["pins"]["acme/digits"]
    assert set(names) == {f"{name}-{number}" for name in ("one", "two") for number in range(25)}
