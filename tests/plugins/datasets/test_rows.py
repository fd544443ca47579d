import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.datasets import opened, png
from zoo.training.data.loader import Loader
from zoo_core.errors import DataError, SampleError
from zoo_datasets.config import HuggingFaceConfig, TableConfig
from zoo_datasets.huggingface import HuggingFaceDataset
from zoo_datasets.table import TableDataset


def table(path, **options):
    return TableDataset(TableConfig(path=str(path), **options))


def csv(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def parquet(path, rows=None, group=2, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows or columns), path, row_group_size=group)
    return path


FILES = {"image": [{"bytes": png(i), "path": f"{i}.png"} for i in range(5)], "text": [f"number {i}" for i in range(5)]}


# Tables


def test_rows_of_a_csv_file_are_samples(tmp_path):
    path = csv(tmp_path / "pairs.csv", '\ufeffimage,text,key,w\na/1.png,"one, two\nlines",7,1\n/b/2.png,NA,007,0.5\n')
    data = table(path, id="key", sample_weight="w")
    assert len(data) == 2 and data.blocks() is None and data.has_ids and data.has_weights
    assert data[0].inputs == {"image": [str(tmp_path / "a/1.png")], "text": ["one, two\nlines"]}
    assert data[1].inputs == {"image": ["/b/2.png"], "text": ["NA"]}
    assert [(data[i].id, data[i].weight) for i in (0, 1)] == [("7", 1.0), ("007", 0.5)]
    assert data.location(1) == f"{path}: row 2"
    assert pickle.loads(pickle.dumps(data))[1] == data[1]


def test_columns_root_and_separator_are_those_of_the_config(tmp_path):
    csv(tmp_path / "pairs.csv", "filepath;title;caption\n1.png;one;;\n".replace(";;", ";"))
    path = csv(tmp_path / "pairs.csv", "filepath;title;caption\n1.png;one;\n2.png;;zwei\n")
    options = {"inputs": {"image": "filepath", "text": ["title", "caption"]}, "root": "/images", "separator": ";"}
    data = table(path, **options)
    assert [data[i].inputs for i in (0, 1)] == [
        {"image": ["/images/1.png"], "text": ["one"]},
        {"image": ["/images/2.png"], "text": ["zwei"]},
    ]
    assert len(table(csv(tmp_path / "pairs.tsv", "image\ttext\n1.png\ta,b\n"))) == 1


def test_several_captions_are_columns_or_lists_or_lists_in_json(tmp_path):
    path = csv(tmp_path / "pairs.csv", 'image,text\n1.png,"[""a"", ""b"", """"]"\n2.png,[not json\n3.png,[1]\n')
    data = table(path)
    assert [data[i].inputs["text"] for i in range(3)] == [["a", "b"], ["[not json"], ["[1]"]]
    assert data.variants() == [2, 1, 1]
    path = parquet(
        tmp_path / "pairs.parquet", image=["1.png", "2.png"], text=[["a", "b", None], ["c"]], more=["d", None]
    )
    data = table(path, inputs={"image": "image", "text": ["text", "more"]})
    assert [data[i].inputs["text"] for i in (0, 1)] == [["a", "b", "d"], ["c"]]
    assert data.variants() == [3, 1]


def test_files_within_parquet_are_decoded_a_row_group_at_a_time(tmp_path):
    data = table(parquet(tmp_path / "pairs.parquet", FILES))
    assert data.blocks() == [2, 2, 1] and data.variants() is None
    for index in (4, 0, 3):
        assert data[index].inputs == {"image": [png(index)], "text": [f"number {index}"]}
    assert pickle.loads(pickle.dumps(data))[2] == data[2]
    plain = {"image": [png(0), png(1), None], "text": ["a", None, "c"]}
    data = table(parquet(tmp_path / "plain.parquet", plain), missing="skip")
    assert data.blocks() == [1, 1] and data[0].inputs["image"] == [png(0)] and data[1].inputs["image"] == []


def test_several_files_are_one_data_set(tmp_path):
    csv(tmp_path / "1.csv", "image,text\n1.png,a\n2.png,b\n")
    csv(tmp_path / "2.csv", "text,image\nc,3.png\n")
    data = table(tmp_path / "*.csv")
    assert [data[i].inputs["text"] for i in range(3)] == [["a"], ["b"], ["c"]]
    assert data.location(2) == f"{tmp_path}/2.csv: row 1"


def test_a_digest_changes_with_a_value(tmp_path):
    path = csv(tmp_path / "1.csv", "image,text\n1.png,a\n")
    before = table(path).digest()
    assert table(path).digest() == before != table(path, root="/x").digest()
    csv(path, "image,text\n1.png,b\n")
    assert table(path).digest() != before


HEAD = "image,text,w\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            HEAD + "1.png,a,1\n2.png,,1\n3.png,  ,1\n",
            {},
            "row 2 has no text (text); it is the first of 2 such among 3 rows. Add what is missing, or leave them out with missing: skip",
        ),
        (HEAD + "1.png,nan,1\n2.png,NaN,1\n", {}, "row 1 has no text (text); it is the first of 2 such among 2 rows"),
        (HEAD + ",a,1\n", {}, "row 1 has no image (image); it is the first of 1 such among 1 rows"),
        (
            HEAD + "1.png,a,1\n",
            {"inputs": {"image": "image", "text": "txt"}},
            "has no column 'txt', did you mean 'text'?",
        ),
        ("image\ttext\n1.png\ta\n", {}, "has no column 'image'; it has tabs: separator: \"\\t\""),
        (HEAD + "1.png,a,1\n", {"id": "key"}, "has no column 'key'; allowed: image, text, w"),
        (HEAD + "1.png,a,nan\n", {"sample_weight": "w"}, "row 1 has the w 'nan'; expected a number from 0"),
        (HEAD + "1.png,a,1\n2.png,b,-1\n", {"sample_weight": "w"}, "row 2 has the w '-1'; expected a number from 0"),
        (HEAD + "1.png,a,much\n", {"sample_weight": "w"}, "row 1 has the w 'much'; expected a number from 0"),
        (HEAD, {}, "has no row"),
        ("", {}, "is an empty file"),
        (HEAD + "1.png,a,1,2\n", {}, "CSV parse error: Expected 3 columns, got 4"),
        (b"\xff\xfe" + HEAD.encode("utf-16-le"), {}, "is not UTF-8 text (byte 0)"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_when_they_are_opened(tmp_path, text, options, message):
    path = csv(tmp_path / "pairs.csv", text)
    with pytest.raises(DataError) as error:
        table(path, **options)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_other_tables_that_cannot_be_used_are_refused(tmp_path):
    damaged = parquet(tmp_path / "damaged.parquet", FILES)
    damaged.write_bytes(damaged.read_bytes()[:-50])
    for path, message in (
        (damaged, "is no whole Parquet file"),
        (
            parquet(tmp_path / "numbers.parquet", image=["1.png"], text=[1.5]),
            "column 'text' holds double, expected texts, or lists of them",
        ),
        (
            parquet(tmp_path / "nothing.parquet", image=["1.png"], text=pa.array([None], pa.null())),
            "row 1 has no text (text)",
        ),
        (
            parquet(tmp_path / "none.parquet", image=["1.png"], text=pa.array([[]], pa.list_(pa.string()))),
            "row 1 has no text (text)",
        ),
        (csv(tmp_path / "pairs.xlsx", "x"), "a table ends in .csv, .tsv, .parquet"),
    ):
        with pytest.raises(DataError) as error:
            table(path)
        assert str(error.value).startswith(f"{path}: {message}"), str(error.value)
    with pytest.raises(DataError, match="no file matches '.*pears.csv', did you mean '.*pairs.xlsx'"):
        table(tmp_path / "pears.csv")


def test_rows_without_a_caption_are_left_out_on_request_and_never_become_nan(tmp_path):
    data = table(csv(tmp_path / "pairs.csv", HEAD + "1.png,,1\n2.png,b,1\n3.png,nan,1\n"), missing="skip")
    assert len(data) == 1 and data[0].inputs["text"] == ["b"] and data.location(0).endswith("row 2")


def test_a_row_without_an_id_or_with_another_input_makes_a_bad_sample(tmp_path):
    data = table(csv(tmp_path / "pairs.csv", "image,text,id\n1.png,a,\n"), id="id")
    with pytest.raises(SampleError, match=r"pairs.csv: row 1: has no id"):
        data[0]
    rows = {"image": pa.array([{"bytes": None, "path": None, "n": b""}]), "text": ["a"]}
    with pytest.raises(SampleError, match=r"row 1: expected a path or the bytes of a file, found None"):
        table(parquet(tmp_path / "p.parquet", rows))[0]


# Hugging Face


def saved(folder, rows, files=1):
    """Write what `save_to_disk` of datasets writes."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = pa.table(rows)
    names = [f"data-{number:05}-of-{files:05}.arrow" for number in range(files)]
    share = -(-whole.num_rows // files)
    for number, name in enumerate(names):
        part = whole.slice(number * share, share)
        with pa.ipc.new_stream(folder / name, part.schema) as writer:
            writer.write_table(part)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in names], "_indices_data_files": None})
    )
    (folder / "dataset_info.json").write_text("{}")
    return folder


def huggingface(path, **options):
    return HuggingFaceDataset(HuggingFaceConfig(path=str(path), **options))


def test_a_saved_data_set_is_read_from_its_arrow_files(tmp_path):
    data = huggingface(saved(tmp_path / "set", FILES, files=2))
    assert [data[i].inputs for i in (0, 4)] == [{"image": [png(i)], "text": [f"number {i}"]} for i in (0, 4)]
    assert pickle.loads(pickle.dumps(data))[3] == data[3]


def test_a_split_is_chosen_by_its_name(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (
        saved(tmp_path / "set/train", FILES),
        saved(tmp_path / "set/test", {name: values[:2] for name, values in FILES.items()}),
    )
    assert len(huggingface(tmp_path / "set", split="test")) == 2
    for split, message in (
        (None, "has several splits, name one with split; allowed: test, train"),
        ("dev", "has several splits, it has no 'dev'; allowed: test, train"),
    ):
        with pytest.raises(DataError) as error:
            huggingface(tmp_path / "set", split=split)
        assert str(error.value) == f"{tmp_path}/set: {message}"


def test_a_folder_of_parquet_files_is_a_data_set(tmp_path):
    for number in range(2):
        parquet(tmp_path / f"set/data/train-0000{number}-of-00002.parquet", FILES)
    parquet(tmp_path / "set/data/test-00000-of-00001.parquet", FILES)
    assert len(huggingface(tmp_path / "set", split="train")) == 10


def test_folders_that_are_no_saved_data_set_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    chosen, cut, lost = (saved(tmp_path / name, FILES) for name in ("chosen", "cut", "lost"))
    (chosen / "state.json").write_text(
        '{"_data_files": [{"filename": "a"}], "_indices_data_files": [{"filename": "b"}]}'
    )
    (cut / "data-00000-of-00001.arrow").write_bytes((cut / "data-00000-of-00001.arrow").read_bytes()[:100])
    (lost / "state.json").write_text("{")
    for path, message in (
        (tmp_path / "empty", "holds neither state.json, which save_to_disk writes, nor Parquet files"),
        (chosen, "was saved as a selection of rows; call flatten_indices() before save_to_disk"),
        (cut, "is no whole Arrow file"),
        (lost, "is no JSON"),
        (csv(tmp_path / "file.parquet", ""), "expected a folder; single Parquet files are of type: table"),
    ):
        with pytest.raises(DataError, match=message.replace("(", r"\(").replace(")", r"\)")) as error:
            huggingface(path)
        assert str(error.value).startswith(str(path))


# All of them in a loader


@pytest.mark.parametrize("workers", [0, 2])
def test_a_table_with_a_corrupt_and_a_missing_image_trains_on_the_rest(tmp_path, workers):
    for index in range(12):
        (tmp_path / f"{index}.png").write_bytes(png(index))
    (tmp_path / "3.png").write_bytes(png(3)[:60])
    (tmp_path / "5.png").unlink()
    path = csv(tmp_path / "pairs.csv", "image,text\n" + "".join(f"{i}.png,number {i}\n" for i in range(12)))
    data = opened({"type": "table", "path": str(path)}, batch=4)
    bad = [entry for batch in Loader(data, steps=6, workers=workers) for entry in batch.bad]
    assert {entry.location for entry in bad} == {f"{path}: row 4", f"{path}: row 6"}
    reasons = {entry.location[-1]: entry.reason for entry in bad}
    assert reasons["4"].startswith(f"{tmp_path}/3.png: cannot be decoded")
    assert reasons["6"] == f"{tmp_path}/5.png: cannot be opened: No such file or directory"
