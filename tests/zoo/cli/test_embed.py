"""`zoo embed`."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from support.command_line import Run, save_tiny
from zoo.embeddings.encode import embed_images, embed_texts, identity
from zoo.embeddings.image_folders import PassedOver
from zoo.embeddings.inputs import find_images
from zoo.embeddings.store import read_set
from zoo_core.errors import InputError
from zoo_core.plugin import TEXT, ModalitySpec


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
    assert status == 0
    told = (
        f"passed over files of other extensions (1 .txt): '{pictures}/notes.txt'; name those that are images themselves"
    )
    assert err == f"warning: {told}\n"
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


def test_a_misspelled_folder_makes_no_set(run: Run, tiny: Path, tmp_path: Path) -> None:
    status, _, err = run("embed", tmp_path / "fotos", "--out", tmp_path / "set", "--model", tiny)
    assert (status, err) == (2, f"error: {tmp_path / 'fotos'}: there is no such file or folder\n")
    assert not (tmp_path / "set").exists()


def test_nothing_is_written_where_no_image_can_be_read(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_text("old")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.png").write_text("no picture")
    assert run("embed", tmp_path / "in", "--out", tmp_path / "x.npy", "--model", tiny, "--force")[0] == 1
    assert {one.name: one.read_text() for one in tmp_path.iterdir() if one.is_file()} == {"x.npy": "old"}


def test_an_interrupted_run_leaves_the_old_file_whole(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.embeddings.writers import Writer

    def interrupted(self: Writer, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "add", interrupted)
    for name in ("x.npy", "x.parquet"):
        (tmp_path / name).write_text("old")
        status, printed, _ = run("embed", pictures, "--out", tmp_path / name, "--model", tiny, "--force")
        assert (status, printed) == (130, "")
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"x.npy": "old", "x.parquet": "old"}


def test_whoever_reads_the_old_file_keeps_it(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_text("old")
    with (tmp_path / "x.npy").open() as reader:
        assert run("embed", pictures, "--out", tmp_path / "x.npy", "--model", tiny, "--force")[0] == 0
        assert reader.read() == "old"
    assert np.load(tmp_path / "x.npy").shape == (4, 16)


def test_a_count_of_many_digits_fits_into_the_header(tmp_path: Path) -> None:
    from zoo.embeddings.writers import writer

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
    monkeypatch.setattr("zoo.embeddings.encode.CAPTIONS", 2)
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


def test_embed_says_what_it_passed_over_and_why(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(pictures, folder)
    for name in ("x.HEIC", "y.heic", "z.avif", "more.zip", "clip.mp4", "IMG_1", "sub/README"):
        (folder / name).touch()
    (folder / "link").symlink_to(folder / "sub")
    status, _, err = run("embed", folder, "--out", tmp_path / "x.npy", "--model", tiny)
    assert status == 0
    assert set(err.splitlines()) == {
        f"warning: passed over files of a format that is not read (2 .heic, 1 .avif): '{folder}/x.HEIC', ...; convert "
        "them to JPEG or PNG",
        f"warning: passed over archives (1 .zip): '{folder}/more.zip'; unpack those that hold images",
        f"warning: passed over moving pictures (1 .mp4): '{folder}/clip.mp4'; take single pictures out of them",
        f"warning: passed over files without an extension (2): '{folder}/IMG_1', ...; name those that are images "
        "themselves",
        f"warning: passed over files of other extensions (1 .txt): '{folder}/notes.txt'; name those that are images "
        "themselves",
        f"warning: passed over links to folders (1): '{folder}/link'; name the folders that they lead to",
    }
    assert run("embed", folder / "IMG_1", "--out", tmp_path / "y.npy", "--model", tiny)[0] == 1


def test_embed_says_what_it_passed_over_where_nothing_is_left(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.heic").touch()
    status, _, err = run("embed", tmp_path, "--out", tmp_path / "x.npy", "--model", tiny)
    assert (status, "passed over files of a format that is not read (1 .heic)" in err) == (2, True)
    assert "error: found no image" in err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_told_and_the_job_exits_with_1(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(pictures, tmp_path / "in")
    (tmp_path / "in" / "sub").chmod(0)
    status, _, err = run("embed", tmp_path / "in", "--out", tmp_path / "x.npy", "--model", tiny)
    (tmp_path / "in" / "sub").chmod(0o700)
    assert (status, "passed over folders that cannot be listed (1): '" in err) == (1, True)


def test_a_name_that_is_no_unicode_is_told_and_the_others_are_embedded(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(pictures, tmp_path / "in")
    os.rename(tmp_path / "in" / "b.png", os.fsencode(tmp_path / "in") + b"/caf\xe9.png")  # noqa: PTH104
    status, _, err = run("embed", tmp_path / "in", "--out", tmp_path / "x.npy", "--model", tiny)
    assert (status, "passed over names that are no Unicode and can be no ids (1): '" in err) == (1, True)
    assert len(ids(tmp_path / "x.ids.txt")) == 3


def test_a_name_with_a_line_break_is_an_id_where_ids_are_no_lines(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    names = [str(tmp_path / "in" / name) for name in ("a\nb.png", "c\u2028d.png")]
    (tmp_path / "in").mkdir()
    for name in names:
        shutil.copy(pictures / "b.png", name)
    assert run("embed", tmp_path / "in", "--out", tmp_path / "x.parquet", "--model", tiny)[0] == 0
    assert parquet.read_table(tmp_path / "x.parquet")["id"].to_pylist() == names
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\0".join([*names, ""]).encode())))
    assert run("embed", "-", "--out", tmp_path / "set", "--model", tiny)[0] == 0
    assert read_set(tmp_path / "set").ids == names
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{names[1]}\n".encode())))
    assert run("embed", "-", "-o", tmp_path / "y.npy", "--model", tiny)[0] == 0
    assert (tmp_path / "y.ids.txt").read_text(encoding="utf-8") == f"{names[1]}\n"


@pytest.mark.parametrize("name", ["x.npy", "x.ids.txt", "x.model.json", "x.parquet"])
def test_what_is_there_is_replaced_by_force_alone(
    name: str, run: Run, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / ("x.parquet" if name.endswith("parquet") else "x.npy")
    (tmp_path / name).write_text("old")
    arguments = ["embed", pictures / "b.png", "-o", out, "--model", tiny]
    status, _, err = run(*arguments)
    assert (status, err) == (2, f"error: {tmp_path / name} is there already; give --force to replace it\n")
    assert [one.read_text() for one in tmp_path.iterdir()] == ["old"]
    assert run(*arguments, "--force")[0] == 0
    assert (tmp_path / name).read_bytes() != b"old"


def test_features_that_are_not_finite_are_no_embedding(run: Run, pictures: Path, tmp_path: Path) -> None:
    model = zoo.load(save_tiny(tmp_path / "whole"))
    with torch.no_grad():
        model.visual.proj.fill_(float("nan"))  # type: ignore[union-attr, operator]
        model.text_projection.fill_(float("nan"))  # type: ignore[union-attr, operator]
    refused: dict[str, str] = {}
    image = str(pictures / "b.png")
    assert not list(embed_images(model, [image], refused=lambda path, error: refused.update({path: str(error)})))
    assert refused[image].startswith(f"{image}: the model gives features that are not finite; compute in float32")
    with pytest.raises(InputError, match="features of 'a dog' that are not finite"):
        list(embed_texts(model, ["a dog"]))


def test_blank_lines_between_captions_are_told(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "told.txt").write_bytes(b"a cat\r\n\r\n \r\na dog\r\n")
    status, _, err = run("embed", tmp_path / "told.txt", "--text", "--out", tmp_path / "told.npy", "--model", tiny)
    assert (status, ids(tmp_path / "told.ids.txt")) == (0, ["a cat", "a dog"])
    assert "told.txt: 2 blank lines are left out, the first of them line 2; what follows is counted without them" in err
    (tmp_path / "whole.txt").write_bytes(b"a cat\r\na dog\r\n\r\n")
    status, _, err = run("embed", tmp_path / "whole.txt", "--text", "--out", tmp_path / "whole.npy", "--model", tiny)
    assert (status, err) == (0, "")


EMBED_ERRORS = {
    "captions of another modality": (
        "x.npy",
        ["blank.txt", "--text", "--modality", "depth"],
        "--text and --modality exclude each other: captions are text",
    ),
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
    "a line break in a name": ("x.npy", ["odd"], "'odd/a\\nb.png' has a line break in it, and x.ids.txt holds an id a"),
    "force for a folder": ("x", ["--force", "."], "--force replaces a file, and x is a folder"),
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


DEPTH = ModalitySpec("depth", "acme:D", "acme:D", "acme:D", files=(".npy",))
TOUCH = ModalitySpec("touch", "acme:D", "acme:D", "acme:D")


def test_a_model_without_the_modality_of_the_files_makes_no_set(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(zoo.registry()), "modality", lambda *_: DEPTH)
    (tmp_path / "a.npy").touch()
    status, _, err = run("embed", tmp_path, "--modality", "depth", "--out", tmp_path / "set", "--model", tiny)
    assert (status, err) == (2, "error: this model embeds no depth; allowed: image, text\n")
    assert not (tmp_path / "set").exists()


def test_files_are_not_embedded_by_a_model_that_lacks_their_modality(tiny: Path) -> None:
    model = zoo.load(tiny, towers=("text",))
    with pytest.raises(InputError, match="this model embeds no image; allowed: text"):
        list(embed_images(model, ["a.png"], refused=print))


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        (DEPTH, "found no depth; in a folder those count that end in .npy"),
        (TOUCH, "found no touch; name the files themselves"),
        (TEXT, "captions are embedded with --text, which needs no --modality"),
    ],
)
def test_files_of_another_modality_are_found_by_their_own_endings(
    modality: ModalitySpec, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.tif").touch()
    passed_over = PassedOver()
    with pytest.raises(InputError) as raised:
        find_images([tmp_path], passed_over, modality)
    assert str(raised.value) == message
    for sentence in passed_over.sentences():
        assert sentence.endswith("name those that are to be embedded themselves")


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
