"""Which architecture a file of weights is of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.numpy import save_file

import zoo
from zoo.commands.app import main
from zoo.parameter_shapes import Shape, shapes_of
from zoo_core.errors import CheckpointError

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
    assert main(["identify", str(write(file, {"logit_scale": ()})), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["unexpected"] == []


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
