"""Folders of embeddings: they grow, go on after a kill, and take no other model's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.embeddings.encode import Pace, embed_images
from zoo.embeddings.store import open_set, read_set
from zoo_core.errors import ConfigError, InputError, SaveError

parquet = pytest.importorskip("pyarrow.parquet")
IDENTITY = {"zoo.model": "tiny", "zoo.dtype": "float32"}
VECTOR = np.arange(4, dtype=np.float32)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(9):
        Image.effect_noise((20, 30), 90).convert("RGB").save(folder / f"{number}.png")
    (folder / "4.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.save(zoo.build("digits-tiny", pretrained="demo"), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    from zoo.cli.app import main

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([str(one) for one in arguments])
        return status, *capsys.readouterr()

    return call


def stat_of(path: str) -> tuple[int, int]:
    found = Path(path).stat()
    return found.st_size, found.st_mtime_ns


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(folder.glob("part-*.parquet")) for row in parquet.read_table(part).to_pylist()]


def test_every_image_has_a_row_with_its_feature_or_the_reason(run: Any, model: Path, pictures: Path, tmp_path: Path) -> None:  # fmt: skip
    status, out, err = run("embed", pictures, "--out", tmp_path / "set", "--model", model, "--batch-size", 4)
    ids, vectors, errors = read_set(tmp_path / "set")
    assert status == 1
    assert f"error: {pictures / '4.png'}: is no image" in err
    assert "8 embeddings of width" in out
    assert ids == [str(pictures / f"{number}.png") for number in range(9) if number != 4]
    assert [(one.id, one.kind, one.attempts) for one in errors] == [(str(pictures / "4.png"), "invalid", 1)]
    assert "is no image" in errors[0].reason
    with torch.inference_mode():
        expected = zoo.load(model).encode_image(ids, normalize=True).numpy()
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
    assert [(row["bytes"], row["mtime_ns"]) for row in rows(tmp_path / "set")] == [stat_of(path) for path in ids]


def test_what_is_there_is_not_embedded_again(run: Any, model: Path, pictures: Path, tmp_path: Path) -> None:
    some = [pictures / f"{number}.png" for number in range(3)]
    assert run("embed", *some, "--out", tmp_path / "set", "--model", model)[0] == 0
    part = tmp_path / "set" / "part-00000000.parquet"
    before = part.stat()
    status, out, _ = run("embed", pictures, "--out", tmp_path / "set", "--model", model)
    assert (status, "5 embeddings of width" in out, "beside 3 that were there" in out) == (1, True, True)
    after = part.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    ids = sorted(row["id"] for row in rows(tmp_path / "set"))
    assert ids == [str(pictures / f"{number}.png") for number in range(9) if number != 4]


def test_captions_have_no_file_and_stand_there_once(run: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a dog\na cat\na dog\n")
    assert run("embed", "--text", tmp_path / "captions.txt", "--out", tmp_path / "set", "--model", model)[0] == 0
    found = [(row["id"], row["bytes"], row["mtime_ns"]) for row in rows(tmp_path / "set")]
    assert found == [("a dog", None, None), ("a cat", None, None)]


def test_another_model_is_refused_and_the_difference_is_named(run: Any, model: Path, pictures: Path, tmp_path: Path) -> None:  # fmt: skip
    assert run("embed", pictures / "0.png", "--out", tmp_path / "set", "--model", model)[0] == 0
    other = zoo.load(model, probe=False)
    with torch.no_grad():
        next(other.visual.parameters()).add_(0.1)  # type: ignore[union-attr]
    zoo.save(other, tmp_path / "other")
    status, _, err = run("embed", pictures, "--out", tmp_path / "set", "--model", tmp_path / "other")
    assert status == 2
    assert "holds embeddings that are not comparable with these: " in err
    assert "zoo.weights_sha256 is " in err
    assert len(rows(tmp_path / "set")) == 1


DIFFERENT = {
    "dtype": ({"zoo.model": "tiny", "zoo.dtype": "bfloat16"}, 4, "zoo.dtype is float32, here bfloat16"),
    "width": (IDENTITY, 5, "width is 4, here 5"),
    "something unknown before": ({**IDENTITY, "zoo.engine": "x"}, 4, "zoo.engine is None, here x"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_set_takes_no_other_embeddings(case: str, tmp_path: Path) -> None:
    identity, width, message = DIFFERENT[case]
    with open_set(tmp_path / "set", 4, IDENTITY):
        pass
    with pytest.raises(InputError, match=message), open_set(tmp_path / "set", width, identity):
        pass


def config_of(tmp_path: Path, **preprocess: Any) -> dict[str, str]:
    data = zoo.config("digits-tiny", [f"preprocess.{key}={value}" for key, value in preprocess.items()]).data()
    return {**IDENTITY, "zoo.config": json.dumps(data)}


def test_another_engine_is_refused_by_its_name(tmp_path: Path) -> None:
    with open_set(tmp_path / "set", 4, config_of(tmp_path)):
        pass
    message = "not comparable with these: preprocess.engine is torch, here pil. Choose another folder"
    with pytest.raises(InputError, match=message), open_set(tmp_path / "set", 4, config_of(tmp_path, engine="pil")):
        pass


def test_where_a_model_came_from_and_what_is_said_of_it_does_not_matter(tmp_path: Path) -> None:
    first, again = config_of(tmp_path), config_of(tmp_path)
    data = json.loads(again["zoo.config"]) | {"description": "the same one"}
    again |= {"zoo.model": "elsewhere", "zoo.config": json.dumps(data)}
    for identity in (first, again):
        with open_set(tmp_path / "set", 4, identity, of_files=False) as made:
            made.add([identity["zoo.model"]], VECTOR[None])
    assert [row["id"] for row in rows(tmp_path / "set")] == ["tiny", "elsewhere"]


def test_a_set_of_images_takes_no_captions(tmp_path: Path) -> None:
    with open_set(tmp_path / "set", 4, IDENTITY):
        pass
    with (
        pytest.raises(InputError, match="these: they are of images, here of captions. Choose"),
        open_set(tmp_path / "set", 4, IDENTITY, of_files=False),
    ):
        pass


def test_each_part_tells_which_model_made_it(tmp_path: Path) -> None:
    with open_set(tmp_path / "set", 4, IDENTITY, of_files=False) as made:
        made.add(["a"], VECTOR[None])
    metadata = parquet.read_schema(tmp_path / "set" / "part-00000000.parquet").metadata
    metadata = {key.decode(): value.decode() for key, value in metadata.items()}
    assert len(metadata.pop("zoo.rows_sha256")) == 64
    assert metadata == IDENTITY


def test_rows_do_not_wait_long_for_a_part_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("zoo.embeddings.store.monotonic", lambda: now)
    with open_set(tmp_path / "set", 4, IDENTITY, of_files=False) as made:
        for name in "abc":
            made.add([name], VECTOR[None])
            now += 40
        assert [row["id"] for row in rows(tmp_path / "set")] == ["a", "b", "c"]
        made.add("d", VECTOR[None])
        assert len(rows(tmp_path / "set")) == 3


def test_parts_are_written_as_they_fill_and_the_rest_at_the_end(tmp_path: Path) -> None:
    with open_set(tmp_path / "set", 4, IDENTITY, rows_per_part=2, of_files=False) as made:
        made.add(["a", "b", "c"], np.stack([VECTOR] * 3))
        assert [len(parquet.read_table(part)) for part in sorted((tmp_path / "set").glob("part-*"))] == [2]
    assert [row["id"] for row in rows(tmp_path / "set")] == ["a", "b", "c"]


def test_rows_that_wait_are_written_when_the_job_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_set(tmp_path / "set", 4, IDENTITY, of_files=False) as made:
        made.add(["a"], VECTOR[None])
        raise KeyboardInterrupt
    assert [row["id"] for row in rows(tmp_path / "set")] == ["a"]


def test_two_processes_do_not_add_to_one_set(tmp_path: Path) -> None:
    with (
        open_set(tmp_path / "set", 4, IDENTITY),
        pytest.raises(InputError, match="another process adds to .*set right now"),
        open_set(tmp_path / "set", 4, IDENTITY),
    ):
        pass


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="exists and is no set of embeddings"), open_set(tmp_path, 4, IDENTITY):
        pass
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    with open_set(tmp_path / "set", 4, IDENTITY, of_files=False) as made:
        made.add(["a"], VECTOR[None])
    part = tmp_path / "set" / "part-00000000.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    message = "part-00000000.parquet is damaged: .*; remove it, and its rows are embedded again"
    with pytest.raises(InputError, match=message), open_set(tmp_path / "set", 4, IDENTITY, of_files=False):
        pass
    part.unlink()
    with open_set(tmp_path / "set", 4, IDENTITY, of_files=False) as made:
        assert made.remaining(["a"]) == ["a"]


WHOLE = {"format": 2, "of": "images", "width": 4, "identity": {}}
MANIFESTS: dict[str, tuple[str, str]] = {
    "no JSON": ("{", r"embeddings.json:1:2: is not JSON"),
    "a list": ("[]", "embeddings.json:1:1: expected a mapping"),
    "keys that lack": ('{"format": 1}', "embeddings.json:1:1: width: required key is missing"),
    "a later format": (json.dumps(WHOLE | {"format": 3}), r"embeddings.json:1:2: format: 3 is not known"),
    "a width of text": (json.dumps(WHOLE | {"width": "4"}), "width: expected a whole number, found '4'"),
    "no identity": (json.dumps(WHOLE | {"identity": None}), "identity: .*found None"),
    "an identity of numbers": (json.dumps(WHOLE | {"identity": {"zoo.dtype": 5}}), "identity.zoo.dtype: .*found 5"),
    "another key": (json.dumps(WHOLE | {"widht": 4}), "widht: unknown key, did you mean 'width'"),
    "a config that is none": (json.dumps(WHOLE | {"identity": {"zoo.config": "{"}}), "identity.zoo.config:1:2: is not"),
    "deep": (json.dumps(WHOLE | {"identity": {"zoo.config": "[" * 9999}}), "is nested deeper than 32 levels"),
    "a key that stands there twice": ('{"width": 4, "width": 4}', "width: duplicate key"),
}


@pytest.mark.parametrize(("text", "message"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_damaged_manifest_is_named_with_its_key(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "embeddings.json").write_text(text)
    with pytest.raises(ConfigError, match=message), open_set(tmp_path, 4, IDENTITY):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SaveError, match="set cannot be written"), open_set(tmp_path / "set", 4, IDENTITY):
        pass


# Reading ahead


def test_images_come_in_order_whatever_thread_reads_them_first(model: Path, pictures: Path) -> None:
    loaded = zoo.load(model)
    paths = [str(pictures / f"{number}.png") for number in (8, 0, 4, 3, 7, 1, 2, 2)]
    refused: list[str] = []
    found = list(embed_images(loaded, paths, batch_size=3, workers=5, refused=lambda path, _: refused.append(path)))
    assert [path for batch, _ in found for path in batch] == [path for path in paths if not path.endswith("4.png")]
    assert refused == [paths[2]]
    assert [len(batch) for batch, _ in found] == [2, 3, 2]


def test_no_more_is_read_than_a_few_batches_ahead(model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = zoo.load(model)
    read: list[str] = []
    preprocess = type(loaded.preprocess).__call__

    def counted(self: Any, image: Any) -> Any:
        read.append(image)
        return preprocess(self, image)

    monkeypatch.setattr(type(loaded.preprocess), "__call__", counted)
    batches = embed_images(loaded, [str(pictures / "0.png")] * 100, batch_size=2, workers=1, refused=print)
    next(batches)
    assert len(read) <= 8
    batches.close()  # type: ignore[attr-defined]


def test_the_bottleneck_is_what_took_longest() -> None:
    pace = Pace(reading=3.0, encoding=2.0, writing=0.1, done=10)
    assert pace.bottleneck == "reading images"
    assert str(pace).endswith("/s, held up by reading images")
    assert Pace(files="files", reading=1.0).bottleneck == "reading files"
    assert Pace(reading=1.0, encoding=2.0).bottleneck == "the model"
    assert Pace(writing=1.0).bottleneck == "writing"
