from collections import Counter

import pytest

from support.datasets import opened, pairs, png, shard
from zoo.training.data.loader import Loader
from zoo_core.errors import ConfigError, DataError
from zoo_datasets.config import WebDatasetConfig
from zoo_datasets.streams import TarStream


@pytest.fixture
def shards(tmp_path):
    for number in range(4):
        shard(tmp_path / f"{number:02}.tar", pairs(6, 6 * number))
    return tmp_path


def stream(*paths, **options):
    return TarStream(WebDatasetConfig(path=[str(path) for path in paths], **options))


def texts(source, **options):
    return [sample.inputs["text"][0] for sample in source.samples(**{"seed": 0, "rank": 0, "count": 1} | options)]


ALL = {f"number {index}" for index in range(24)}


@pytest.mark.parametrize("buffer", [1, 5, 100])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_readers_share_the_samples_and_mix_them(shards, buffer, count):
    source = stream(shards / "*.tar", buffer=buffer)
    read = [texts(source, rank=rank, count=count) for rank in range(count)]
    assert Counter(text for part in read for text in part) == Counter(ALL)
    if buffer > 1:
        assert read[0] != sorted(read[0], key=lambda text: int(text.split()[1]))
    assert texts(source, seed=1) != texts(source) == texts(source)


def test_a_command_is_read_as_a_file_is(shards):
    source = stream(f"pipe:cat {shards}/{{00..03}}.tar")
    assert set(texts(source)) == ALL
    sample = next(iter(source.samples(seed=0, rank=0, count=4)))
    assert sample.inputs["image"] == [png(int(sample.inputs["text"][0].split()[1]))]


def test_streams_that_cannot_be_read_are_errors(shards):
    cut = shards / "00.tar"
    cut.write_bytes(cut.read_bytes()[:1700])
    for path, message in (
        (cut, f"{cut}: cannot be read, or is truncated"),
        ("pipe:exit 3", "pipe:exit 3: "),
        (f"pipe:cat {shards}/01.tar; exit 3", "the command failed with status 3"),
    ):
        with pytest.raises(DataError) as error:
            texts(stream(path))
        assert message in str(error.value)
    with pytest.raises(DataError, match="4 shards are too few for 5 readers"):
        texts(stream(shards / "*.tar"), count=5)
    with pytest.raises(DataError, match="no file matches"):
        stream(shards / "*.tgz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choose": "all"}, "choose: 'all' takes a data set with an index, such as type: tar"),
        ({"missing": "skip"}, "missing: is for data sets with an index"),
    ],
)
def test_what_takes_an_index_is_refused(options, message):
    with pytest.raises(ConfigError) as error:
        WebDatasetConfig(path="a.tar", **options)
    assert message in str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_with_bad_samples_trains_on_the_rest(shards, workers):
    shard(shards / "00.tar", pairs(5) | {"x": {"png": png(1)}, "y": {"png": b"no image", "txt": b"y"}})
    data = opened({"type": "webdataset", "path": str(shards / "*.tar")}, batch=4)
    assert data.resume == "approximate" and data.digest()
    batches = list(Loader(data, steps=20, workers=workers))
    assert all(len(batch) == 4 for batch in batches)
    reasons = {entry.reason for batch in batches for entry in batch.bad}
    assert any("has no text" in reason for reason in reasons) and any("no image" in reason for reason in reasons)


def test_a_run_that_goes_on_reads_in_another_order(shards):
    data = opened({"type": "webdataset", "path": str(shards / "*.tar")}, batch=4)
    first = [
        batch.inputs["text"].tolist()
        for start in (0, 0, 6)
        for batch in Loader(data, start=start, steps=start + 3, workers=0)
    ]
    assert first[:3] == first[3:6] != first[6:]
