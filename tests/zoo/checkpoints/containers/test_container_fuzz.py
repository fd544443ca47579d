"""Readers of weights on damaged files: an error of ours, or the tensors; nothing else comes out."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.checkpoints.container_files import SEEDS, read_all

edits = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4)


@pytest.mark.parametrize("container", SEEDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=edits, length=st.none() | st.integers(0, 1 << 12))
def test_a_file_with_changed_bytes_gives_tensors_or_our_error(
    container: str, edits: list[tuple[int, int]], length: int | None, tmp_path: Path
) -> None:
    content = bytearray(SEEDS[container])
    for place, value in edits:
        content[place % len(content)] = value
    path = tmp_path / "x"
    path.write_bytes(content[:length])
    read_all(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=edits)
def test_an_archive_whose_pickle_is_changed_gives_tensors_or_our_error(
    edits: list[tuple[int, int]], tmp_path: Path
) -> None:
    """The checksum of the archive would hide what the pickle does, so it is made to fit."""
    path = tmp_path / "x"
    with zipfile.ZipFile(io.BytesIO(SEEDS["torch"])) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = bytearray(old.read(name))
            if name.endswith("data.pkl"):
                for place, value in edits:
                    content[place % len(content)] = value
            new.writestr(name, bytes(content))
    read_all(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_bytes_give_our_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    read_all(path)
