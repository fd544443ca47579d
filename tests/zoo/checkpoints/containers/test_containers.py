"""Files of weights of every container: listed without reading, read exactly, refused with a reason."""

from __future__ import annotations

import argparse
import json
import mmap
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.checkpoints.containers import open_container
from zoo_core.checkpoints import TensorInfo, TensorSource
from zoo_core.errors import CheckpointError


def tensors() -> dict[str, Tensor]:
    """Tensors of several dtypes; some are views, share memory or are empty."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    return {
        "a.weight": torch.randn(3, 5),
        "a.half": torch.randn(7).half(),
        "brain": torch.randn(4, 4)[1:3, 1:].bfloat16(),
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "count": torch.tensor(3),
        "flags": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "empty part": base[1:3, 6:],
        "scalar": torch.tensor(2.5, dtype=torch.float64),
    }


def expect_equal(source: TensorSource, expected: Mapping[str, Tensor]) -> None:
    assert source.entries.keys() == expected.keys()
    for key, value in expected.items():
        found = source.read(key)
        assert source.entries[key] == TensorInfo(str(value.dtype).removeprefix("torch."), tuple(value.shape))
        assert found.dtype == value.dtype
        assert torch.equal(found, value), key
    source.check(expected)


class Trained(nn.Module):
    """Modules inside modules, with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.scale = nn.Parameter(torch.ones([]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) * self.scale


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_file_of_torch_save_is_read_exactly(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
    expect_equal(open_container(path), tensors())


def test_a_safevaluesfile_is_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    expected = {key: value.contiguous() for key, value in tensors().items()}
    save_file(expected, path, metadata={"activation": "gelu"})
    source = open_container(path)
    expect_equal(source, expected)
    assert source.metadata == {"activation": "gelu"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*jit.*:FutureWarning")
def test_a_torchscript_archive_is_read_without_its_program(tmp_path: Path) -> None:
    model = Trained()
    path = tmp_path / "x.pt"
    torch.jit.script(model).save(str(path))
    source = open_container(path)
    expect_equal(source, model.state_dict())
    assert source.container == "TorchScript"
    assert source.notes == ("the program of the TorchScript archive was not run",)


def test_a_whole_module_is_read_without_its_class(tmp_path: Path) -> None:
    model = Trained()
    torch.save(model, tmp_path / "x.pt")
    expect_equal(open_container(tmp_path / "x.pt"), model.state_dict())


def test_an_npz_archive_is_read_exactly_and_two_bytes_without_a_type_are_bfloat16(tmp_path: Path) -> None:
    brain = torch.randn(2, 3).bfloat16()
    arrays = {"params/img/kernel": numpy.arange(6, dtype="f4").reshape(2, 3).T, "t": numpy.float32(3)}
    numpy.savez(tmp_path / "x.npz", brain=brain.view(torch.int16).numpy().view("V2"), **arrays)
    expected = {key: torch.from_numpy(numpy.array(value)) for key, value in arrays.items()}
    expect_equal(open_container(tmp_path / "x.npz"), {"brain": brain, **expected})


@pytest.mark.parametrize("order", ["=", "<", ">"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"])
def test_arrays_of_any_dtype_that_torch_has_are_read_exactly(dtype: str, order: str, tmp_path: Path) -> None:
    values = numpy.arange(24).reshape(4, 6) % 7
    arrays = {
        "whole": values.astype(dtype),
        "transposed": values.astype(dtype).T,
        "scalar": values.astype(dtype)[2, 3],
        "empty": values.astype(dtype)[:0],
    }
    numpy.savez(
        tmp_path / "x.npz", **{key: array.astype(array.dtype.newbyteorder(order)) for key, array in arrays.items()}
    )
    expected = {key: torch.from_numpy(numpy.array(value, order="C")) for key, value in arrays.items()}
    expect_equal(open_container(tmp_path / "x.npz"), expected)


def test_arrays_of_both_formats_of_numpy_are_read_and_another_is_told(tmp_path: Path) -> None:
    for version in ((1, 0), (2, 0), (3, 0)):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("a.npy", "w") as file:
            numpy.lib.format.write_array(file, numpy.arange(3, dtype="f4"), version)
        if version == (3, 0):  # which numpy writes for names of fields alone
            with pytest.raises(CheckpointError, match=r"cannot be read as npz: an array of format \(3, 0\)"):
                open_container(tmp_path / "x.npz")
        else:
            expect_equal(open_container(tmp_path / "x.npz"), {"a": torch.tensor([0.0, 1.0, 2.0])})


def test_writing_to_a_tensor_leaves_its_file_as_it_is(tmp_path: Path) -> None:
    for path, save in ((tmp_path / "x.safetensors", save_file), (tmp_path / "x.pt", torch.save)):
        save({"a": torch.ones(3)}, path)
        before = path.read_bytes()
        open_container(path).read("a").zero_()
        assert path.read_bytes() == before


@pytest.mark.skipif(not hasattr(mmap.mmap, "madvise"), reason="no pages can be given back here")
def test_what_was_written_to_a_tensor_is_lost_with_its_pages_and_no_other(tmp_path: Path) -> None:
    numbers = torch.arange(3 << 16, dtype=torch.float32)
    values = dict(zip("abc", numbers.split(1 << 16), strict=True))
    save_file(values, tmp_path / "x.safetensors")
    source = open_container(tmp_path / "x.safetensors")
    written = {key: source.read(key).neg_() for key in values}
    source.release("b")
    assert torch.equal(source.read("b")[1024:-1024], values["b"][1024:-1024])  # it shares pages with its neighbours
    for key in ("a", "c"):
        assert torch.equal(written[key][1024:-1024], -values[key][1024:-1024])


def test_listing_needs_no_torch(tmp_path: Path) -> None:
    torch.save({"state_dict": tensors()}, tmp_path / "x.pt")
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    program = "import sys; from zoo.checkpoints.containers import open_container as o; print([len(o(p).entries) for p in sys.argv[1:]], 'torch' in sys.modules)"
    command = [sys.executable, "-c", program, tmp_path / "x.pt", tmp_path / "x.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[10, 1] False\n", done.stderr


# Wrappers


def test_a_training_checkpoint_gives_its_weights_and_says_what_was_assumed(tmp_path: Path) -> None:
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1),
        "loss": numpy.float64(2),
        "state_dict": {f"module._orig_mod.{key}": value for key, value in tensors().items()},
        "state_dict_ema": {key: value + 1 for key, value in tensors().items() if value.is_floating_point()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
    }
    torch.save(checkpoint, tmp_path / "x.pt")
    source = open_container(tmp_path / "x.pt")
    expect_equal(source, tensors())
    assert source.notes == (
        "read from 'state_dict'; state_dict_ema left aside",
        "prefix 'module.' taken off every name",
        "prefix '_orig_mod.' taken off every name",
    )
    expect_equal(open_container(tmp_path / "x.pt", weights="ema"), checkpoint["state_dict_ema"])
    expect_equal(open_container(tmp_path / "x.pt", weights="state_dict_ema"), checkpoint["state_dict_ema"])


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "module", "anything"])
def test_one_state_dict_is_found_below_any_name(name: str, tmp_path: Path) -> None:
    torch.save({"epoch": 1, name: {"a": torch.ones(2)}}, tmp_path / "x.pt")
    assert list(open_container(tmp_path / "x.pt").entries) == ["a"]


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "module"])
def test_valuesof_the_training_beside_weights_are_not_the_weights(name: str, tmp_path: Path) -> None:
    beside = {"rng_state": torch.get_rng_state(), "best_loss": torch.tensor(0.5), "epoch": 1}
    torch.save({**beside, name: tensors(), "model_ema": {"a": torch.zeros(1)}}, tmp_path / "x.pt")
    expect_equal(open_container(tmp_path / "x.pt"), tensors())
    torch.save({"checkpoint": {**beside, name: tensors()}, "seed": torch.tensor(1)}, tmp_path / "x.pt")
    expect_equal(open_container(tmp_path / "x.pt", weights=f"checkpoint.{name}"), tensors())


@pytest.mark.parametrize(
    ("checkpoint", "weights", "message"),
    [
        ({"model_ema": {"a": torch.ones(1)}}, None, "holds an average of weights only, 'model_ema'; take it with"),
        (
            {"model": {"a": torch.ones(1)}},
            "ema",
            "holds no such weights .*weights='ema'.*; choose with weights= one of",
        ),
        ({"model": {"a": torch.ones(1)}, "state_dict": {"a": torch.ones(1)}}, None, "several weights that could be"),
        ({"teacher": {"a": torch.ones(1)}, "student": {"a": torch.ones(1)}}, None, "one of 'teacher', 'student'"),
        ({"epoch": 3}, None, r"holds no tensors by name; it holds epoch \(a int\)"),
        ({}, None, "holds no tensors by name; it holds nothing"),
        ([torch.ones(1)], None, "holds a list, expected a mapping of names to tensors"),
        (torch.ones(3), None, "holds one tensor, expected"),
    ],
)
def test_a_checkpoint_that_leaves_a_doubt_is_refused(
    checkpoint: Any, weights: str | None, message: str, tmp_path: Path
) -> None:
    torch.save(checkpoint, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        open_container(tmp_path / "x.pt", weights=weights)


def test_prefixes_are_taken_off_where_every_name_has_them_and_parts_everywhere(tmp_path: Path) -> None:
    cases = {
        ("module.a", "module.b"): {"a", "b"},
        ("module.a", "b"): {"module.a", "b"},
        ("visual._orig_mod.a", "b"): {"visual.a", "b"},
        ("_fsdp_wrapped_module.a", "x._checkpoint_wrapped_module.b"): {"a", "x.b"},
        ("x._orig_mod.a", "x.a"): {"x._orig_mod.a", "x.a"},
    }
    for names, expected in cases.items():
        save_file({name: torch.ones(1) for name in names}, tmp_path / "x.safetensors")
        assert set(open_container(tmp_path / "x.safetensors").entries) == expected


# Several files


def write_shards(folder: Path, index: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"a": torch.ones(2)}, folder / "model-1.safetensors")
    save_file({"b": torch.zeros(3)}, folder / "model-2.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(
        json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}} if index is None else index)
    )
    return path


def test_shards_are_one_source_by_their_index_or_their_folder(tmp_path: Path) -> None:
    index = write_shards(tmp_path / "m")
    for path in (index, tmp_path / "m"):
        source = open_container(path)
        expect_equal(source, {"a": torch.ones(2), "b": torch.zeros(3)})
        assert source.container == "2 files of safetensors"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            {"weight_map": {"a": "../m/model-1.safetensors"}},
            "names the file '../m/model-1.safetensors'; allowed: names",
        ),
        ({"weight_map": {"a": "/etc/passwd"}}, "allowed: names of files beside it"),
        ({"weight_map": {"a": ".."}}, "allowed: names of files beside it"),
        ({"weight_map": {"a": 3}}, "allowed: names of files beside it"),
        ({"weight_map": {"a": "gone.safetensors"}}, "gone.safetensors is no file"),
        ({"weight_map": {"a": "model.safetensors.index.json"}}, "is JSON, not weights"),
        ({"weight_map": {"c": "model-1.safetensors"}}, "its files do not hold c"),
        ({"weight_map": {"b": "model-2.safetensors", "a": "model-2.safetensors"}}, "its files do not hold a"),
        ({"weight_map": {}}, "has no 'weight_map'"),
        ([], "line 1: expected a mapping of keys at the top level"),
        ({"weight_map": [["a", "b"]]}, "has no 'weight_map'"),
    ],
)
def test_an_index_that_reaches_outside_or_does_not_fit_is_refused(index: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_container(write_shards(tmp_path / "m", index))


# What is no file of weights


def header(entries: Any, data: bytes = b"") -> bytes:
    text = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of git-lfs.*git lfs pull"),
        (b'{"model_cfg": {}}', "is JSON, not weights"),
        (b"\x93NUMPY\x01\x00", "is a single array of numpy"),
        (b"\x1f\x8b\x08\x00", "is a tar or gzip archive"),
        (b"\x80\x04K\x01.", "is a pickle, and not one of torch; zoo runs no pickles"),
        (b"\x80\x04", "is no valid pickle"),
        (b"PK\x03\x04 and nothing else", "is a damaged zip archive.*truncated"),
        (b"some text", "is no file of weights: expected safetensors"),
        (struct.pack("<Q", 1 << 40) + b"{}", "header of 1099511627776 bytes is longer than the file of 10: truncated"),
        (header("{"), "its header is no JSON"),
        (header("{" * 100_000), "its header is no JSON"),
        (header('{"a": 1, "a": 1}'), "a key stands there twice"),
        (header({"a": 3}), "'a' lacks dtype, shape or offsets"),
        (header({"a": entry([2], 0, 8)}, bytes(4)), r"has \d+ bytes, expected \d+: truncated"),
        (header({"a": entry([1], 0, 4)}, bytes(8)), "something was added"),
        (header({"a": entry([2], 0, 4)}, bytes(4)), r"'a' takes 4 bytes, which do not fit F32 \[2\]"),
        (
            header({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, bytes(6)),
            "'b' begins at byte 2 of the data, expected 4",
        ),
        (header({"a": entry([1], 4, 8)}, bytes(8)), "'a' begins at byte 4 of the data, expected 0"),
        (header({"a": entry([-1], 0, 4)}, bytes(4)), "no natural number"),
        (header({"a": entry([True], 0, 4)}, bytes(4)), "no natural number"),
        (header({"a": entry([1], 0, 4, "F4")}, bytes(4)), "dtype that no model has: 'F4'"),
        (header({"__metadata__": 3}), "its metadata is no mapping"),
        (
            header({str(number): entry([0], 0, 0) for number in range(100_001)}),
            "lists 100001 tensors, more than any model",
        ),
        (header(f'{{"a": "{"x" * 24_999_991}"}}'), "'a' lacks dtype, shape or offsets"),
        (
            header(f'{{"a": "{"x" * 24_999_992}"}}'),
            "its header of 25000001 bytes is longer than any model's; allowed: 25000000",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_holds_no_weights_is_told_what_it_is(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_container(path)
    assert str(caught.value).startswith(str(path))


def test_a_tensor_that_is_named_twice_is_refused_where_the_library_takes_it(tmp_path: Path) -> None:
    """One reason why headers are not read by the library, whose readers need not agree on which of the two counts."""
    path = tmp_path / "x.safetensors"
    first, second = (f'"a": {json.dumps(entry([1], 0, 4, dtype))}' for dtype in ("F32", "I32"))
    path.write_bytes(header(f"{{{first}, {second}}}", bytes(4)))
    with safe_open(path, framework="np") as library:
        assert list(library.keys()) == ["a"]
    with pytest.raises(CheckpointError, match="a key stands there twice"):
        open_container(path)


def test_what_is_no_regular_file_is_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, message in (
        (tmp_path / "fifo", "is no regular file"),
        (Path("/dev/zero"), "is no regular file"),
        (tmp_path / "gone", "is no file; expected a file of weights"),
        (tmp_path / "fifo" / "below", "cannot be read"),
        (tmp_path, "is a folder, expected one file of weights in it, found none"),
    ):
        with pytest.raises(CheckpointError, match=message):
            open_container(path)
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"found several: a.pt, b.pt; name the file"):
        open_container(tmp_path)


class Malice:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def rewritten(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> None:
    """Write an archive anew, each of its files as `change` makes it."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            changed = change(name, content)
            if changed is not None:
                archive.writestr(name, changed)


@pytest.mark.parametrize(
    ("change", "compression", "message"),
    [
        (lambda name, data: None if name.endswith("/data/0") else data, 0, "the storage of 'a' is not there"),
        (
            lambda name, data: data[:-4] if name.endswith("/data/0") else data,
            0,
            r"'a' \[3\] reaches beyond its storage",
        ),
        (lambda name, data: b"big" if name.endswith("byteorder") else data, 0, "big-endian"),
        (lambda name, data: data, zipfile.ZIP_DEFLATED, "is compressed, which torch never does"),
        (lambda name, data: data[:20] if name.endswith("data.pkl") else data, 0, "cannot be read as weights of torch"),
        (lambda name, data: None if name.endswith("data.pkl") else data, 0, "holds no data.pkl"),
        (lambda name, data: bytes(26_000_000) if name.endswith("data.pkl") else data, 0, "more than any model's"),
    ],
)
def test_an_archive_of_torch_that_is_damaged_is_told(
    change: Any, compression: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(3)}, path)
    rewritten(path, change, compression)
    with pytest.raises(CheckpointError, match=message):
        open_container(path)


def test_a_zip_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    numpy.savez_compressed(tmp_path / "x.npz", a=numpy.zeros(1 << 22, "u1"))
    with pytest.raises(CheckpointError, match="more than 4 times as many: a zip bomb"):
        open_container(tmp_path / "x.npz")


def test_arrays_may_be_four_times_as_large_as_their_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    numpy.savez_compressed(path, a=numpy.zeros(10_000, "u1"))
    with zipfile.ZipFile(path) as archive:
        (member,) = archive.infolist()
    for missing in (0, 1):
        with zipfile.ZipFile(path, "a") as archive:  # a comment makes it as large as wanted
            archive.comment = b""
        room = member.file_size // 4 - path.stat().st_size - missing
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b" " * room
        assert member.file_size == 4 * (path.stat().st_size + missing)
        if missing:
            with pytest.raises(CheckpointError, match="more than 4 times as many: a zip bomb"):
                open_container(path)
        else:
            assert open_container(path).entries["a"].shape == (10_000,)


@pytest.mark.parametrize(
    ("dtype", "what"), [("V4", "values of type void32"), ("U2", "values of type str64"), ("O", "obj")]
)
def test_arrays_of_values_that_no_tensor_has_are_refused(dtype: str, what: str, tmp_path: Path) -> None:
    numpy.savez(tmp_path / "x.npz", a=numpy.zeros(3, dtype))
    with pytest.raises(CheckpointError, match=f"a.npy holds {what}"):
        open_container(tmp_path / "x.npz")


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "x.npz", a=numpy.array([Malice()], dtype=object))
    with pytest.raises(CheckpointError, match="holds objects, which only a pickle can hold"):
        open_container(tmp_path / "x.npz")


def test_an_array_that_became_objects_since_it_was_listed_runs_no_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    numpy.savez("x.npz", a=numpy.zeros(3))
    source = open_container("x.npz")
    numpy.savez("x.npz", a=numpy.array([Malice()], dtype=object))
    with pytest.raises(CheckpointError, match="x.npz cannot be read as npz: 'a': Object arrays cannot be loaded"):
        source.read("a")
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'sh(ape': (3,), }",
        "{'descr': '<f4', 3: (3,)}",
        "{'descr': [[]], 'fortran_order': False}",
        "[[",
    ],
)
def test_an_array_whose_header_is_no_literal_of_numpy_is_told(text: str, tmp_path: Path) -> None:
    expect_damaged_array(text, tmp_path / "x.npz", "cannot be read as npz")


@pytest.mark.parametrize("shape", [(-3,), (-1, -3), (-3, 2)])
def test_an_array_of_a_negative_size_is_told(shape: tuple[int, ...], tmp_path: Path) -> None:
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape})
    expect_damaged_array(text, tmp_path / "x.npz", rf"an array has the shape \({shape[0]},")


def expect_damaged_array(header: str, path: Path, message: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        packed = header.encode("latin1")
        content = b"\x93NUMPY\x01\x00" + len(packed).to_bytes(2, "little") + packed + bytes(12)
        archive.writestr("a.npy", content)
    with pytest.raises(CheckpointError, match=message):
        open_container(path)


# What names and shapes do not tell


def test_a_flipped_bit_in_a_file_of_torch_is_told_from_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    weights = torch.arange(1000, dtype=torch.float32)
    torch.save({"a": weights}, path)
    content = bytearray(path.read_bytes())
    content[content.index(weights.numpy().tobytes()) + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="the bytes of storage 0 do not have their checksum"):
        open_container(path).check(["a"])


def test_a_tensor_that_repeats_a_few_bytes_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1).expand(10), "b": torch.zeros(4)}, path)
    assert open_container(path).read("a").shape == (10,)
    torch.save({"a": torch.zeros(1).expand(2**40)}, path)
    with pytest.raises(CheckpointError, match=r"'a' \[1099511627776\] repeats 4 bytes until they are 4398046511104"):
        open_container(path)
