"""Traps that end in another model than was meant: real kills, closed folders, and files that fit in all but meaning.

Most traps have a test beside what they are about: damaged and hostile files in `zoo/checkpoints/containers`,
weights that do not fit in `zoo/checkpoints`, saved folders in `zoo/saved`, the cache in `zoo/hub`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

import zoo
from support.checkpoints.saved_folders import TINY, rewrite, with_tokenizer
from support.hf_hub_server import Hub, used
from support.models.families import FAMILIES
from zoo.saved.read import open_saved
from zoo_core.errors import CheckpointError, ZooError


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with used(tmp_path, monkeypatch) as hub:
        yield hub


PUSHER = """
import os, random, signal, sys, time, warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)  # fork in a process with threads
import huggingface_hub, torch, zoo
from zoo.transfer import push as publishing
from zoo.saved import write as saving
from zoo.saved import probe as probes
sys.path.insert(0, sys.argv[1])
from support.checkpoints.saved_folders import TINY
torch.set_num_threads(1)
model = zoo.build(TINY)
def push(number):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(number / 2**20)  # so that it is a logit scale too
    zoo.push_to_hub(model, "acme/tiny")
start = time.monotonic()
push(1)
span = time.monotonic() - start  # of a push on this machine as it is now
for kill in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        number = kill * 1000
        while True:
            number += 1
            push(number)
    time.sleep(random.uniform(0.5, 4.0) * span)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
push(2)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_push_leaves_the_old_model_or_the_new_one(hub: Hub, tmp_path: Path, kills: int) -> None:
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment["HF_HUB_OFFLINE"] = "0"
    arguments = [str(Path(__file__).parents[1]), str(kills)]
    command = [sys.executable, "-c", PUSHER, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    states = [state for state in hub.repositories["acme/tiny"].values() if any(state.iterdir())]
    assert len(states) > 2
    for state in states:  # all that anybody could ever have loaded
        open_saved(state).check_files(all_bytes=True)
        values = {float(one) for tensor in load_file(state / "model.safetensors").values() for one in tensor.unique()}
        assert len(values) == 1


CLOSED = """
import os, sys
import torch, zoo
from zoo_core.errors import SaveError
folder = sys.argv[1]
model = zoo.load(folder)
if os.geteuid() == 0:
    os.setuid(65534)  # root writes everywhere
try:
    zoo.save(model, folder)
except SaveError as error:
    print(error)
print(zoo.load(folder, verify=True).config.embed_dim)
"""


def test_a_folder_that_is_read_only_is_told_and_stays(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        outer = Path(open_to_all)
        model = zoo.save(zoo.build(TINY), outer / "closed" / "model")
        outer.chmod(0o755)
        for path in (outer / "closed", model):
            path.chmod(0o555)
        done = subprocess.run([sys.executable, "-c", CLOSED, str(model)], capture_output=True, text=True)
        for path in (outer / "closed", model):
            path.chmod(0o755)
        assert done.returncode == 0, done.stderr[-2000:]
        told, width = done.stdout.splitlines()
        assert "cannot be written: Permission denied" in told
        assert width == "16"


def swapped(vocabulary: dict[str, int]) -> dict[str, int]:
    """Exchange the words of a vocabulary that make up the probe's captions; its size stays."""
    names = sorted((name for name in vocabulary if name.isalpha()), key=vocabulary.__getitem__)
    return vocabulary | dict(zip(names, [vocabulary[name] for name in reversed(names)], strict=True))


def test_files_of_another_tokenizer_of_equal_size_are_told_by_the_probe(tmp_path: Path) -> None:
    from support.tokenizers.tiny_tokenizers import MAKERS

    folder = zoo.save(with_tokenizer(MAKERS["wordpiece"](tmp_path / "files")), tmp_path / "model")
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] = swapped(content["model"]["vocab"])
    path.write_text(json.dumps(content))
    rewrite(folder)
    assert [one.part for one in zoo.verify(folder) if one.ok is False] == ["tokenizer"]
    with pytest.raises(CheckpointError, match="does not give here what it gave where it was saved: tokenizer"):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("section", "change", "part"),
    [
        ("tokenizer", {"cleaning": "canonicalize"}, "tokenizer"),
        ("preprocess", {"mean": [0.5, 0.5, 0.5]}, "preprocess"),
        ("preprocess", {"std": [0.5, 0.5, 0.5]}, "preprocess"),
        ("preprocess", {"interpolation": "bilinear"}, "preprocess"),
        ("preprocess", {"resize_mode": "squash"}, "preprocess"),
        ("text", {"pool_type": "last"}, "text tower"),
        ("text", {"causal": False}, "text tower"),
    ],
    ids=["cleaning", "mean", "std", "interpolation", "resize mode", "pooling", "causal"],
)
def test_another_contract_of_equal_weights_is_told_by_the_probe(
    section: str, change: Any, part: str, tmp_path: Path
) -> None:
    folder = zoo.save(zoo.build(TINY), tmp_path / "model")
    edited(folder, section, change)
    forged(folder)
    with pytest.raises(CheckpointError, match=f"was saved: .*{part}: "):
        zoo.load(folder)


def edited(folder: Path, section: str, change: Any) -> None:
    """Change a section of the config; None takes a key out."""
    path = folder / "config.yaml"
    data = yaml.safe_load(path.read_text())
    data[section] = {key: value for key, value in (data[section] | change).items() if value is not None}
    path.write_text(yaml.safe_dump(data))


def forged(folder: Path) -> None:
    """Make the weights and the digests of a folder agree with its config: what is left is what the model gives."""
    weights, data = folder / "model.safetensors", yaml.safe_load((folder / "config.yaml").read_text())
    save_file(load_file(weights), weights, metadata={"zoo.config": json.dumps(data)})
    rewrite(folder)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tokenizer whose ids a config cannot tell: padding 0, end of text 3, and larger ones."""
    from support.tokenizers.tiny_tokenizers import MAKERS

    return MAKERS["wordpiece"](tmp_path_factory.mktemp("words"))


EOS = {"pool_type": "eos", "eos_id": 3}
MODERN = {"eos_id": 3, "pad_id": 0}


@pytest.mark.parametrize(
    ("family", "text", "change", "told", "forged_told"),
    [
        ("CoCa", {}, {"pad_id": 7}, "text.pad_id is 7, the weights are for 0", "text.pad_id: 7 is not the padding"),
        ("HF text", {}, {"pad_id": 7}, "text.pad_id is 7, the weights are for 0", "text.pad_id: 7 is not the padding"),
        ("modern text", MODERN, {"pad_id": 7}, "text.pad_id is 7, the weights", "text.pad_id: 7 is not the padding"),
        ("timm SigLIP", {}, {"pad_mask": True, "pad_id": 0}, "text.pad_mask is True, the weights", "text tower: 1 - "),
        (
            "modern text",
            MODERN,
            {"eos_id": 7},
            "text.eos_id is 7, the weights",
            "text.eos_id: 7 is not the end of text",
        ),
        ("ViT CLIP", EOS, {"eos_id": 7}, "text.eos_id is 7, the weights", "text.eos_id: 7 is not the end of text"),
        (
            "ViT CLIP",
            EOS,
            {"pool_type": "argmax", "eos_id": None},
            "text.pool_type is 'argmax'",
            "text.pool_type: 'argm",
        ),
        ("timm SigLIP", {}, {"pool_type": "first"}, "text.pool_type is 'first', the weights", "text tower: 1 - cosine"),
        ("ViT CLIP", EOS, {"context_length": 9}, "text.context_length is 9, the weights", "10 tokens for 9"),
        (
            "HF text",
            {},
            {"context_length": 9},
            "text.context_length is 9, the weights",
            "expected 1 to 9 tokens in each",
        ),
        (
            "modern text",
            MODERN,
            {"context_length": 20},
            "text.context_length is 20, the wei",
            "tokenizer: other ids than",
        ),
    ],
)
def test_another_padding_length_or_end_of_text_in_a_folder_is_named(
    family: str, text: Any, change: Any, told: str, forged_told: str, words: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    size = len(AutoTokenizer.from_pretrained(words).get_vocab())
    architecture = FAMILIES[family].architecture
    architecture = architecture | {"text": architecture["text"] | text | {"vocab_size": size}}
    tokenizer = {"type": "hf", "name": str(words), "vocab_size": size}
    folder = zoo.save(zoo.build(architecture | {"tokenizer": tokenizer}), tmp_path / "model")
    zoo.load(folder, probe=True)
    edited(folder, "text", change)
    with pytest.raises(CheckpointError, match="is not the model that was saved: config.yaml"):
        zoo.load(folder)
    rewrite(folder)
    with pytest.raises(CheckpointError, match=re.escape(told)):
        zoo.load(folder)
    forged(folder)
    with pytest.raises(CheckpointError, match=re.escape(forged_told)):
        zoo.load(folder)


@pytest.mark.parametrize("change", [{"pool_type": "eos", "eos_id": 5}, {"context_length": 9}])
def test_a_folder_is_held_to_the_ids_that_its_config_tells(change: Any, tmp_path: Path) -> None:
    folder = zoo.save(FAMILIES["ViT CLIP"].build(), tmp_path / "model")
    edited(folder, "text", change)
    forged(folder)
    with pytest.raises(ZooError, match="eos_id: 5 is not the end of text|10 tokens for 9"):
        zoo.load(folder)
