"""Folders that take their place in one step, where locks fail or are lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import filelock
import pytest

from zoo_core.files.atomic_folder import atomic_folder


def save(target: Path, text: str) -> None:
    with atomic_folder(target) as scratch:
        (scratch / "weights").write_text(text)


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(95, "Operation not supported")])
def test_a_file_system_without_locks_is_written_to_all_the_same(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, *args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    for text in ("old", "new"):
        save(tmp_path / "model", text)
    assert (tmp_path / "model" / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / ".model.new.alive").mkdir()
    (tmp_path / ".model.new.alive.lock").touch()
    save(tmp_path / "model", "newer")  # whether that process lives cannot be told
    assert (tmp_path / ".model.new.alive").exists()


def test_a_lock_whose_file_was_swept_up_before_it_was_held_is_not_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire, names = filelock.FileLock.acquire, []

    def swept(self: Any, *args: Any, **options: Any) -> Any:
        held = acquire(self, *args, **options)
        if not names:
            Path(self.lock_file).unlink()
        names.append(self.lock_file)
        return held

    monkeypatch.setattr(filelock.FileLock, "acquire", swept)
    with atomic_folder(tmp_path / "model") as scratch:
        assert f"{scratch}.lock" == names[1] != names[0]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
