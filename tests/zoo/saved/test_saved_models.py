"""Saved models: written whole or not at all, and never taken for what they are not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from support.checkpoints.saved_folders import TINY, rewrite
from zoo.cli.app import main
from zoo.saved import probe as probes
from zoo_core.errors import CheckpointError, NotFiniteError, SaveError
from zoo_core.files import atomic_folder as whole_folders
from zoo_core.files.atomic_folder import atomic_folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return zoo.build(TINY)


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    return zoo.save(model, tmp_path / "model")


def edit_config(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("activation: gelu", "activation: quick_gelu"))


def flip_a_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def edit_origin(folder: Path) -> None:
    path = folder / "zoo.json"
    origin = json.loads(path.read_text())
    origin["probe"]["text"]["ids"][0][1] = 7
    path.write_text(json.dumps(origin))


def test_a_saved_model_holds_its_config_weights_card_and_digests(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "model.safetensors", "zoo.json", "README.md"}
    origin = json.loads((folder / "zoo.json").read_text())
    assert set(origin["files"]) == {"config.yaml", "model.safetensors"}
    assert origin["versions"]["torch"] == torch.__version__
    assert "zoo verify model" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit_config, r"config\.yaml (has|holds)"),
        (truncate, r"model\.safetensors has \d+ bytes, but \d+ were saved"),
        (flip_a_bit, r"model\.safetensors holds other bytes"),
        (edit_origin, r"zoo\.json was changed since the model was saved"),
        (lambda folder: (folder / "zoo.json").unlink(), r"zoo\.json: cannot be read: No such file"),
        (lambda folder: (folder / "zoo.json").write_text("{"), r"zoo\.json:1:2: is not JSON: .*; save the model again"),
        (
            lambda folder: (folder / "zoo.json").write_text("[]"),
            "zoo.json:1:1: expected a mapping of keys at the top level",
        ),
        (lambda folder: (folder / "zoo.json").write_text('{"format": 9}'), "expected format 2, found 9"),
        (lambda folder: (folder / "config.yaml").unlink(), "is no saved model"),
    ],
)
def test_a_folder_that_was_changed_is_refused(folder: Path, change: Callable[[Path], Any], message: str) -> None:
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        zoo.load(folder, verify=True)


def test_large_weights_are_read_for_their_digest_on_request_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.saved.manifest.SMALL", 1000)
    flip_a_bit(folder)
    zoo.load(folder, probe=False)
    with pytest.raises(CheckpointError, match="holds other bytes"):
        zoo.load(folder, verify=True)


def test_people_may_write_in_the_readme(folder: Path) -> None:
    (folder / "README.md").write_text("ours")
    assert all(one.ok for one in zoo.verify(folder))


def swap_towers(tensors: dict[str, torch.Tensor]) -> None:
    for key in [one for one in tensors if one.startswith("transformer.")]:
        tensors[key], tensors[f"visual.{key}"] = tensors[f"visual.{key}"], tensors[key]


def test_the_probe_tells_equal_shapes_with_other_weights(folder: Path) -> None:
    rewrite(folder, swap_towers)
    found = {one.part: one.ok for one in zoo.verify(folder)}
    assert (found["image tower"], found["text tower"]) == (False, False)
    assert (found["preprocess"], found["tokenizer"]) == (True, True)
    with pytest.raises(CheckpointError, match="image tower: 1 - cosine .*, allowed 1e-05; text tower"):
        zoo.load(folder)
    zoo.load(folder, probe=False)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("    - 0.48145466", "    - 0.5", "preprocess"),
        ("cleaning: lower", "cleaning: whitespace", "tokenizer"),
        ("activation: gelu", "activation: quick_gelu", "image tower"),
    ],
)
def test_the_probe_tells_another_config_of_equal_weights(folder: Path, old: str, new: str, part: str) -> None:
    path = folder / "config.yaml"
    text = path.read_text().replace(old.strip("- "), new.strip("- "), 1)
    assert text != path.read_text()
    path.write_text(text)
    weights = folder / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"zoo.config": json.dumps(zoo.config(path).data())})
    rewrite(folder)
    assert next(one.part for one in zoo.verify(folder) if one.ok is False) == part


def test_weights_without_their_folder_still_say_what_they_are_for(folder: Path) -> None:
    weights = folder / "model.safetensors"
    assert zoo.build(folder / "config.yaml", pretrained=weights).config == zoo.load(folder).config
    changed = yaml.safe_load((folder / "config.yaml").read_text())
    changed["vision"]["activation"] = "quick_gelu"
    with pytest.raises(CheckpointError, match="vision.activation is 'quick_gelu', the weights are for 'gelu'"):
        zoo.build(changed, pretrained=weights)
    zoo.build(folder / "config.yaml", pretrained=weights, overrides=["vision.activation=quick_gelu"])  # asked for


def test_equal_models_are_equal_files(model: Any, tmp_path: Path) -> None:
    """safetensors writes its metadata in an order of chance."""
    named = model.config.model_copy(update={"description": 'é "quoted" \\ /\n'})
    model.config = named
    files = {(zoo.save(model, tmp_path / str(number)) / "model.safetensors").read_bytes() for number in range(8)}
    assert len(files) == 1
    with safe_open(tmp_path / "0" / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["zoo.config"]) == named.data()
    assert zoo.load(tmp_path / "0", verify=True).config == named


def test_the_probe_is_checked_once_in_each_environment(folder: Path, home: Path, monkeypatch: Any) -> None:
    calls: list[int] = []
    check = probes.check_probe
    monkeypatch.setattr(probes, "check_probe", lambda *args: calls.append(1) or check(*args))
    zoo.load(folder)
    zoo.build(folder)
    assert len(calls) == 1
    zoo.load(folder, dtype=torch.bfloat16)
    assert len(calls) == 2
    zoo.load(folder, probe=True)
    assert len(calls) == 3
    zoo.load(folder, towers=("text",))
    assert len(calls) == 4
    assert len(list((home / "probed").iterdir())) == 3


def test_a_model_without_a_probe_loads_and_says_so_on_request(model: Any, tmp_path: Path) -> None:
    folder = zoo.save(model, tmp_path / "bare", probe=False)
    zoo.load(folder)
    assert {one.ok for one in zoo.verify(folder)} == {True, None}
    with pytest.raises(CheckpointError, match="saved without a probe"):
        zoo.load(folder, probe=True)


def test_a_model_with_nan_weights_is_not_saved_by_accident(model: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        model.visual.proj[0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match="forward gave NaN or infinity of finite inputs"):
        zoo.save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    zoo.save(model, tmp_path / "model", probe=False)


def test_a_part_that_cannot_be_had_is_reported_as_such(model: Any, tmp_path: Path) -> None:
    model.tokenizer = None
    findings = zoo.verify(zoo.save(model, tmp_path / "model"))
    assert {one.part: one.ok for one in findings}["text tower"] is None
    assert "the model has no tokenizer" in findings[-1].detail


def test_the_command_prints_which_part_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder)]) == 0
    assert "differs" not in capsys.readouterr().out
    flip_a_bit(folder)
    assert main(["verify", str(folder), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [one["part"] for one in findings if one["ok"] is False] == ["model.safetensors"]
    assert main(["verify", str(folder), "--dtype", "int8"]) == 2
    assert main(["verify", str(folder / "nowhere")]) == 2


# Writing


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with atomic_folder(tmp_path / "a" / "model") as scratch:
            (scratch / text).write_text(text)
    assert contents(tmp_path / "a" / "model") == {"two": "two"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model"]


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as scratch:
        (scratch / "a").write_text("old")
    with pytest.raises(SaveError, match="cannot be written: No space left"), atomic_folder(tmp_path / "model"):
        raise OSError(28, "No space left on device")
    assert contents(tmp_path / "model") == {"a": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_system_that_cannot_exchange_names_moves_the_old_folder_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_folders, "_exchange", lambda *_: False)
    test_a_folder_is_replaced_as_a_whole(tmp_path)
    (tmp_path / "a" / "model").rename(tmp_path / "a" / ".model.old.x")  # as a kill between the two steps leaves it
    whole_folders.restore(tmp_path / "a" / "model")
    assert contents(tmp_path / "a" / "model") == {"two": "two"}


def test_what_a_killed_process_left_is_swept_up_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / ".model.new.dead").mkdir()
    (tmp_path / ".model.new.dead.lock").touch()
    with atomic_folder(tmp_path / "model") as alive:
        assert not (tmp_path / ".model.new.dead").exists()
        with atomic_folder(tmp_path / "model") as other:
            (other / "a").write_text("first")
        (alive / "a").write_text("last")
    assert contents(tmp_path / "model") == {"a": "last"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("saves", "message"), [(1, None), (99, "was replaced 5 times while it was read")])
def test_a_folder_that_is_replaced_while_it_is_read_is_read_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, saves: int, message: str | None
) -> None:
    """The first reading finds the config of one save and the weights of the next, which is of another size."""
    from zoo.building import load as building

    assemble, left = building.assemble, [saves]

    def overtaken(config: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            width = 64 if config.vision.width == 32 else 32
            other = assemble(zoo.config(TINY, overrides=[f"vision.width={width}"]))
            zoo.save(other, folder, probe=False)
        return assemble(config, **options)

    monkeypatch.setattr(building, "assemble", overtaken)
    if message is None:
        assert zoo.load(folder).config.vision.width == 64
    else:
        with pytest.raises(CheckpointError, match=message):
            zoo.load(folder)


KILLER = """
import os, random, signal, sys, time, warnings
from pathlib import Path
import torch, zoo
warnings.filterwarnings("ignore", category=DeprecationWarning)  # fork in a process with threads
target, kills = Path(sys.argv[1]), int(sys.argv[2])
sys.path.insert(0, sys.argv[3])
from support.checkpoints.saved_folders import TINY
torch.set_num_threads(1)
model = zoo.build(TINY)
def save(number):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(number / 2**20)  # so that it is a logit scale too
    zoo.save(model, target, probe=False)
save(0)
start = time.perf_counter(); save(0); took = time.perf_counter() - start
seen = set()
for kill in range(kills):
    writers = 1 + kill % 2  # every second time two processes save at once
    children = []
    for writer in range(writers):
        child = os.fork()
        if child == 0:
            number = kill * 1000 + writer * 500
            while True:
                number += 1
                save(number)
        children.append(child)
    time.sleep(random.uniform(0, 3 * took * writers))
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    values = {float(value) for one in zoo.load(target, verify=True, probe=False).parameters() for value in one.detach().unique()}
    assert len(values) == 1, values
    seen |= values
save(1)
left = [path.name for path in target.parent.iterdir()]
assert left == [target.name], left
print(len(seen))
"""


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_save_leaves_the_old_model_or_the_new_one(tmp_path: Path, kills: int) -> None:
    arguments = [str(tmp_path / "folder" / "model"), str(kills), str(Path(__file__).parents[2])]
    done = subprocess.run([sys.executable, "-c", KILLER, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > kills // 3  # the kills came at many stages, not always before the first save


def test_a_full_disk_leaves_the_old_model(folder: Path) -> None:
    program = (
        "import resource, signal, sys, zoo\n"
        "model = zoo.load(sys.argv[1], probe=False)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "zoo.save(model, sys.argv[1])\n"
    )
    before = (folder / "zoo.json").read_text()
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=120)
    assert "SaveError" in done.stderr, done.stderr
    assert (folder / "zoo.json").read_text() == before
    assert all(one.ok for one in zoo.verify(folder))
