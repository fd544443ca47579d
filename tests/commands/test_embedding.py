"""`zoo embed`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from command_line import Run
from zoo.embedding import identity


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
    assert {one.name for one in out.parent.iterdir()} == {"vectors.npy", "vectors.ids.txt", "vectors.model.json"}
    told = json.loads((tmp_path / "new" / "vectors.model.json").read_text())
    assert told == identity(zoo.load(tiny), str(tiny), None)
    assert json.loads(told["zoo.config"])["preprocess"]["engine"] == "torch"


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


def test_embed_computes_in_the_dtype_asked_for_and_records_it(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for dtype in ("float32", "bfloat16"):
        assert run("embed", pictures, "--out", tmp_path / f"{dtype}.parquet", "--model", tiny, "--dtype", dtype)[0] == 0
    coarse, exact = (parquet.read_table(tmp_path / f"{dtype}.parquet") for dtype in ("bfloat16", "float32"))
    assert coarse.schema.metadata[b"zoo.dtype"] == b"bfloat16"
    rows, expected = (np.stack(one["embedding"].to_pylist()) for one in (coarse, exact))
    assert 1e-5 < np.abs(rows - expected).max() < 0.02


def test_the_identity_of_a_model_follows_its_weights(tiny: Path) -> None:
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


def test_nothing_is_written_where_no_image_can_be_read(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_text("old")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.png").write_text("no picture")
    assert run("embed", tmp_path / "in", "--out", tmp_path / "x.npy", "--model", tiny)[0] == 1
    assert {one.name: one.read_text() for one in tmp_path.iterdir() if one.is_file()} == {"x.npy": "old"}


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


def test_paths_and_captions_come_from_standard_input_too(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    images = [str(pictures / "b.png"), str(pictures / "sub" / "c.png")]
    given("\n".join([*images, "", images[0]]))
    assert run("embed", "-", "--out", tmp_path / "x.npy", "--model", tiny)[0] == 0
    assert ids(tmp_path / "x.ids.txt") == images
    given("a dog\n\na cat\n")
    assert run("embed", "--text", "-", "--out", tmp_path / "y.npy", "--model", tiny)[0] == 0
    assert ids(tmp_path / "y.ids.txt") == ["a dog", "a cat"]


def test_captions_that_were_cut_are_told_in_one_line(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.embedding.CAPTIONS", 2)
    (tmp_path / "captions.txt").write_text("\n".join(["a dog", "word " * 30, "a cat", "more " * 30, "a"]))
    arguments = ("embed", "--text", tmp_path / "captions.txt", "--model", tiny, "--out")
    status, _, err = run(*arguments, tmp_path / "x.npy")
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith("warning: 2 of 5 captions have more than 16 tokens and were cut; the first of them: 'word")
    assert run(*arguments, tmp_path / "y.npy", "--overflow", "truncate")[2] == ""
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy"))
    status, _, err = run(*arguments, tmp_path / "z.npy", "--overflow", "error")
    assert (status, "captions have more than 16 tokens; texts[1]" in err) == (2, True)
    assert not (tmp_path / "z.npy").exists()
    status, _, err = run(*arguments, tmp_path / "z.npy", "--overflow", "cut")
    assert (status, "overflow must be 'warn', 'truncate', 'error', found 'cut'" in err) == (2, True)


EMBED_ERRORS = {
    "another extension": ("x.csv", ["."], "x.csv: unknown extension '.csv'; allowed: .npy, .parquet, or none"),
    "a folder": ("folder.npy", ["."], "folder.npy is a folder; name a file"),
    "no image": ("x.npy", ["empty"], "found no image"),
    "no caption": ("x.npy", ["--text", "blank.txt"], "found no caption"),
    "no caption file": (
        "x.npy",
        ["--text", "none.txt"],
        "none.txt cannot be read: No such file or directory",
    ),
    "captions for images": ("x.npy", ["latin.txt"], "latin.txt is a text file; captions are embedded with --text"),
    "a table": ("x.npy", ["--text", "captions.csv"], "captions.csv is a table, expected a caption a line"),
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
