"""The program `zoo` as a whole: its options, errors, pipes and terminal."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import zoo
from support.command_line import Run, program
from zoo.cli.app import main


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
from zoo.cli.app import main
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

    monkeypatch.setattr("zoo.catalog.listing.list_architectures", interrupted)
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
    assert status == 1
    assert out.startswith(f"{tmp_path / 'x.npy'}: 4 embeddings of width 16, ")
    text = seen.decode()
    assert "5/5" in text
    lines = [line.rpartition("\x1b[2K")[2] for line in text.replace("\r", "\n").split("\n")]
    assert any(line.startswith("error: ") and "notes.txt" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "closed", "status"),
    [("list", 1, 0), ("classify - --labels a,b --model digits-tiny:demo", 0, 1), ("info x", 2, 2)],
)
def test_a_stream_that_is_closed_at_the_start_is_an_empty_one(
    arguments: str, closed: int, status: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "zoo", *arguments.split()]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=lambda: os.close(closed), **streams)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
