"""Ctrl-C at any line of a save, once or twice: the old folder or the new one is there, and the next save sweeps up."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from zoo_core.files import atomic as whole_files
from zoo_core.files import atomic_folder as whole_folders
from zoo_core.files.atomic import atomic_write
from zoo_core.files.atomic_folder import atomic_folder, restore

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a file left open

HOOKED = (whole_folders.__file__, whole_files.__file__)


@contextmanager
def ctrl_c(lines: Collection[int]) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt before the lines of these numbers that our modules run; yield how many ran."""
    ran = [0]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in HOOKED:
            return None
        if event == "line":
            ran[0] += 1
            if ran[0] in lines:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield ran
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)


def save(target: Path, text: str) -> None:
    with atomic_folder(target) as scratch:
        (scratch / "weights").write_text(text)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("exchanges", [True, False], ids=["names exchanged", "moved aside"])
@pytest.mark.parametrize("after", [0, 1, 4], ids=["once", "twice", "twice, later"])
def test_ctrl_c_at_any_line_of_a_save_leaves_nothing_that_the_next_one_does_not_sweep(
    after: int, exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(whole_folders, "_exchange", lambda *_: False)
    line = 0
    while True:
        line += 1
        target = tmp_path / str(line) / "model[1]"
        save(target, "old")
        with ctrl_c({line, line + after}) as ran:
            save(target, "new")
        restore(target)
        assert (target / "weights").read_text() in ("old", "new"), line
        save(target, "last")
        assert left(target.parent) == [target.name], line
        assert (target / "weights").read_text() == "last"
        if ran[0] < line:
            break
    assert line > 30


def test_a_file_that_is_written_when_ctrl_c_comes_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    line = 0
    while True:
        line += 1
        target = tmp_path / str(line) / "file.json"
        for text in ("old", "new"):
            with ctrl_c({line} if text == "new" else ()) as ran, atomic_write(target) as (scratch,):
                scratch.write_text(text)
        assert target.read_text() in ("old", "new"), line
        if ran[0] < line:
            break
    assert line > 10


def test_a_scratch_folder_without_a_lock_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".m.new.abc_12").mkdir()
    (tmp_path / ".m.new.abc_12" / "weights").touch()
    save(tmp_path / "m", "a")
    assert left(tmp_path) == ["m"]


@pytest.mark.parametrize("name", ["m.old", "m.new"])
def test_folders_of_like_names_are_let_alone(name: str, tmp_path: Path) -> None:
    save(tmp_path / "m", "a")
    with atomic_folder(tmp_path / name) as scratch:
        (scratch / "weights").write_text("b")
        save(tmp_path / "m", "c")
        (tmp_path / "m").rename(tmp_path / "gone")
        restore(tmp_path / "m")
        assert not (tmp_path / "m").exists()
    assert (tmp_path / name / "weights").read_text() == "b"
    assert left(tmp_path) == ["gone", name]
