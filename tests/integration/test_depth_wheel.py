"""A modality of a stranger: depth maps, in a wheel that is built and installed beside zoo in a fresh environment.

The wheel is that of `docs/examples/acme-depth`, the example of docs/write-a-modality.md. Nothing of zoo knows it.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest

from support.environments import Environment, installed

DOCS = Path(__file__).parents[2] / "docs"
ACME = DOCS / "examples" / "acme-depth"

SCRIPT = """
import json, torch, zoo
from zoo_core.nn.eval_mode import evaluating
torch.manual_seed(0)
model = zoo.build("depth-tiny")
maps, texts = torch.rand(4, 1, 16, 16), model.tokenizer(["a wall", "a street", "a hall", "a field"])
model.train()
loss, optimizer = zoo.loss("contrastive"), torch.optim.AdamW(model.parameters(), 0.01)
losses = []
for _ in range(5):
    features, text_features, scale = model(depth=maps, text=texts)
    value = loss(features, text_features, scale)
    optimizer.zero_grad(); value.backward(); optimizer.step()
    losses.append(value.item())
model.eval()
zoo.save(model, "saved")
again = zoo.load("saved", verify=True, probe=True)
with evaluating(model), torch.no_grad():
    same = torch.equal(model.encode("depth", maps), again.encode("depth", maps))
alone = zoo.load("saved", towers=("depth",))
torch.save(alone.depth.state_dict(), "depth.pt")
fast = zoo.build("saved", optimize="inference")
try:
    model.encode_image(torch.rand(1, 3, 16, 16))
except zoo.ZooError as error:
    refused = str(error)
try:
    zoo.preprocess("depth-tiny")
except zoo.ZooError as error:
    no_images = str(error)
print(json.dumps({
    "losses": losses,
    "same": same,
    "towers": [list(model.towers), list(alone.towers)],
    "keys": sorted({key.partition(".")[0] for key in model.state_dict()}),
    "verified": [[one.part, one.ok] for one in zoo.verify("saved")],
    "probe": sorted(json.load(open("saved/zoo.json"))["probe"]["depth"]),
    "files": list(again.encode("depth", ["maps/a.npy", "maps/b.npy"]).shape),
    "alone": torch.equal(alone.encode("depth", maps), again.encode("depth", maps)),
    "fast": torch.allclose(fast.encode("depth", maps), again.encode("depth", maps), atol=1e-5),
    "identified": [[one.names[0], one.fit, one.towers] for one in (
        zoo.identify("saved/model.safetensors")[0], zoo.identify("depth.pt")[0])],
    "refused": refused,
    "no_images": no_images,
}))"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("depth")
    environment = installed(folder, [ACME])
    (folder / "maps").mkdir()
    for index, name in enumerate(("a.npy", "b.npy")):
        numpy.save(folder / "maps" / name, numpy.full((10, 20 + index), 3.0 + index))
    (folder / "maps" / "notes.txt").write_text("no map")
    shutil.copytree(ACME / "tests", folder / "tests")
    return environment


@pytest.fixture(scope="module")
def facts(environment: Environment) -> Any:
    """Build, train, save, load and verify a model of depth maps and text; return what came of it."""
    return environment.script(SCRIPT)


def test_a_model_of_depth_and_text_trains(facts: Any) -> None:
    assert facts["losses"][-1] < facts["losses"][0]


def test_it_is_saved_and_comes_back_with_equal_features(facts: Any) -> None:
    assert (facts["same"], facts["alone"], facts["fast"]) == (True, True, True)
    assert facts["towers"] == [["depth", "text"], ["depth"]]
    assert facts["keys"] == ["depth", "logit_scale", "text"]


def test_its_probe_tells_of_both_towers(facts: Any) -> None:
    assert facts["probe"] == ["features", "values"]
    names, parts = ("config.yaml", "model.safetensors"), ("depth_preprocess", "depth tower", "tokenizer", "text tower")
    assert facts["verified"] == [[name, True] for name in (*names, *parts)]


def test_files_are_read_by_its_own_preprocessing(facts: Any) -> None:
    assert facts["files"] == [2, 16]


def test_its_checkpoint_is_identified(facts: Any) -> None:
    assert facts["identified"] == [["depth-tiny", 1.0, ["depth", "text"]], ["depth-tiny", 1.0, ["depth"]]]


def test_images_are_refused_with_what_it_encodes(facts: Any) -> None:
    assert facts["refused"] == "this model has no modality 'image'; allowed: depth, text"
    assert facts["no_images"] == "this architecture has no modality 'image'; allowed: depth, text"


def run(environment: Environment, *arguments: str) -> str:
    done = environment.zoo(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_and_described(environment: Environment) -> None:
    assert "depth-tiny" in run(environment, "list").split()
    told = run(environment, "info", "depth-tiny")
    assert "depth-conv" in told
    assert "depth-map" in told
    groups = json.loads(run(environment, "info", "depth-tiny", "--groups", "--json"))
    assert list(groups) == ["depth", "text"]
    assert "depth-tower" in run(environment, "plugins")


def test_it_embeds_files_from_the_command_line(environment: Environment, facts: Any) -> None:
    run(environment, "embed", "maps", "--modality", "depth", "--model", "saved", "--out", "maps.npy")
    rows = numpy.load(environment.folder / "maps.npy")
    assert rows.shape == (2, 16)
    assert numpy.allclose(numpy.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert (environment.folder / "maps.ids.txt").read_text().split() == ["maps/a.npy", "maps/b.npy"]
    run(environment, "embed", "maps", "--modality", "depth", "--model", "saved", "--out", "set")
    assert json.loads((environment.folder / "set" / "embeddings.json").read_text())["of"] == "depth"


def test_it_is_profiled(environment: Environment) -> None:
    done = run(environment, "profile", "depth-tiny", "--batch-size", "2", "--steps", "1", "--no-trace", "--json")
    towers = json.loads(done)["towers"]
    assert list(towers) == ["depth", "text"]
    # by hand: 8 * 8 outputs of both convolutions, and the projection
    assert towers["depth"]["macs"] == 64 * 9 * 1 * 8 + 64 * 9 * 8 * 8 + 8 * 16


def test_the_examples_own_tests_pass(environment: Environment) -> None:
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_the_plugin_the_saved_model_says_what_is_missing(environment: Environment, facts: Any) -> None:
    done = environment.zoo("verify", "saved", disable="acme-depth")
    assert done.returncode != 0
    assert "depth" in done.stderr
    assert "Traceback" not in done.stderr


FENCED = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCED.findall((DOCS / "write-a-modality.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_the_tutorial_shows_the_code_of_the_example(name: str, block: str) -> None:
    assert block == (ACME / name).read_text(encoding="utf-8")


def test_the_tutorial_shows_every_file_of_the_example() -> None:
    files = {str(path.relative_to(ACME)) for path in ACME.rglob("*") if path.suffix in (".py", ".toml", ".yaml")}
    assert {name for name, _ in BLOCKS} == files - {"acme_depth/__init__.py"}
