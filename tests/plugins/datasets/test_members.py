import json
import os
import pickle
import tarfile

import pytest

from support.datasets import pairs, png, shard
from zoo_core.errors import ConfigError, DataError, SampleError
from zoo_core.registry import default_registry
from zoo_datasets.config import FolderConfig, TarConfig
from zoo_datasets.folder import FolderDataset
from zoo_datasets.tar import TarDataset
from zoo_datasets.tar_index import index_of, index_paths, member_parts


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))


def tar(*paths, **options):
    return TarDataset(TarConfig(path=[str(path) for path in paths], **options))


def folder(path, samples, **options):
    for key, members in samples.items():
        for ending, content in members.items():
            file = path / f"{key}.{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return FolderDataset(FolderConfig(path=str(path), **options))


def test_the_plugin_declares_its_data_sets():
    names = {component.spec.name for component in default_registry().components("dataset")}
    assert names >= {"tar", "table", "folder", "huggingface", "webdataset"}
    for component in default_registry().components("dataset"):
        assert component.config_class().model_fields["type"].default == component.spec.name


# Tar shards


def test_samples_of_shards_come_by_their_index(tmp_path):
    shard(tmp_path / "0.tar", pairs(3)), shard(tmp_path / "1.tar", pairs(2, 3))
    data = tar(tmp_path / "*.tar")
    assert len(data) == 5 and data.blocks() == [3, 2] and not data.has_ids
    for index in (4, 0, 2, 3, 1):
        sample = data[index]
        assert sample.inputs == {"image": [png(index)], "text": [f"number {index}"]}
        assert (sample.id, sample.weight) == (None, 1.0)
        assert data.location(index) == f"{tmp_path}/{index // 3}.tar#0000{index}"
    assert pickle.loads(pickle.dumps(data))[4] == data[4]


def test_python_reads_the_same_members(tmp_path):
    path = shard(tmp_path / "0.tar", {f"{'long' * 60}/{key}": members for key, members in pairs(4).items()})
    index = index_of(path)
    with tarfile.open(path) as archive:
        members = {member_parts(member.name): archive.extractfile(member).read() for member in archive}
    content = path.read_bytes()
    for row in index.to_pylist():
        assert content[row["offset"] : row["offset"] + row["size"]] == members.pop((row["key"], row["ending"]))
    assert not members


def test_endings_are_taken_in_the_order_of_the_config(tmp_path):
    path = shard(
        tmp_path / "0.tar", {"a": {"PNG": png(1), "webp": png(2), "txt": b"x"}, "b": {"webp": png(3), "txt": b"y"}}
    )
    data = tar(path, inputs={"image": ["webp", "png"], "text": "txt"})
    assert [data[index].inputs["image"] for index in (0, 1)] == [[png(2)], [png(3)]]
    assert tar(path)[0].inputs["image"] == [png(1)]


def test_json_gives_captions_ids_and_weights(tmp_path):
    facts = [{"caption": ["one", "two"], "id": 7, "w": 2}, {"caption": "three", "id": "8", "w": 0.5}]
    path = shard(
        tmp_path / "0.tar", {str(i): {"png": png(i), "json": json.dumps(fact).encode()} for i, fact in enumerate(facts)}
    )
    data = tar(path, inputs={"image": "png", "text": "json:caption"}, id="json:id", sample_weight="json:w")
    assert data.has_ids and data.has_weights and data.variants() == [2, 1]
    assert [(data[i].inputs["text"], data[i].id, data[i].weight) for i in (0, 1)] == [
        (["one", "two"], "7", 2.0),
        (["three"], "8", 0.5),
    ]


def test_an_index_is_made_once_and_anew_when_the_shard_changes(tmp_path, monkeypatch):
    path = shard(tmp_path / "0.tar", pairs(2))
    index_of(path)
    beside, _ = index_paths(path)
    assert beside.parent == tmp_path and beside.exists()
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert len(tar(path)) == 2
    shard(path, pairs(5))
    assert len(tar(path)) == 5
    beside.write_bytes(b"half")
    assert len(tar(path)) == 5 and beside.stat().st_size > 100


def test_an_index_goes_to_the_cache_where_the_folder_cannot_be_written(tmp_path, monkeypatch):
    path = shard(tmp_path / "0.tar", pairs(2))
    beside, in_cache = index_paths(path)
    beside.mkdir()  # nothing can be written there, whoever the user is
    index_of(path)
    assert in_cache.exists() and in_cache.is_relative_to(tmp_path / "home")
    monkeypatch.setattr(tarfile, "open", None)
    assert len(tar(path)) == 2


def test_a_digest_changes_with_the_members_and_not_with_the_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = shard(tmp_path / "a/0.tar", pairs(2))
    same = shard(tmp_path / "b/0.tar", pairs(2))
    assert tar(first).digest() == tar(same).digest() != tar(first, choose="first").digest()
    shard(same, pairs(2, 1))
    assert tar(first).digest() != tar(same).digest()


def test_more_shards_than_files_may_be_open_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo_datasets.tar.OPEN_FILES", 2)
    for number in range(5):
        shard(tmp_path / f"{number}.tar", pairs(1, number))
    data = tar(tmp_path / "*.tar")
    for index in (0, 1, 2, 3, 4, 0, 2):
        assert data[index].inputs["image"] == [png(index)]
    assert len(data._files) == 2


def truncated(path, size):
    os.truncate(path, size)
    return path


PARTS = [
    (512 * 3, "is truncated: it ends without the mark of its end"),
    (700, "is truncated: it ends within a member"),
    (300, "is truncated: it ends within a member"),
]


def poisoned_shards(folder):
    """Yield shards that cannot be used, and what is said of each."""
    whole = shard(folder / "whole.tar", {"a": {"txt": b"x" * 600, "png": png(1)}, "b": {"txt": b"y", "png": png(2)}})
    size = whole.stat().st_size
    for number, (length, message) in enumerate(PARTS):
        yield truncated(shard(folder / f"cut{number}.tar", {"a": {"txt": b"x" * 600, "png": png(1)}}), length), message
    with tarfile.open(whole) as archive:
        last = archive.getmembers()[-1]
        end = last.offset_data + -(-last.size // 512) * 512
    assert end < size
    (folder / "no-end.tar").write_bytes(whole.read_bytes()[:end])
    yield folder / "no-end.tar", "is truncated: it ends without the mark of its end"
    for name, content, message in (
        ("nothing.tar", b"", "is an empty file, no tar file"),
        ("zeros.tar", bytes(10240), "holds no sample"),
        ("text.tar", b"hello" * 500, "is no tar file"),
        (
            "packed.tar",
            b"\x1f\x8b" + bytes(1000),
            "is compressed, and members are read by their place; unpack it with gunzip",
        ),
    ):
        (folder / name).write_bytes(content)
        yield folder / name, message
    yield (
        shard(folder / "pair.tar", {"a": {"png": png(1)}, **pairs(2)}),
        "#a: has no text (txt), or an empty one; it is the first of 1 such among 3 samples. Add what is missing",
    )
    yield (
        shard(folder / "blank.tar", pairs(2) | {"z": {"png": png(1), "txt": b""}}),
        "#z: has no text (txt), or an empty one; it is the first of 1 such among 3 samples",
    )
    yield (
        shard(folder / "audio.tar", {"a": {"wav": b"x", "flac": b"y"}}),
        "no file ends in bmp, gif, jpeg, jpg, pbm, pgm, png, ppm, tif, tiff, webp, txt; they end in flac, wav",
    )
    with tarfile.open(folder / "twice.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a.txt"))
    yield folder / "twice.tar", "holds a.txt twice"
    (folder / "folder.tar").mkdir()
    yield folder / "folder.tar", "cannot be read: Is a directory"


def test_shards_that_cannot_be_used_are_refused_when_they_are_opened(tmp_path):
    for path, message in poisoned_shards(tmp_path):
        with pytest.raises(DataError) as error:
            tar(path)
        assert str(error.value).startswith(f"{path}") and message in str(error.value), (path.name, str(error.value))
        assert "\n" not in str(error.value)


def test_samples_that_lack_something_are_left_out_on_request(tmp_path):
    path = shard(tmp_path / "0.tar", {"a": {"png": png(1)}, **pairs(2), "z": {"txt": b"", "png": png(9)}})
    data = tar(path, missing="skip")
    assert len(data) == 2 and data.blocks() == [2] and data.location(1).endswith("#00001")
    with pytest.raises(DataError, match="no sample has all of image, text"):
        tar(shard(tmp_path / "1.tar", {"a": {"png": png(1)}}), missing="skip")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"json": b"{"}, "its json is no JSON"),
        ({"json": b"[1]"}, "its json holds [1], expected a mapping with the key 'caption'"),
        ({"json": b'{"caption": "a"}'}, "has no id at json:id"),
        (
            {"json": b'{"caption": "a", "id": 1, "w": "heavy"}'},
            "has the weight 'heavy' at json:w; expected a number from 0",
        ),
        ({"json": b"\xff"}, "its json is not UTF-8 text (byte 0)"),
    ],
)
def test_a_member_that_is_not_what_it_should_be_makes_a_bad_sample(tmp_path, members, message):
    path = shard(tmp_path / "0.tar", {"a": {"png": png(1), **members}})
    data = tar(path, inputs={"image": "png", "text": "json:caption"}, id="json:id", sample_weight="json:w")
    with pytest.raises(SampleError) as error:
        data[0]
    assert str(error.value).startswith(f"{path}#a: {message}")


def test_a_shard_that_shrinks_while_it_is_read_makes_bad_samples(tmp_path):
    path = shard(tmp_path / "0.tar", pairs(2))
    data = tar(path)
    truncated(path, 600)
    with pytest.raises(SampleError, match="is cut off; the shard has changed since it was opened"):
        data[1]
    path.unlink()
    with pytest.raises(SampleError, match="the shard cannot be opened: No such file"):
        pickle.loads(pickle.dumps(data))[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"inputs": {"image": "*.jpg"}},
            "inputs.image: expected an ending such as 'jpg' or 'json:caption', found '*.jpg'",
        ),
        ({"id": "key"}, "id: expected a key of a JSON file, such as 'json:id', found 'key'"),
        ({"missing": "drop"}, "missing"),
        ({"path": []}, "path"),
    ],
)
def test_a_config_that_means_nothing_is_refused(options, message):
    with pytest.raises(ConfigError) as error:
        TarConfig(**{"path": "a.tar"} | options)
    assert message in str(error.value)


def test_a_pattern_that_matches_nothing_names_what_is_near(tmp_path):
    (tmp_path / "shards").mkdir()
    shard(tmp_path / "shards/00000.tar", pairs(1))
    for pattern, message in (
        ("shrads/*.tar", f"no file matches '{tmp_path}/shrads/*.tar', did you mean '{tmp_path}/shards'?"),
        ("shards/00001.tar", f"did you mean '{tmp_path}/shards/00000.tar'?"),
        ("shards/*.zip", f"; the folder {tmp_path}/shards holds files: 1 of .tar"),
        ("shards/{00000..00001}.tar", f"no file matches '{tmp_path}/shards/00001.tar'"),
    ):
        with pytest.raises(DataError) as error:
            tar(tmp_path / pattern)
        assert message in str(error.value)
    with pytest.raises(DataError, match="twice; its samples would count double"):
        tar(tmp_path / "shards/*.tar", tmp_path / "shards/00000.tar")
    assert len(tar(tmp_path / "shards/{00000..00000}.tar")) == 1


# Folders


def test_files_of_a_folder_are_grouped_by_their_names(tmp_path):
    samples = {f"deep/{key}": members for key, members in pairs(3).items()} | {
        "a.b": {"JPG": png(7), "txt": "è".encode()}
    }
    data = folder(tmp_path / "f", samples)
    assert len(data) == 4 and data.blocks() is None
    assert data[0].inputs == {"image": [tmp_path / "f/a.b.JPG"], "text": ["è"]}
    assert data[2].inputs == {"image": [tmp_path / "f/deep/00001.png"], "text": ["number 1"]}
    assert data.location(2) == f"{tmp_path}/f/deep/00001"
    assert pickle.loads(pickle.dumps(data))[2] == data[2]


def test_captions_of_a_folder_may_be_json(tmp_path):
    samples = {"a": {"png": png(1), "json": b'{"texts": ["x", "y"]}'}}
    data = folder(tmp_path / "f", samples, inputs={"image": "png", "text": ["txt", "json:texts"]})
    assert data[0].inputs["text"] == ["x", "y"] and data.variants() == [2]


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    for samples, message in (
        (
            {"a": {"png": png(1)}},
            f"{tmp_path}/0#a: has no text (txt), or an empty one; it is the first of 1 such among 1 samples",
        ),
        ({"a": {"md": b"x"}}, f"{tmp_path}/1: no file ends in bmp, gif"),
    ):
        with pytest.raises(DataError) as error:
            folder(tmp_path / str(int("1" if "md" in samples["a"] else "0")), samples)
        assert str(error.value).startswith(message)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no file"):
        FolderDataset(FolderConfig(path=str(tmp_path / "empty")))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is no folder"):
        FolderDataset(FolderConfig(path=str(tmp_path / "file")))
