"""What the tests of every command stand on: a saved model, pictures, and the program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.command_line import Run, save_tiny
from zoo.cli.app import main


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


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `zoo` in this process; returns exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(one) for one in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
