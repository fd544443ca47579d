"""Which architecture a file of weights is of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.numpy import save_file

import zoo
from zoo.catalog.state_dict_shapes import Shape, shapes_of
from zoo.checkpoints.ranking import rank
from zoo.cli.app import main
from zoo_core.errors import CheckpointError, ConfigError

Change = Callable[[dict[str, Shape]], dict[str, Shape]]
DEMO = Path(zoo.__file__).parent / "pretrained" / "digits-tiny-demo.safetensors"


def write(path: Path, shapes: dict[str, Shape]) -> Path:
    """Write a file with these names and shapes; one byte a value is enough."""
    save_file({key: numpy.zeros(shape, numpy.int8) for key, shape in shapes.items()}, path)
    return path


def nested(shapes: dict[str, Shape]) -> dict[str, Shape]:
    return {key if key.startswith(("visual.", "logit_")) else f"text.{key}": value for key, value in shapes.items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda shapes: shapes,
        nested,
        lambda shapes: {f"module.{key}": value for key, value in shapes.items()},
        lambda shapes: {f"_orig_mod.module.{key}": value for key, value in shapes.items()},
        lambda shapes: shapes | {"logit_scale": (1,), "text.transformer.embeddings.position_ids": (1, 4)},
    ],
    ids=["as published", "nested", "DDP", "compiled", "one element and counted numbers"],
)
def test_a_file_is_told_whatever_its_layout_and_wrapper(tmp_path: Path, change: Change) -> None:
    best, second, *_ = zoo.identify(write(tmp_path / "x.safetensors", change(shapes_of("vit-s32"))))
    assert (best.names, best.fit) == (("vit-s32",), 1.0)
    assert (best.missing, best.unexpected, best.misshapen) == ((), (), {})
    assert second.fit < 1


def test_what_shapes_cannot_tell_is_named(tmp_path: Path) -> None:
    best = zoo.identify(write(tmp_path / "x.safetensors", shapes_of("rn50")))[0]
    assert best.names == ("rn50", "rn50-quickgelu")
    assert best.untold["text.activation"] == ("gelu", "quick_gelu")


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    shapes = shapes_of("vit-s32") | {"extra.weight": (3,), "visual.proj": (7, 7)}
    del shapes["ln_final.bias"]
    best = zoo.identify(write(tmp_path / "x.safetensors", shapes))[0]
    assert best.names == ("vit-s32",)
    assert 0.95 < best.fit < 1
    assert (best.missing, best.unexpected) == (("ln_final.bias",), ("extra.weight",))
    assert best.misshapen == {"visual.proj": ((7, 7), shapes_of("vit-s32")["visual.proj"])}


def test_a_file_of_something_else_fits_nothing(tmp_path: Path) -> None:
    assert zoo.identify(write(tmp_path / "x.safetensors", {"weight": (3, 3)})) == []


@pytest.mark.parametrize(
    "shapes",
    [
        {"logit_scale": ()},
        {"logit_scale": (), "logit_bias": ()},
        {"logit_scale": (), "visual.proj": (768, 512), "visual.conv1.weight": (768, 3, 32, 32)},
        {key: (*shape[:-1], 7) if shape else shape for key, shape in shapes_of("vit-b32").items()},
    ],
    ids=["a scale", "a scale and a bias", "three entries", "other sizes"],
)
def test_nothing_is_proposed_for_what_every_model_has(
    tmp_path: Path, shapes: dict[str, Shape], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "x.safetensors", shapes)
    assert zoo.identify(path) == []
    assert main(["identify", str(path)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"error: {path}: no architecture known here is near; name yours with --architecture FILE\n"


def test_the_demo_is_proposed_for_nothing_but_itself() -> None:
    for name in ("vit-s32", "convnext-base"):
        for change in (lambda key: True, lambda key: key.startswith("visual."), lambda key: "visual." not in key):
            shapes = {key: shape for key, shape in shapes_of(name).items() if change(key)}
            proposed = [one.names for one in rank(shapes, limit=200)]
            assert ("digits-tiny",) not in proposed
            assert name in proposed[0] or len(shapes) < len(shapes_of(name))
    assert rank(shapes_of("digits-tiny"), limit=1)[0].names == ("digits-tiny",)


SMALL: dict[str, Any] = {
    "extends": "vit-s32",
    "embed_dim": 48,
    "vision": {"layers": 2, "width": 128, "activation": "quick_gelu"},
    "text": {"layers": 1, "width": 64, "heads": 1},
}


def test_a_saved_model_of_ones_own_architecture_states_it(tmp_path: Path) -> None:
    folder = zoo.save(zoo.build(SMALL), tmp_path / "mine", probe=False)
    for path in (folder, folder / "model.safetensors"):
        best = zoo.identify(path)[0]
        assert (best.names, best.fit) == ((str(path),), 1.0)
    assert main(["identify", str(folder), "--limit", "1"]) == 0


def test_a_file_that_states_its_activation_is_of_one_architecture(tmp_path: Path) -> None:
    shapes = {key: numpy.zeros(shape, numpy.int8) for key, shape in shapes_of("vit-b32").items()}
    stated = {"zoo.config": json.dumps(zoo.config("vit-b32-quickgelu").data())}
    save_file(shapes, tmp_path / "x.safetensors", metadata=stated)
    best = zoo.identify(tmp_path / "x.safetensors")[0]
    assert (best.names, best.fit, best.untold) == (("vit-b32-quickgelu",), 1.0, {})


@pytest.mark.parametrize(
    "stated", ["{", "[" * 9999, "[1]", "{}", '{"model": "acme/none"}', '{"extends": "/etc/x.yaml"}']
)
def test_a_file_that_states_nonsense_is_still_ranked(tmp_path: Path, stated: str) -> None:
    shapes = {key: numpy.zeros(shape, numpy.int8) for key, shape in shapes_of("vit-s32").items()}
    shapes["extra"] = numpy.zeros(3, numpy.int8)
    save_file(shapes, tmp_path / "x.safetensors", metadata={"zoo.config": stated})
    assert zoo.identify(tmp_path / "x.safetensors")[0].names == ("vit-s32",)


def test_architectures_of_ones_own_are_ranked_where_they_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml_file = tmp_path / "mine.yaml"
    yaml_file.write_text(json.dumps(SMALL))
    folder = zoo.save(zoo.build(SMALL), tmp_path / "mine", probe=False)
    shapes = {key: tuple(value.shape) for key, value in zoo.build(SMALL).state_dict().items()}
    path = write(tmp_path / "x.safetensors", shapes)
    assert all(one.fit < 1 for one in zoo.identify(path))
    best = zoo.identify(path, architectures=[yaml_file, SMALL, folder])[0]
    assert (best.names, best.fit) == ((str(yaml_file), "architectures[1]", str(folder)), 1.0)
    assert main(["identify", str(path), "--architecture", str(yaml_file), "--limit", "1"]) == 0
    assert f"100.0%  {yaml_file}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"embed_dims: unknown key, did you mean 'embed_dim'\?"):
        zoo.identify(path, architectures=[SMALL | {"embed_dims": 3}])


def test_architectures_of_other_plugins_are_ranked_and_their_faults_harm_nobody(tmp_path: Path) -> None:
    """Two distributions of strangers: one has an architecture that fits, a clash and a broken one."""
    folder = tmp_path / "site" / "acme" / "architectures"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder.parent / "plugin.py").write_text(
        "from zoo_core.plugin import hookimpl\nZOO_API_VERSION = 1\n\n\n@hookimpl\ndef zoo_architectures():\n"
        "    return 'acme:architectures'\n"
    )
    small = json.dumps(SMALL)
    for name, text in {"acme-small": small, "vit-s16": "extends: clip-zoo/vit-s16", "acme-torn": "vision: {"}.items():
        (folder / f"{name}.yaml").write_text(text)
    info = tmp_path / "site" / "acme_models-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-models\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[zoo.plugins]\nacme = acme.plugin\n")
    shapes = {key: tuple(value.shape) for key, value in zoo.build(SMALL).state_dict().items()}
    path = write(tmp_path / "x.safetensors", shapes)
    own = write(tmp_path / "own.safetensors", shapes_of("vit-s32"))
    program = (
        "import sys, zoo\n"
        "best = zoo.identify(sys.argv[1])[0]\nprint(best.names, best.fit)\n"
        "print([one.names for one in zoo.identify(sys.argv[2])][:2])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(own)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.stdout.splitlines() == ["('acme-small',) 1.0", "[('vit-s32',), ('vit-s16',)]"], done.stderr


def test_a_saved_model_is_told_by_its_folder(tmp_path: Path) -> None:
    folder = zoo.save(zoo.build("digits-tiny"), tmp_path / "model", probe=False)
    assert zoo.identify(folder)[0].names == ("digits-tiny",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file"),
        (b"", "is empty"),
        (b"\x80\x02}q\x00.", "is a pickle, and not one of torch"),
        (b"\xff" * 64, "cannot be read as safetensors"),
        (DEMO.read_bytes()[:5000], "cannot be read as safetensors"),
    ],
    ids=["missing", "empty", "a pickle", "a header of many bytes", "truncated"],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        zoo.identify(path)


def test_the_command_prints_the_candidates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", str(DEMO)]) == 0
    assert "100.0%  digits-tiny" in capsys.readouterr().out
    file = write(tmp_path / "x.safetensors", shapes_of("rn50"))
    assert main(["identify", str(file), "--limit", "1"]) == 0
    assert "cannot tell text.activation (rn50: gelu, rn50-quickgelu: quick_gelu)" in capsys.readouterr().out
    shapes = shapes_of("rn50") | {"extra.weight": (3,)}
    assert main(["identify", str(write(file, shapes)), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["unexpected"] == ["extra.weight"]


def test_the_command_takes_one_of_several_state_dicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained, average = (
        {key: torch.zeros(()).expand(shape) for key, shape in shapes_of(name).items()} for name in ("rn50", "vit-s32")
    )
    torch.save({"student": trained, "teacher": average}, tmp_path / "x.pt")
    assert main(["identify", str(tmp_path / "x.pt")]) == 2
    assert "several weights that could be meant; choose with weights= one of 'student', 'teacher'" in (
        capsys.readouterr().err.replace("\n", " ")
    )
    for name, expected in (("student", "rn50"), ("teacher", "vit-s32")):
        assert main(["identify", str(tmp_path / "x.pt"), "--weights", name, "--limit", "1"]) == 0
        assert f"100.0%  {expected}" in capsys.readouterr().out


def test_it_needs_no_torch() -> None:
    program = "import sys, zoo; zoo.identify(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(DEMO)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
