"""`zoo data`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command_line import Run
from support.datasets import pairs, png, shard


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten images with captions: one is corrupt, one is missing, one is there twice, and one caption is long."""
    for index in range(10):
        (tmp_path / f"{index}.png").write_bytes(png(index if index != 8 else 2))
    (tmp_path / "3.png").write_bytes(png(3)[:60])
    (tmp_path / "5.png").unlink()
    captions = [f"number {index}" for index in range(10)]
    captions[9] = "word " * 100
    rows = [f"{index}.png,{caption},{index // 2}\n" for index, caption in enumerate(captions)]
    (tmp_path / "pairs.csv").write_text("image,text,id\n" + "".join(rows))
    return tmp_path / "pairs.csv"


@pytest.mark.parametrize("workers", [0, 2])
def test_check_lists_what_cannot_be_used_and_what_is_there_twice(run: Run, table: Path, workers: int) -> None:
    status, out, err = run(
        "data", "check", "type=table", f"path={table}", "id=id", "--model", "vit-b16", "--workers", workers
    )
    assert status == 1
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:4] == ["train[0]:", "samples 10", "read 10", "bad 2"]
    assert lines[4].startswith(f"{table}: row 4: {table.parent}/3.png: cannot be decoded")
    assert lines[5] == f"{table}: row 6: {table.parent}/5.png: cannot be opened: No such file or directory"
    assert lines[6:9] == ["there twice 1", f"{table}: row 9 is {table}: row 3", "ids 5"]
    assert lines[9].startswith("tokens of a caption median 4, ") and lines[9].endswith("longest 102; 12.5% are cut")
    assert lines[10].startswith("rate ")
    assert err == "error: 2 samples cannot be used; training takes others in their place\n"


def test_stats_reads_some_samples(run: Run, table: Path) -> None:
    status, out, _ = run("data", "stats", "type=table", f"path={table}", "--limit", 5, "--json", "--workers", 0)
    report = json.loads(out)["train[0]"]
    assert status == 0 and (report["samples"], report["read"]) == (10, 5)
    assert report["tokens"]["longest"] == 102 and report["ids"] is None


def test_index_makes_the_index_of_shards(run: Run, tmp_path: Path) -> None:
    for number in range(2):
        shard(tmp_path / f"{number}.tar", pairs(3, 3 * number))
    status, out, _ = run("data", "index", "type=tar", f"path={tmp_path}/*.tar")
    assert status == 0 and (tmp_path / "0.tar.index.parquet").exists()
    assert [" ".join(line.split()) for line in out.splitlines()][:3] == ["train[0]:", "samples 6", "blocks 2"]


@pytest.mark.parametrize("form", ["set", "section", "recipe"])
def test_data_may_be_a_file(run: Run, tmp_path: Path, form: str) -> None:
    shard(tmp_path / "0.tar", pairs(3))
    text = f"{{type: tar, path: {tmp_path}/0.tar}}"
    if form != "set":
        text = f"{{train: {text}, validation: {text}}}"
    if form == "recipe":
        text = f"{{model: digits-tiny, data: {text}, batch: {{size: 2}}, schedule: {{steps: 3}}}}"
    (tmp_path / "data.yaml").write_text(text)
    status, out, err = run("data", "check", tmp_path / "data.yaml", "--json", "--workers", 0)
    assert status == 0, err
    reports = json.loads(out)
    assert list(reports) == (["train[0]"] if form == "set" else ["train[0]", "validation[0]"])
    assert all((report["read"], report["bad"], report["duplicates"]) == (3, [], []) for report in reports.values())


def test_a_stream_is_read_once(run: Run, tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", pairs(5) | {"x": {"png": b"none", "txt": b"x"}})
    status, out, _ = run("data", "check", "type=webdataset", f"path={tmp_path}/0.tar")
    assert status == 1 and "not known of a stream" in out and "no image of a known format" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek", "type=tar", "path=a"], "zoo data: no action 'chek', did you mean 'check'?"),
        (["check", "type=tar"], "path: required"),
        (["check", "type=tarr", "path=a"], "unknown dataset 'tarr', did you mean 'tar'?"),
        (["check", "type=tar", "path=a", "paht=b"], "paht: unknown key, did you mean 'path'?"),
        (["check", "type=tar", "path=/nowhere/a.tar"], "no file matches '/nowhere/a.tar'"),
        (["check", "a.yaml", "b.yaml"], "zoo data: DATA is one recipe or file, or several key=value"),
        (["check", "no-such-recipe"], "no-such-recipe"),
    ],
)
def test_what_cannot_be_looked_at_is_an_error_in_one_line(run: Run, arguments: list[str], message: str) -> None:
    status, out, err = run("data", *arguments)
    assert status == 2 and not out and message in err and err.count("\n") == 1
