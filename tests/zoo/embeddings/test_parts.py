"""What is done in a set of embeddings and what is not, and the files that say so: both formats, damage, kills."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from zoo.embeddings.manifest import read_manifest
from zoo.embeddings.parts import Part, read_part
from zoo.embeddings.store import EmbeddingSet, open_set, read_set
from zoo_core.errors import ImageFileError, InputError, ZooError
from zoo_core.files.atomic import atomic_write

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
READS_NULL_VECTORS = int(arrow.__version__.split(".")[0]) >= 26
IDENTITY = {"zoo.model": "tiny", "zoo.dtype": "float32"}
VECTOR = np.arange(4, dtype=np.float32)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three files in a folder of the working directory; what they hold is not looked at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    files = [tmp_path / "small" / f"{name}.png" for name in "abc"]
    for file in files:
        file.write_text(file.name)
        os.utime(file, (1000, 1000))
    return files


def embed(items: list[Any], value: float = 1.0, refuse: tuple[str, ...] = (), error: ZooError | None = None) -> EmbeddingSet:  # fmt: skip
    """Do as `zoo embed` does: what is not done yet gets a vector of one value, or is refused by its name."""
    with open_set(Path("set"), 4, IDENTITY) as made:
        for item in made.remaining([str(one) for one in items]):
            if Path(item).name in refuse:
                made.refuse(item, error or ImageFileError(f"{item}: is no image"))
            else:
                made.add([item], np.full((1, 4), value, np.float32))
    return made


def contents() -> tuple[dict[str, float], dict[str, int]]:
    """Return the value of each image by its name, and the attempts of each that failed."""
    ids, vectors, errors = read_set("set")
    assert vectors.dtype == np.float32 and vectors.shape == (len(ids), 4) and len(set(ids)) == len(ids)
    values = {Path(one).name[0]: float(row[0]) for one, row in zip(ids, vectors, strict=True)}
    return values, {Path(one.id).name[0]: one.attempts for one in errors}


# What is done


def test_what_failed_is_tried_again_and_told_until_it_succeeds(images: list[Path]) -> None:
    assert embed(images, refuse=("b.png",)).refused == 1
    assert contents() == ({"a": 1, "c": 1}, {"b": 1})
    again = embed(images, value=2, refuse=("b.png",))
    assert (again.kept, again.refused, again.count) == (2, 1, 0)
    assert contents() == ({"a": 1, "c": 1}, {"b": 2})
    assert embed(images[:1]).failed_before == 1
    last = embed(images, value=3)
    assert (last.kept, last.refused, last.count) == (2, 0, 1)
    assert contents() == ({"a": 1, "b": 3, "c": 1}, {})
    assert not list(Path("set").glob("errors-*"))


def test_an_image_that_was_replaced_is_embedded_anew_in_place_of_the_old_one(images: list[Path]) -> None:
    embed(images)
    images[0].write_text("another")
    os.utime(images[1], (2000, 2000))
    made = embed(images, value=2)
    assert (made.kept, made.changed, made.count) == (1, 2, 2)
    assert contents() == ({"a": 2, "b": 2, "c": 1}, {})
    rows = [one for part in sorted(Path("set").glob("part-*")) for one in parquet.read_table(part)["id"].to_pylist()]
    assert sorted(rows) == [str(one) for one in images]
    again = embed(images, value=3)
    assert (again.kept, again.changed, again.count) == (3, 0, 0)


def test_an_image_that_was_replaced_by_none_has_no_vector_any_more(images: list[Path]) -> None:
    embed(images)
    images[0].write_text("no image")
    embed(images, refuse=("a.png",))
    assert contents() == ({"b": 1, "c": 1}, {"a": 1})


def test_the_vector_of_an_image_that_is_gone_stays_and_is_told(images: list[Path]) -> None:
    embed(images)
    images[0].unlink()
    made = embed(images)
    assert (made.kept, made.gone, made.count) == (3, 1, 0)


def test_an_image_that_changes_while_it_is_read_is_embedded_again(images: list[Path]) -> None:
    with open_set(Path("set"), 4, IDENTITY) as made:
        made.remaining([str(images[0])])
        images[0].write_text("changed meanwhile")
        made.add([str(images[0])], VECTOR[None])
    assert embed(images[:1]).changed == 1


def test_a_file_is_one_row_however_it_is_named(images: list[Path], tmp_path: Path) -> None:
    Path("link").symlink_to("small")
    named = ["small/a.png", "./small/a.png", "small/../small/a.png", "link/a.png", str(images[0])]
    made = embed(named)
    assert made.count == 1
    for name in named:
        assert embed([name]).kept == 1
    assert read_set("set").ids == [str(images[0])]
    Path("small/other.png").symlink_to("a.png")
    assert embed(["small/other.png"]).count == 1, "a link to a file has a name of its own"


KINDS: dict[str, tuple[str, str]] = {
    "missing": ("none.png", "cannot be opened: No such file or directory"),
    "unreadable": ("small", "is a directory"),
    "invalid": ("small/a.png", "is no image of a known format"),
}


@pytest.mark.parametrize("kind", ["missing", "invalid"])
def test_a_failure_has_a_kind_and_a_reason(kind: str, images: list[Path]) -> None:
    name, message = KINDS[kind]
    with pytest.raises(InputError) as caught:
        zoo.preprocess("digits-tiny")(name)
    embed([name], refuse=(Path(name).name,), error=caught.value)
    (failure,) = read_set("set").errors
    assert (failure.kind, failure.attempts) == (kind, 1)
    assert message in failure.reason


# Format 1


def format_1(rows: list[dict[str, Any]], parts: int = 1) -> None:
    """Write a set as it was written before there was format 2."""
    vector = arrow.list_(arrow.float32(), 4)
    columns = {"id": arrow.string(), "path": arrow.string(), "vector": vector, "error": arrow.string()}
    schema = arrow.schema(list(columns.items()), metadata=IDENTITY)
    Path("set").mkdir()
    manifest = {"format": 1, "of": "images", "width": 4, "identity": IDENTITY}
    Path("set/embeddings.json").write_text(json.dumps(manifest, indent=1) + "\n")
    for part in range(parts):
        table = arrow.Table.from_pylist(rows[part::parts], schema=schema)
        parquet.write_table(table, f"set/part-{part:08}.parquet")


def old_row(name: str, value: float | None) -> dict[str, Any]:
    error = None if value is not None else "is no image"
    return {"id": name, "path": name, "vector": None if value is None else [value] * 4, "error": error}


def test_a_set_of_format_1_is_read_and_goes_on(images: list[Path]) -> None:
    format_1([old_row("small/a.png", 5), old_row("./small/b.png", 6)], parts=2)
    assert contents() == ({"a": 5, "b": 6}, {})
    made = embed(images)
    assert (made.kept, made.count) == (2, 1)
    assert contents() == ({"a": 5, "b": 6, "c": 1}, {})
    assert json.loads(Path("set/embeddings.json").read_text())["format"] == 2
    assert embed(images).kept == 3


def test_an_image_that_is_newer_than_its_part_of_format_1_is_embedded_anew(images: list[Path]) -> None:
    format_1([old_row("small/a.png", 5), old_row("small/b.png", 6)])
    images[0].write_text("another")
    os.utime(images[0], (time.time() + 60,) * 2)
    assert embed(images).changed == 1
    assert contents() == ({"a": 1, "b": 6, "c": 1}, {})
    os.utime(images[1], (time.time() - 60,) * 2)
    assert embed(images).changed == 0, "the part was written anew, its rows are as old as before"


def test_a_failure_of_format_1_is_tried_again_and_its_part_becomes_readable(images: list[Path]) -> None:
    format_1([old_row("small/a.png", 5), old_row("small/b.png", None)])
    if not READS_NULL_VECTORS:
        message = r"part-00000000.parquet has a failure among its vectors, which pyarrow .* pip install 'pyarrow>=26'"
        with pytest.raises(InputError, match=message):
            embed(images)
        with pytest.raises(InputError, match=message):
            contents()
        return
    assert contents() == ({"a": 5}, {"b": 1})
    assert embed(images[2:]).failed_before == 1  # the failure is not among what is embedded
    assert contents() == ({"a": 5, "c": 1}, {"b": 1})
    schema = parquet.read_schema("set/part-00000000.parquet")
    assert schema.names == ["id", "vector", "bytes", "mtime_ns"]
    assert not schema.field("vector").nullable and not schema.field("vector").type.value_field.nullable
    assert embed(images, refuse=("b.png",)).refused == 1
    assert contents() == ({"a": 5, "c": 1}, {"b": 2})


def test_names_of_one_file_in_a_set_of_format_1_become_one_row(images: list[Path]) -> None:
    format_1([old_row("small/a.png", 5), old_row(str(images[0]), 6)])
    assert contents() == ({"a": 6}, {})
    assert embed(images).kept == 1
    assert parquet.read_table("set/part-00000000.parquet")["id"].to_pylist() == [str(images[0])]


# Damage


def rewritten(change: Any) -> None:
    """Write the part anew, as `change` makes it."""
    part = "set/part-00000000.parquet"
    parquet.write_table(change(parquet.read_table(part)), part)


def width_5(table: Any) -> Any:
    values = arrow.FixedSizeListArray.from_arrays(arrow.array(np.zeros(15, np.float32)), 5)
    return table.set_column(1, "vector", values)


def null_vector(table: Any) -> Any:
    vector = arrow.array([[0.0] * 4, None, [0.0] * 4], arrow.list_(arrow.float32(), 4))
    return table.set_column(1, "vector", vector).replace_schema_metadata(IDENTITY)


COLUMNS = "part-00000000.parquet has the columns .*, expected id string, vector float.4., bytes int64, mtime_ns int64"
FOREIGN: dict[str, tuple[Any, str]] = {
    "no vectors": (lambda table: table.drop_columns(["vector"]), COLUMNS),
    "ids alone": (lambda table: table.select(["id"]), COLUMNS),
    "another width": (width_5, r"part-00000000.parquet has the columns id string, vector float\[5\], .*float\[4\]"),
    "an id twice": (
        lambda table: arrow.concat_tables([table, table]).replace_schema_metadata(IDENTITY),
        "an id is null or stands there twice",
    ),
    "another model": (
        lambda table: table.replace_schema_metadata({**IDENTITY, "zoo.dtype": "bfloat16"}),
        "part-00000000.parquet is of another set: zoo.dtype is bfloat16, here float32; move it away",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_part_is_not_trusted_by_its_name(case: str, images: list[Path]) -> None:
    change, message = FOREIGN[case]
    embed(images)
    rewritten(change)
    for use in (contents, lambda: embed(images)):
        with pytest.raises(InputError, match=message):
            use()


@pytest.mark.skipif(not READS_NULL_VECTORS, reason="this pyarrow writes none")
def test_a_row_without_a_vector_is_no_row(images: list[Path]) -> None:
    embed(images)
    rewritten(null_vector)
    with pytest.raises(InputError, match="part-00000000.parquet is damaged: .*a row has no vector"):
        contents()


def test_a_file_that_is_called_like_a_part_is_named(images: list[Path]) -> None:
    embed(images)
    shutil.copy("set/part-00000000.parquet", "set/part-00000000 (copy).parquet")
    with pytest.raises(InputError, match=r"\(copy\).parquet is no part of the set"):
        embed(images)


def contents_of(part: Part) -> tuple[list[str], bytes, list[int | None], list[int | None], list[Any]]:
    return part.ids, part.vectors.tobytes(), part.sizes, part.times, part.failures


def flipped(path: Path, places: Iterator[int]) -> Iterator[int]:
    """Flip a bit of one byte after the other; yield where."""
    whole = path.read_bytes()
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        yield place
    path.write_bytes(whole)


@pytest.mark.parametrize("name", ["part-00000000.parquet", "errors-00000000.parquet"])
@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_named_or_changes_nothing(name: str, count: int, images: list[Path]) -> None:
    embed(images, refuse=("b.png",))
    expected, path = read_set("set"), Path("set") / name
    size, draw, unseen = path.stat().st_size, random.Random(0), 0
    for place in flipped(path, (draw.randrange(size) for _ in range(count))):
        try:
            found = read_set("set")
        except ZooError as error:
            assert name in str(error) and "\n" not in str(error), place
        else:
            assert (found.ids, found.errors) == (expected.ids, expected.errors), place
            np.testing.assert_array_equal(found.vectors, expected.vectors)
            unseen += 1
    assert unseen < count  # places that nothing depends on, such as the name of who wrote the file


@pytest.mark.parametrize("name", ["part-00000000.parquet", "errors-00000000.parquet"])
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_no_bit_of_a_footer_loses_a_row(name: str, stride: int, images: list[Path]) -> None:
    """No checksum of Parquet covers the footer, which states the number of rows."""
    embed(images, refuse=("b.png", "c.png") if name.startswith("errors") else ())
    path = Path("set") / name
    whole, manifest = path.read_bytes(), read_manifest(Path("set"))
    expected = contents_of(read_part(Path("set"), 0, manifest))
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    named = 0
    for bit in range(start * 8, len(whole) * 8, stride):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = contents_of(read_part(Path("set"), 0, manifest))
        except ZooError as error:
            named += 1
            assert name in str(error) and "\n" not in str(error), bit
        else:
            assert found == expected, bit
    assert named > 100


def test_a_file_of_0_1_0_without_a_digest_is_read(images: list[Path]) -> None:
    embed(images)
    rewritten(lambda table: table.replace_schema_metadata(IDENTITY))
    assert contents() == ({"a": 1, "b": 1, "c": 1}, {})


def test_rows_that_were_not_written_are_named(images: list[Path]) -> None:
    embed(images)
    rewritten(lambda table: table.slice(1))
    with pytest.raises(InputError, match="part-00000000.parquet is damaged: .*its rows are not those that were writ"):
        contents()


def test_a_flipped_bit_of_a_vector_is_named(images: list[Path]) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    with open_set(Path("set"), 4, IDENTITY) as made:
        made.add([str(one) for one in images], rows)
    path = Path("set/part-00000000.parquet")
    place = path.read_bytes().index(rows[1].tobytes())
    for _ in flipped(path, iter([place])):
        with pytest.raises(InputError, match="part-00000000.parquet is damaged: .*(checksum|CRC)"):
            embed(images)


# Kills


def test_where_a_kill_left_both_rows_of_an_image_the_later_one_counts(images: list[Path]) -> None:
    embed(images)
    shutil.copytree("set", "before")
    images[0].write_text("another")
    embed(images, value=2)
    shutil.copy("before/part-00000000.parquet", "set")  # as it is before the old row is dropped
    assert contents() == ({"a": 2, "b": 1, "c": 1}, {})
    assert embed(images).kept == 3
    assert len(parquet.read_table("set/part-00000000.parquet")) == 2


DEAD = 2**22 + 1
"""No process has this number, which is above the greatest that Linux gives."""


@pytest.mark.parametrize("process", [DEAD, os.getpid(), os.getppid()], ids=["dead", "this", "parent"])
def test_a_kill_while_the_manifest_is_written_leaves_a_folder_that_is_taken(process: int, images: list[Path]) -> None:
    Path("set").mkdir()
    torn = Path(f"set/.embeddings.json.{process}.tmp")
    torn.write_text('{"format":')
    assert embed(images).count == 3
    assert torn.exists() == (process == os.getppid()), "of a process that is alive, it may be in use"


def test_what_killed_writers_left_is_removed_and_nothing_else(images: list[Path]) -> None:
    embed(images)
    ours = [
        f".part-00000007.parquet.{DEAD}.tmp",
        f".errors-00000007.parquet.{DEAD}.tmp",
        f".embeddings.json.{DEAD}.tmp",
    ]
    old, young = f".embeddings.json.{os.getppid()}.tmp", f".part-00000001.parquet.{os.getppid()}.tmp"
    others = [f".notes.txt.{DEAD}.tmp", ".part-00000007.parquet.tmp", "notes.txt", young]
    for name in (*ours, old, *others):
        Path("set", name).touch()
    os.utime(Path("set", old), (1000, 1000))
    embed(images)
    left = {one.name for one in Path("set").iterdir()} - {"embeddings.json", ".lock", "part-00000000.parquet"}
    assert left == set(others)


def test_what_a_killed_writer_of_a_file_left_goes_with_the_next_that_writes_it(tmp_path: Path) -> None:
    for name in (f".x.json.{DEAD}.tmp", f".other.json.{DEAD}.tmp", f".x.json.{os.getppid()}.tmp"):
        (tmp_path / name).touch()
    with atomic_write(tmp_path / "x.json") as (scratch,):
        scratch.write_text("{}")
    left = {"x.json", f".other.json.{DEAD}.tmp", f".x.json.{os.getppid()}.tmp"}
    assert {one.name for one in tmp_path.iterdir()} == left


@pytest.mark.parametrize("name", ["part", "errors"])
def test_a_part_that_is_a_pipe_is_not_opened(name: str, images: list[Path]) -> None:
    embed([*images], refuse=("a.png",))
    path = Path("set") / f"{name}-00000000.parquet"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="is not a regular file; remove it, and its rows are embedded again"):
        read_set("set")
    path.unlink()
    embed([*images])
    assert set(contents()[0]) == {"a", "b", "c"}
