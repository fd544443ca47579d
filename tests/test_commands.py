"""The program `zoo`: what each command prints, where, and with which exit status."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from zoo.commands.app import main

TINY: dict[str, Any] = {
    "model": "clip",
    "embed_dim": 16,
    "vision": {"tower": "vit", "image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1},
    "text": {
        "tower": "clip-transformer",
        "context_length": 16,
        "vocab_size": 600,
        "width": 16,
        "heads": 1,
        "layers": 1,
    },
    "tokenizer": {"type": "clip-bpe", "vocab_size": 600},
    "preprocess": {"type": "image"},
}


def save_tiny(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    return zoo.save(zoo.build({**TINY, **changes}), folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four pictures, one of them nested and one in capitals, beside a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name in ("b.png", "a.JPG", "sub/c.png", "d.webp"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `zoo` in this process; returns exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(one) for one in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def program(
    *arguments: str, code: str | None = None, path: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `zoo` (or `code`) in a process of its own that also sees the distributions below `path`."""
    seen = [*([str(path)] if path else []), *(one for one in sys.path if one)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(seen), **options.pop("env", {})}
    code = code or "import sys; from zoo.commands.app import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        text=True,
        **({"capture_output": True} | options),
    )


# the program as a whole


def test_the_program_is_installed_under_its_name() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="zoo")
    assert entry.load() is main


@pytest.mark.parametrize(
    "name",
    ["list", "info", "plugins", "validate", "schema", "import", "classify", "embed", "demo", "profile", "pull", "push"],
)
def test_every_command_has_help(name: str, run: Run) -> None:
    assert f"{name} " in run("--help")[1]
    status, out, err = run(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: zoo {name}")


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"zoo {zoo.__version__}\n", "")


USAGE = {
    "no command": [],
    "no such command": ["lst"],
    "no such option": ["list", "--jsn"],
    "no name": ["info"],
    "no file": ["validate"],
    "no labels": ["classify", "x.png"],
    "no output": ["embed", "x.png"],
    "no whole number": ["profile", "vit-b16", "--steps", "two"],
    "below its least": ["embed", "x.png", "--out", "x.npy", "--batch-size", "0"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_a_usage_error_exits_with_2(arguments: list[str], run: Run) -> None:
    status, out, err = run(*arguments)
    assert status == 2
    assert "Usage: zoo" in err
    assert out == ""


def test_what_does_not_compute_never_imports_torch(tmp_path: Path) -> None:
    """The commands run one after the other, so that the first offender is the one that is named."""
    shutil.copy(Path(zoo.__path__[0]) / "architectures" / "vit-b16.yaml", tmp_path / "own.yaml")
    code = """
import sys
from zoo.commands.app import main
for line in sys.argv[1:]:
    assert main(line.split()) == 0, line
    heavy = {"torch", "torchvision", "timm", "transformers", "numpy", "PIL"} & set(sys.modules)
    assert not heavy, (line, heavy)
    assert line != "--help" or not {"rich", "pydantic", "yaml", "pluggy"} & set(sys.modules), line
"""
    own, theirs = tmp_path / "own.yaml", tmp_path / "theirs.json"
    theirs.write_text('{"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}}')
    lines = ["--help", "--version", "list", "list --json", "info vit-b16", "info vit-b16 --json", "plugins"]
    done = program(
        *lines, "plugins --json", f"validate {own}", f"info {own}", f"import open_clip {theirs}", "schema", code=code
    )
    assert done.returncode == 0, done.stderr


def test_an_error_is_one_line_without_a_traceback(run: Run) -> None:
    status, out, err = run("info", "vit-b17")
    assert (status, out) == (2, "")
    assert err.startswith("error: unknown architecture 'vit-b17', did you mean 'vit-b16'?")
    assert err.count("\n") == 1


def test_zoo_debug_shows_the_traceback_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DEBUG", "1")
    status, _, err = run("info", "vit-b17")
    assert status == 2
    assert "Traceback (most recent call last)" in err
    assert "error: unknown architecture 'vit-b17'" in err.splitlines()[-1]


def test_an_interrupt_ends_quietly_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.inventory.list_architectures", interrupted)
    assert run("list") == (130, "", "")


@pytest.mark.parametrize("command", ["list", "list --json", "schema", "--help"])
def test_a_closed_pipe_ends_the_program_quietly(command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = program(*command.split(), capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode in (1, 141)  # help is printed by typer, which has a status of its own


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_without_a_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        done = program("list", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


def test_output_that_cannot_be_encoded_is_escaped(tmp_path: Path) -> None:
    name = tmp_path / "a\N{EN DASH}b.yaml"
    name.write_text("model: clip")
    done = program("validate", str(name), env={"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 1
    assert r"a\u2013b.yaml:1:1: embed_dim: required key is missing" in done.stdout


# list, info, plugins


def test_list_as_json_agrees_with_the_configs(run: Run) -> None:
    status, out, err = run("list", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert [one["name"] for one in found] == zoo.list_models()
    for one in found:
        config = zoo.config(one["name"])
        assert one["parameters"] == config.parameter_count()
        assert one["image_size"] == list(config.vision.image_size)
        assert one["embed_dim"] == config.embed_dim
        assert one["problem"] is None
    assert next(one for one in found if one["name"] == "vit-b16")["aliases"] == ["ViT-B-16"]


def test_list_is_a_table_with_names_sizes_and_aliases(run: Run) -> None:
    lines = run("list", "vit-b16*")[1].splitlines()
    assert lines[0].split() == ["NAME", "PARAMETERS", "IMAGE", "EMBED", "ALIAS"]
    assert lines[1].split() == ["vit-b16", "149.6M", "224", "512", "ViT-B-16"]
    assert [line.split()[0] for line in lines[1:]] == zoo.list_models("vit-b16*")


def test_list_takes_a_pattern_of_aliases(run: Run) -> None:
    assert [one["name"] for one in json.loads(run("list", "ViT-L-14", "--json")[1])] == ["vit-l14"]


def test_a_pattern_that_matches_nothing_is_told_and_is_an_empty_list(run: Run) -> None:
    status, out, err = run("list", "zzz")
    assert (status, out) == (0, "")
    assert "no architecture matches 'zzz'" in err
    assert "'*zzz*'" in err
    assert run("list", "zzz", "--json") == (0, "[]\n", "")


def test_an_empty_list_names_the_plugins_that_cannot_be_used(strangers: Path) -> None:
    done = program("list", "wreck*", path=strangers)
    assert done.returncode == 0
    assert "quarantined plugins: wreck (wrecked 1.2)" in done.stderr


@pytest.mark.parametrize("columns", ["40", "60", "200"])
def test_a_terminal_of_any_width_shows_every_name_whole(columns: str) -> None:
    done = program("list", "vit-b16", env={"COLUMNS": columns})
    assert "".join(line.split()[0] for line in done.stdout.splitlines()[1:]) == "vit-b16"  # folded, not cut
    assert all(len(line) <= int(columns) for line in done.stdout.splitlines())
    assert "…" not in done.stdout


def test_info_as_json_tells_config_sizes_and_provenance(run: Run) -> None:
    status, out, err = run("info", "ViT-B/16-quickgelu", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["name"] == "vit-b16-quickgelu"
    assert found["aliases"] == ["ViT-B-16-quickgelu"]
    assert found["parameters"] == 149_620_737  # of open_clip's ViT-B-16
    assert found["towers"]["vision"] == {"component": "vit", "parameters": 86_192_640}
    assert found["towers"]["text"] == {"component": "clip-transformer", "parameters": 63_428_096}
    assert found["file"].endswith("vit-b16-quickgelu.yaml")
    assert found["config"]["vision"]["activation"] == "quick_gelu"
    assert zoo.config(found["config"]) == zoo.config("vit-b16-quickgelu")
    assert set(found["components"]) == {"model", "vision", "text", "tokenizer", "preprocess"}
    vision = found["components"]["vision"]
    assert (vision["distribution"], vision["version"]) == ("clip-zoo", importlib.metadata.version("clip-zoo"))
    assert "locking" in vision["capabilities"]
    assert found["pretrained"]["openai"] == "timm/vit_base_patch16_clip_224.openai"


def test_list_names_every_pair_of_architecture_and_weights(run: Run) -> None:
    status, out, _ = run("list", "vit-b32*", "--pretrained")
    assert status == 0
    assert ["vit-b32-quickgelu", "openai", "timm/vit_base_patch32_clip_224.openai", "quick_gelu"] in [
        line.split() for line in out.splitlines()
    ]
    assert "rn50" not in out
    assert (
        json.loads(run("list", "--pretrained", "--json")[1])["rn50-quickgelu"]["openai"]["activation"] == "quick_gelu"
    )


def test_info_names_pretrained_tags(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.pretrained_entries import Pretrained

    entry = Pretrained(path=Path("x.safetensors"), description="from a test")
    monkeypatch.setattr("zoo.inventory.entries_of", lambda name: {"best": entry} if name == "vit-b16" else {})
    assert json.loads(run("info", "vit-b16", "--json")[1])["pretrained"] == {"best": "x.safetensors: from a test"}
    assert "best        x.safetensors: from a test" in run("info", "vit-b16")[1]


def test_info_prints_the_config_as_yaml_that_can_be_used(run: Run) -> None:
    status, out, _ = run("info", "vit-b32")
    assert status == 0
    assert "151,277,313" in out  # of open_clip's ViT-B-32
    assert zoo.config(yaml.safe_load(out[out.index("\nmodel: ") :])) == zoo.config("vit-b32")


def test_info_takes_a_file_and_a_saved_folder(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("extends: vit-b16\nembed_dim: 256\n")
    assert json.loads(run("info", tmp_path / "own.yaml", "--json")[1])["config"]["embed_dim"] == 256
    assert json.loads(run("info", tiny, "--json")[1])["config"]["embed_dim"] == 16


@pytest.mark.parametrize(("image", "text"), [(0, 0), (1, 2), (2, 0), (99, 1)])
def test_groups_are_trainable_where_a_built_model_is_once_its_towers_are_locked(
    run: Run, tiny: Path, image: int, text: int
) -> None:
    model = zoo.build(tiny)
    model.lock_image_tower(image)
    model.lock_text_tower(text)
    status, out, err = run("info", tiny, "--lock-image", image, "--lock-text", text, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert list(found) == ["vision", "text"]
    for groups, unlocked in zip(found.values(), (image, text), strict=True):
        assert [one["number"] for one in groups] == list(range(1, len(groups) + 1))
        for one in groups:
            assert one["parameters"] == sum(model.get_parameter(name).numel() for name in one["names"])
            assert one["trainable"] == (one["parameters"] if one["number"] <= unlocked else 0)
            assert all(model.get_parameter(name).requires_grad == (one["trainable"] > 0) for name in one["names"])


def test_groups_hold_every_parameter_of_both_towers_once(run: Run, tiny: Path) -> None:
    found = json.loads(run("info", tiny, "--groups", "--json")[1])
    names = [name for groups in found.values() for one in groups for name in one["names"]]
    assert sorted(names) == sorted(name for name, _ in zoo.build(tiny).named_parameters() if name != "logit_scale")


def test_groups_are_a_table_that_begins_at_the_output(run: Run, tiny: Path) -> None:
    status, out, _ = run("info", tiny, "--lock-image", 1)
    head, *rows = [line.split("  ") for line in out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in (head, *rows)]
    assert status == 0
    assert cells[0] == ["TOWER", "GROUP", "FIRST PARAMETER", "PARAMETERS", "TRAINABLE"]
    assert cells[1] == ["vision", "1", "visual.proj", "512", "yes"]
    assert cells[2][2] == "visual.transformer.resblocks.0.ln_1.weight and 13 more"
    assert cells[2][4] == "no"
    assert cells[4] == ["text", "1", "text.text_projection", "256", "yes"]


def test_a_group_of_which_some_is_frozen_is_trainable_partly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.groups import Group

    group = Group(number=1, names=("visual.proj",), parameters=3, trainable=2)
    monkeypatch.setattr("zoo.groups.layer_groups", lambda *_, **__: {"vision": (group,)})
    assert run("info", "any", "--groups")[1].splitlines()[1].endswith("3  partly")


def test_groups_take_no_memory_however_large_the_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_for_real(*_: Any) -> None:
        raise AssertionError("the groups are told from the meta device")

    monkeypatch.setattr("torch.Tensor.normal_", lambda tensor, *_, **__: tensor if tensor.is_meta else build_for_real())
    assert run("info", "vit-b32", "--groups")[0] == 0


GROUP_ERRORS = {
    "no such name": (["vit-b17", "--groups"], "error: unknown architecture 'vit-b17', did you mean 'vit-b16'?"),
    "fewer than none": (["vit-b16", "--lock-text", "-1"], "Invalid value for '--lock-text'"),
}


@pytest.mark.parametrize(("arguments", "message"), GROUP_ERRORS.values(), ids=GROUP_ERRORS)
def test_groups_refuse(arguments: list[str], message: str, run: Run) -> None:
    status, out, err = run("info", *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_plugins_tells_every_component_with_its_distribution(run: Run) -> None:
    status, out, err = run("plugins", "--json")
    assert (status, err) == (0, "")
    found = {one["name"]: one for one in json.loads(out)}
    assert {one["status"] for one in found.values()} == {"ok"}
    assert found["vit"]["distribution"] == "clip-zoo"
    (tower,) = found["vit"]["components"]
    assert (tower["kind"], tower["name"], tower["missing"]) == ("vision-tower", "vit", [])
    assert "locking" in tower["capabilities"]
    assert tower["summary"]


STRANGER = """
from zoo_core.plugin import ComponentSpec, hookimpl
ZOO_API_VERSION = 1
@hookimpl
def zoo_components():
    parts = dict(config="acme.config:Config", factory="acme.tower:Tower")
    yield ComponentSpec("vision-tower", "vit", summary="ours is better", **parts)
    yield ComponentSpec("vision-tower", "mean-pool", requires=("no-such-package",), **parts)
@hookimpl
def zoo_architectures():
    return "acme:architectures"
"""


CRASH = """
class Config(VisionTowerConfig):
    tower: str = "mean-pool"
    def parameter_count(self, embed_dim):
        return 1 // 0
"""


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two distributions: one clashes with ours and ships broken files too, the other cannot be imported."""
    root = tmp_path_factory.mktemp("site")
    (root / "acme" / "architectures").mkdir(parents=True)
    (root / "acme" / "__init__.py").touch()
    (root / "acme" / "plugin.py").write_text(STRANGER)
    (root / "acme" / "config.py").write_text("from zoo_core.config import VisionTowerConfig\n" + CRASH)
    for name, text in {
        "acme-good": "extends: vit-b32",
        "acme-typo": "extends: vit-b32\nembed_dims: 3",
        "acme-torn": "vision: {",
        "acme-crash": "extends: vit-b32\nvision: {tower: mean-pool, image_size: 32}",
        "vit-e14": "extends: vit-b32",
    }.items():
        (root / "acme" / "architectures" / f"{name}.yaml").write_text(text)
    (root / "broken_plugin.py").write_text("raise RuntimeError('no licence')")
    for name, entry in {"acme-towers": "acme = acme.plugin", "wrecked": "wreck = broken_plugin"}.items():
        info = root / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[zoo.plugins]\n{entry}\n")
    return root


def test_a_strangers_broken_file_is_a_row_of_the_list(strangers: Path) -> None:
    done = program("list", "--json", path=strangers)
    assert (done.returncode, done.stderr) == (0, "")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert found["acme-good"]["parameters"] == zoo.config("vit-b32").parameter_count()
    assert "acme-typo.yaml:2:1: embed_dims: unknown key" in found["acme-typo"]["problem"]
    assert "acme-torn.yaml:2:1: is not YAML" in found["acme-torn"]["problem"]
    assert found["acme-torn"]["parameters"] is None
    assert found["acme-crash"]["problem"].startswith("ZeroDivisionError: ")
    assert found["vit-l14"]["parameters"] == zoo.config("vit-l14").parameter_count()
    # a name that two distributions offer is listed as it can be built
    assert found["acme-towers/vit-e14"]["parameters"] == zoo.config("vit-b32").parameter_count()
    assert found["clip-zoo/vit-e14"]["parameters"] == zoo.config("vit-e14").parameter_count()
    table = program("list", "acme-*", path=strangers)
    assert table.returncode == 0
    assert "embed_dims: unknown key" in table.stdout


def test_plugins_tells_the_clashing_the_quarantined_and_the_missing(strangers: Path) -> None:
    done = program("plugins", "--json", path=strangers)
    assert (done.returncode, done.stderr) == (0, "")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert found["wreck"]["status"] == "quarantined"
    assert found["wreck"]["reason"] == "RuntimeError: no licence"
    assert found["acme"]["status"] == found["vit"]["status"] == "clash"
    owners = ["acme (acme-towers 1.2)", f"vit (clip-zoo {importlib.metadata.version('clip-zoo')})"]
    assert found["vit"]["clashes"] == [{"kind": "vision-tower", "name": "vit", "owners": owners}]
    assert [one["kind"] for one in found["acme"]["clashes"]] == ["vision-tower", "architecture"]
    assert found["acme"]["components"][1]["missing"] == ["no-such-package"]
    assert found["text"]["status"] == "ok"
    table = program("plugins", path=strangers).stdout
    for words in (
        "RuntimeError: no licence",
        f"is claimed by {' and by '.join(owners)}",
        "needs no-such-package",
    ):
        assert words in table


# validate, schema


def test_validate_says_ok(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("extends: vit-b16\n")
    assert run("validate", tmp_path / "good.yaml") == (0, f"{tmp_path / 'good.yaml'}: ok\n", "")


def test_validate_prints_every_problem_of_every_file_with_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("extends: vit-b16\n")
    (tmp_path / "bad.yaml").write_text("extends: vit-b16\nvision:\n  patchsize: 8\n  layers: twelve\n")
    status, out, err = run("validate", tmp_path / "bad.yaml", tmp_path / "good.yaml", tmp_path / "none.yaml")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        f"{tmp_path}/bad.yaml:3:3: vision.patchsize: unknown key, did you mean 'patch_size'?",
        f"{tmp_path}/bad.yaml:4:3: vision.layers: expected a whole number, found 'twelve'",
        f"{tmp_path}/good.yaml: ok",
        f"{tmp_path}/none.yaml: cannot be read: No such file or directory",
    ]


def test_validate_as_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("extends: vit-b16\nembed_dims: 8\n")
    status, out, _ = run("validate", "--json", tmp_path / "bad.yaml")
    (found,) = json.loads(out)
    assert status == 1
    assert (found["file"], found["ok"]) == (str(tmp_path / "bad.yaml"), False)
    (problem,) = found["problems"]
    assert (problem["line"], problem["column"], problem["key"]) == (2, 1, "embed_dims")


def test_validate_applies_overrides(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("extends: vit-b16\n")
    good, bad = "vision.patch_size=32", "vision.patch_size=17"
    assert run("validate", tmp_path / "good.yaml", "--override", good)[0] == 0
    status, out, _ = run("validate", tmp_path / "good.yaml", "--override", "embed_dim=8", "--override", bad)
    assert status == 1
    assert "vision.patch_size: 17 does not divide the image" in out


def test_schema_goes_to_standard_output_or_to_a_file(run: Run, tmp_path: Path) -> None:
    from zoo_core.schema import architecture_schema

    expected = architecture_schema(zoo.registry())
    status, out, err = run("schema")
    assert (status, json.loads(out), err) == (0, expected, "")
    assert run("schema", "--output", tmp_path / "new" / "zoo.json") == (0, "", "")
    assert json.loads((tmp_path / "new" / "zoo.json").read_text()) == expected
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["zoo.json"]


def test_a_schema_that_cannot_be_written_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = run("schema", "--output", tmp_path / "file" / "zoo.json")
    assert status == 2
    assert "zoo.json cannot be written" in err


# classify


def expected_probabilities(folder: Path, image: Path, captions: list[str]) -> np.ndarray[Any, Any]:
    """The formula in float64, from raw features of one image and of each caption alone."""
    model = zoo.load(folder)
    with torch.no_grad():
        picture = model.encode_image(str(image))[0].double().numpy()
        texts = np.stack([model.encode_text(one)[0].double().numpy() for one in captions])
        scale = float(model.logit_scale.double().exp())
        bias = None if model.logit_bias is None else float(model.logit_bias)
    cosines = texts @ picture / np.linalg.norm(texts, axis=1) / np.linalg.norm(picture)
    if bias is not None:
        return 1 / (1 + np.exp(-(scale * cosines + bias)))
    return np.exp(scale * cosines) / np.exp(scale * cosines).sum()


@pytest.mark.parametrize("bias", [None, -2.0], ids=["softmax", "sigmoid with a logit bias"])
def test_classify_gives_scaled_cosines_as_probabilities(
    bias: float | None, run: Run, pictures: Path, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "model", init_logit_bias=bias)
    image, labels = pictures / "b.png", ["a cat", "dog", "{}"]
    arguments = ["--labels", "a cat, dog,{}", "--template", "it is {}!", "--model", folder, "--json"]
    status, out, err = run("classify", image, *arguments)
    assert (status, err) == (0, "")
    (found,) = json.loads(out)
    expected = expected_probabilities(folder, image, [f"it is {label}!" for label in labels])
    given = found["probabilities"]
    np.testing.assert_allclose([given[label] for label in labels], expected, atol=2e-6)
    assert list(given.values()) == sorted(given.values(), reverse=True)
    assert found["label"] == labels[int(expected.argmax())]
    assert found["image"] == str(image)


def test_classify_takes_a_photo_of_a_for_its_template(run: Run, tiny: Path, pictures: Path) -> None:
    plain = run("classify", pictures / "b.png", "--labels", "cat,dog", "--model", tiny)
    spelled = ["--template", "a photo of a {}"]
    assert run("classify", pictures / "b.png", "--labels", "cat,dog", "--model", tiny, *spelled) == plain
    other = ["--template", "{}"]
    assert run("classify", pictures / "b.png", "--labels", "cat,dog", "--model", tiny, *other) != plain


def test_classify_prints_a_table_with_the_likeliest_first(run: Run, tiny: Path, pictures: Path) -> None:
    status, out, _ = run("classify", pictures / "b.png", "--labels", "cat,dog,eel", "--model", tiny)
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == str(pictures / "b.png")
    shares = [float(line.split()[0].rstrip("%")) for line in lines[2:]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_an_unreadable_image_is_named_after_the_others_were_done(run: Run, tiny: Path, pictures: Path) -> None:
    images = [pictures / "notes.txt", pictures / "b.png", pictures / "none.png", pictures / "sub" / "c.png"]
    status, out, err = run("classify", *images, "--labels", "cat,dog", "--model", tiny)
    assert status == 1
    assert f"{images[1]}\n" in out
    assert f"{images[3]}\n" in out
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["error", str(images[0])],
        ["error", str(images[2])],
    ]
    found = json.loads(run("classify", *images, "--labels", "cat,dog", "--model", tiny, "--json")[1])
    assert {one["image"]: "error" in one for one in found} == {
        str(image): index in (0, 2) for index, image in enumerate(images)
    }


CLASSIFY_ERRORS = {
    "no label": (["--labels", " , "], "labels: expected names with commas between them"),
    "a label twice": (["--labels", "cat,dog,cat"], "labels: cat is there twice"),
    "one label for a softmax": (["--labels", "cat"], "labels: expected at least two to choose from, found 1"),
    "no place for the label": (
        ["--labels", "a,b", "--template", "a photo"],
        "template: '{}' has to stand where",
    ),
    "a tag for a saved folder": (
        ["--labels", "a,b", "--pretrained", "x"],
        "is a saved model with weights of its own",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), CLASSIFY_ERRORS.values(), ids=CLASSIFY_ERRORS)
def test_classify_refuses(arguments: list[str], message: str, run: Run, tiny: Path, pictures: Path) -> None:
    status, out, err = run("classify", pictures / "b.png", "--model", tiny, *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_random_weights_are_never_asked(run: Run, pictures: Path, tmp_path: Path) -> None:
    status, _, err = run("classify", pictures / "b.png", "--labels", "a,b", "--model", "vit-b16")
    assert status == 2
    assert "'vit-b16' needs pretrained weights" in err
    (tmp_path / "own.yaml").write_text("extends: vit-b16\n")
    status, _, err = run("embed", pictures, "--out", tmp_path / "x.npy", "--model", tmp_path / "own.yaml")
    assert status == 2
    assert "needs pretrained weights" in err


def test_the_default_model_is_the_one_that_ships_with_weights(
    run: Run, tiny: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def open_model(*arguments: object) -> Any:
        asked.append(arguments)
        return zoo.load(tiny)

    monkeypatch.setattr("zoo.embedding.open_model", open_model)
    assert run("classify", pictures / "b.png", "--labels", "a,b")[0] == 0
    assert run("classify", pictures / "b.png", "--labels", "a,b", "--pretrained", "other")[0] == 0
    assert run("classify", pictures / "b.png", "--labels", "a,b", "--model", "vit-b16", "--pretrained", "x")[0] == 0
    assert asked == [("digits-tiny", "demo"), ("digits-tiny", "other"), ("vit-b16", "x")]


# embed


def ids(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def reference(folder: Path, images: list[str]) -> np.ndarray[Any, Any]:
    """Features of each image alone, scaled to unit length in float64."""
    model = zoo.load(folder)
    with torch.no_grad():
        rows = np.stack([model.encode_image(image)[0].double().numpy() for image in images])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_embed_writes_unit_rows_and_their_ids(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "vectors.npy"
    status, printed, err = run("embed", pictures, "--out", out, "--model", tiny, "--batch-size", 3)
    assert (status, err) == (0, "")
    assert "4 embeddings of width 16" in printed
    found = ids(tmp_path / "new" / "vectors.ids.txt")
    assert found == [str(pictures / name) for name in ("a.JPG", "b.png", "d.webp", "sub/c.png")]
    rows = np.load(out)
    assert (rows.dtype, rows.shape) == (np.float32, (4, 16))
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows, reference(tiny, found), atol=2e-6)
    assert {one.name for one in out.parent.iterdir()} == {"vectors.npy", "vectors.ids.txt"}


def test_embed_keeps_the_order_of_files_and_takes_each_once(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    named = [pictures / "sub" / "c.png", pictures / "b.png", pictures / "sub" / "c.png", pictures / "sub"]
    assert run("embed", *named, "--out", tmp_path / "x.npy", "--model", tiny)[0] == 0
    assert ids(tmp_path / "x.ids.txt") == [str(named[0]), str(named[1])]
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), reference(tiny, [str(one) for one in named[:2]]), atol=2e-6)


def test_embed_writes_parquet_that_knows_its_model(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "vectors.parquet"
    assert run("embed", pictures, "--out", out, "--model", tiny, "--batch-size", 3)[0] == 0
    table = parquet.read_table(out)
    assert [str(field.type) for field in table.schema] == [
        "string",
        "fixed_size_list<element: float>[16]",
    ] or [str(field.type) for field in table.schema] == ["string", "fixed_size_list<item: float>[16]"]
    assert table.column_names == ["id", "embedding"]
    found = table.column("id").to_pylist()
    np.testing.assert_allclose(np.array(table.column("embedding").to_pylist()), reference(tiny, found), atol=2e-6)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert metadata["zoo.model"] == str(tiny)
    assert zoo.config(json.loads(metadata["zoo.config"])) == zoo.load(tiny).config
    assert [one.name for one in tmp_path.iterdir()] == ["vectors.parquet"]


def test_the_identity_of_a_model_follows_its_weights(tiny: Path) -> None:
    from zoo.embedding import identity

    model, again = zoo.load(tiny), zoo.load(tiny)
    key = "zoo.weights_sha256"
    assert identity(model, "x", None)[key] == identity(again, "x", None)[key]
    with torch.no_grad():
        next(again.parameters()).flatten()[0] += 1e-3
    assert identity(model, "x", None)[key] != identity(again, "x", None)[key]


def test_embed_reads_captions_one_a_line(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a dog\n\nzwei Hünde\r\na dog", encoding="utf-8")
    out = tmp_path / "x.npy"
    assert run("embed", "--text", tmp_path / "captions.txt", "--out", out, "--model", tiny)[0] == 0
    assert ids(tmp_path / "x.ids.txt") == ["a dog", "zwei Hünde", "a dog"]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(zoo.load(tiny).encode_text(["a dog", "zwei Hünde", "a dog"]).double())
    np.testing.assert_allclose(np.load(out), expected.numpy(), atol=2e-6)


def test_unreadable_images_are_skipped_counted_and_exit_with_1(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    images = [pictures / "notes.txt", pictures / "b.png", pictures / "none.png"]
    status, _, err = run("embed", *images, "--out", tmp_path / "x.npy", "--model", tiny, "--batch-size", 1)
    assert status == 1
    assert f"error: {images[0]}: " in err
    assert f"error: {images[2]}: " in err
    assert "skipped 2 of 3 images" in err
    assert ids(tmp_path / "x.ids.txt") == [str(images[1])]
    assert np.load(tmp_path / "x.npy").shape == (1, 16)


def test_nothing_is_written_where_no_image_can_be_read(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_text("old")
    assert run("embed", pictures / "notes.txt", "--out", tmp_path / "x.npy", "--model", tiny)[0] == 1
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"x.npy": "old"}


def test_an_interrupted_run_leaves_the_old_file_whole(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.embedding_files import Writer

    def interrupted(self: Writer, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "add", interrupted)
    for name in ("x.npy", "x.parquet"):
        (tmp_path / name).write_text("old")
        assert run("embed", pictures, "--out", tmp_path / name, "--model", tiny) == (130, "", "")
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"x.npy": "old", "x.parquet": "old"}


def test_whoever_reads_the_old_file_keeps_it(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_text("old")
    with (tmp_path / "x.npy").open() as reader:
        assert run("embed", pictures, "--out", tmp_path / "x.npy", "--model", tiny)[0] == 0
        assert reader.read() == "old"
    assert np.load(tmp_path / "x.npy").shape == (4, 16)


def test_a_count_of_many_digits_fits_into_the_header(tmp_path: Path) -> None:
    from zoo.embedding_files import writer

    with writer(tmp_path / "x.npy", 1, {}) as file:
        for start in range(0, 12_345, 1000):
            size = min(1000, 12_345 - start)
            file.add(["id"] * size, np.arange(start, start + size, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy")[:, 0], np.arange(12_345, dtype=np.float32))


EMBED_ERRORS = {
    "another extension": ("x.csv", ["."], "x.csv: unknown extension '.csv'; allowed: .npy, .parquet"),
    "no extension": ("x", ["."], "unknown extension ''"),
    "a folder": ("folder.npy", ["."], "folder.npy is a folder; name a file"),
    "no image": ("x.npy", ["empty"], "found no image"),
    "no caption": ("x.npy", ["--text", "blank.txt"], "found no caption"),
    "no caption file": (
        "x.npy",
        ["--text", "none.txt"],
        "none.txt cannot be read: No such file or directory",
    ),
    "no text": ("x.npy", ["--text", "latin.txt"], "latin.txt is not UTF-8 text (byte 1)"),
    "a line break in a name": ("x.npy", ["odd"], "has a line break in it"),
}


@pytest.mark.parametrize(("out", "arguments", "message"), EMBED_ERRORS.values(), ids=EMBED_ERRORS)
def test_embed_refuses_before_any_work(
    out: str, arguments: list[str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object, **__: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr(zoo, "build", unwanted, raising=False)
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.npy", "empty", "odd"):
        Path(folder).mkdir()
    Path("odd/a\nb.png").touch()
    Path("blank.txt").write_text("\n \n")
    Path("latin.txt").write_bytes("aé".encode("latin-1"))
    status, printed, err = run("embed", *arguments, "--out", out, "--model", "vit-b16", "--pretrained", "x")
    assert (status, printed) == (2, "")
    assert message in err
    assert not any(one.name.startswith("x") for one in tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_an_error(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = run("embed", pictures, "--out", tmp_path / "file" / "x.npy", "--model", tiny)
    assert status == 2
    assert "x.npy cannot be written" in err


def test_parquet_without_pyarrow_names_the_command_to_install_it(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = run("embed", pictures, "--out", tmp_path / "x.parquet", "--model", tiny)
    assert status == 2
    assert "pip install 'clip-zoo[parquet]'" in err


# demo, profile: the wiring, with a stand-in for what trains and what measures


@pytest.fixture
def fake_demo(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that trains nothing and saves a tiny model."""

    def run_demo(folder: str | Path, *, seed: int = 0, steps: int | None = None, progress: Any = None) -> Any:
        for step in range(1, 4):
            progress(step, 3, {"loss": 1 / step, "logit_scale": 10.0})
        target = save_tiny(Path(folder))
        shares = {"a {}": {"word": 0.5, "figure": 0.4}, "the digit {}": {"word": 0.75, "figure": 0.25}}
        result = types.SimpleNamespace(
            accuracy=0.625,
            template_accuracy=shares,
            test_digits=8,
            seconds=1.5,
            folder=target,
            picture=target / "demo.png",
            samples=tuple(pictures / "b.png" for _ in range(10)),
        )
        result.to_dict = lambda: {"accuracy": 0.625, "seed": seed, "steps": steps, "folder": str(target)}
        return result

    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    package, recipe = types.ModuleType("zoo.demo"), types.ModuleType("zoo.demo.settings")
    package.run_demo, recipe.WORDS = run_demo, words  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zoo.demo", package)
    monkeypatch.setitem(sys.modules, "zoo.demo.settings", recipe)


def test_the_last_line_of_the_demo_is_a_command_that_works(
    run: Run, fake_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run("demo")
    assert (status, err) == (0, "")
    assert "62.5%" in out
    assert "the digit {}  75.0%   25.0%" in out
    program, *arguments = shlex.split(out.splitlines()[-1])
    assert program == "zoo"
    assert arguments[arguments.index("--template") + 1] == "the digit {}"  # the best one
    assert arguments[arguments.index("--model") + 1] == "zoo-demo"
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    assert "seven" in out


def test_the_demo_as_json_is_its_result(run: Run, fake_demo: None, tmp_path: Path) -> None:
    status, out, err = run("demo", "--out", tmp_path / "mine", "--seed", 3, "--steps", 7, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"accuracy": 0.625, "seed": 3, "steps": 7, "folder": str(tmp_path / "mine")}


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the profiler was asked."""
    asked: dict[str, Any] = {}
    cost = {
        "parameters": 1_500_000,
        "parameter_bytes": 6_000_000,
        "macs": 2_500_000_000,
        "flops": 5_000_000_000,
        "latency": 0.25,
        "samples_per_second": 16.0,
        "peak_activation_bytes": 3 * 2**20,
    }
    report = {
        "parameters": 1_500_001,
        "parameter_bytes": 6_000_004,
        "towers": {"image": cost},
        "steps": 3,
        "hardware": {"device": "cpu", "cpu": "a processor", "gpu": None, "threads": 1, "torch": "2"},
        "trace": None,
    }

    def profile_model(model: Any, **arguments: Any) -> Any:
        asked.update(arguments, model=type(model).__name__)
        return types.SimpleNamespace(to_dict=lambda: report)

    module = types.ModuleType("zoo.profiling")
    module.profile_model = profile_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zoo.profiling", module)
    return asked


def test_profile_measures_the_model_with_its_own_sizes(
    run: Run, tiny: Path, profiled: dict[str, Any], tmp_path: Path
) -> None:
    options = ["--batch-size", 4, "--steps", 3, "--device", "cpu", "--trace", tmp_path]
    status, out, err = run("profile", tiny, *options)
    assert (status, err) == (0, "")
    assert profiled == {
        "model": "CLIP",
        "image_size": (16, 16),
        "context_length": 16,
        "vocab_size": 600,
        "batch_size": 4,
        "steps": 3,
        "device": "cpu",
        "trace_dir": tmp_path,
    }
    assert out.splitlines()[1].split() == ["image", "1.5M", "2.5G", "5.0G", "250.0", "16.0", "3.0"]
    assert "a processor" in out


def test_profile_as_json_is_the_report(run: Run, tiny: Path, profiled: dict[str, Any]) -> None:
    status, out, err = run("profile", tiny, "--json", "--no-trace")
    assert (status, err) == (0, "")
    assert json.loads(out)["towers"]["image"]["macs"] == 2_500_000_000
    assert profiled["trace_dir"] is None


def test_profile_really_measures_and_writes_a_trace_for_tensorboard(tiny: Path, tmp_path: Path) -> None:
    program = f"from zoo.commands.app import main; import sys; sys.argv = ['zoo', 'profile', {str(tiny)!r}, '--steps', '1']; main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "zoo-profile").glob("*.pt.trace.json.gz"))) == 1
    assert done.stdout.splitlines()[-1] == "tensorboard --logdir zoo-profile"
    image, text = (line.split() for line in done.stdout.splitlines()[1:3])
    assert (image[0], text[0]) == ("image", "text")


def test_profile_of_a_device_that_is_none_is_an_error(run: Run, tiny: Path, profiled: dict[str, Any]) -> None:
    status, _, err = run("profile", tiny, "--device", "abacus")
    assert status == 2
    assert err.startswith("error: device 'abacus' is none")


# a terminal


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_sees_a_progress_bar_and_errors_on_lines_of_their_own(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pty

    leader, follower = pty.openpty()
    seen = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # which is how a terminal tells its end
            while chunk := os.read(leader, 65_536):
                seen.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    arguments = ["embed", pictures / "notes.txt", pictures, "--out", tmp_path / "x.npy", "--model", tiny]
    with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        status, out, _ = run(*arguments)
    reader.join()
    os.close(leader)
    assert (status, out) == (1, f"{tmp_path / 'x.npy'}: 4 embeddings of width 16\n")
    text = seen.decode()
    assert "5/5" in text
    lines = [line.rpartition("\x1b[2K")[2] for line in text.replace("\r", "\n").split("\n")]
    assert any(line.startswith("error: ") and "notes.txt" in line for line in lines)
