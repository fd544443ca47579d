"""Pickles that would run code are refused by name, wherever they do; those that only make data are read. Nothing runs."""

from __future__ import annotations

import argparse
import array
import builtins
import copyreg
import datetime
import decimal
import enum
import functools
import importlib
import io
import logging
import operator
import os
import pathlib
import pickle
import re
import subprocess
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import zoo
from support.models.families import FAMILIES, Family
from zoo.checkpoints.containers import open_container
from zoo.checkpoints.containers.pickled_calls import HARMLESS, makes_data
from zoo.checkpoints.containers.pickles import PickleError, read_pickle
from zoo_core.errors import CheckpointError

WEIGHTS = {"a": torch.arange(3.0)}


class Reduced:
    """What unpickling makes of it is what these arguments say."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def build_model() -> dict[str, Tensor]:
    return WEIGHTS


MALICE = Reduced(os.system, ("touch pwned",))

PLACES: dict[str, Callable[[Any], Any]] = {
    "whole": lambda bad: bad,
    "among the weights": lambda bad: {**WEIGHTS, "x": bad},
    "beside the weights": lambda bad: {"args": bad, "state_dict": WEIGHTS},
    "in place of the weights": lambda bad: {"model": bad},
    "in the optimizer": lambda bad: {"state_dict": WEIGHTS, "optimizer": {"state": {0: [({"step": bad},)]}}},
    "as a key": lambda bad: {"state_dict": WEIGHTS, "args": {bad: 1}},
    "in a set": lambda bad: {"state_dict": WEIGHTS, "args": {bad}},
    "as a state": lambda bad: {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=bad)},
    "in a module": lambda bad: setattr(module := nn.Linear(2, 2), "note", bad) or module,
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("place", PLACES)
def test_a_file_that_would_run_code_is_refused_by_the_name_of_the_call(
    place: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(PLACES[place](MALICE), "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"would call (posix|nt)\.system when it is unpickled.*zoo ran nothing"):
        open_container(Path("x.pt"))
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (Reduced(eval, ("1",)), "builtins.eval"),
        (Reduced(subprocess.Popen, ("true",)), "subprocess.Popen"),
        (Reduced(subprocess.check_output, ("true",)), "subprocess.check_output"),
        (Reduced(torch.load, ("other.pt",)), "torch.serialization.load"),
        (Reduced(torch.hub.load, ("someone/repo", "model")), "torch.hub.load"),
        (Reduced(torch.storage._load_from_bytes, (b"x",)), "torch.storage._load_from_bytes"),
        (Reduced(pickle.loads, (b"x",)), "pickle.loads"),
        (Reduced(build_model, ()), "test_pickled_calls.build_model"),
        (Reduced(type, ("New", (), {})), "builtins.type"),
        (
            Reduced(copyreg._reconstructor, (subprocess.Popen, subprocess.Popen, "true")),
            "copyreg._reconstructor of subprocess.Popen",
        ),
        (
            Reduced(torch._tensor._rebuild_from_type_v2, (os.system, Tensor, ("true",), {})),
            "_rebuild_from_type_v2 of posix.system",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_call_that_does_more_than_make_data_is_named(bad: Any, named: str, tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "x": bad}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=re.escape(named)):
        open_container(tmp_path / "x.pt")


LIBRARY = ["os", "posix", "subprocess", "shutil", "sys", "importlib", "runpy", "ctypes", "socket", "pty", "webbrowser",
           "code", "timeit", "pickle", "marshal", "pdb", "asyncio", "multiprocessing", "operator", "functools", "builtins"]  # fmt: skip


@pytest.mark.parametrize("module", LIBRARY)
def test_of_the_standard_library_what_is_known_alone_may_be_called(module: str) -> None:
    names = [name for name, one in vars(importlib.import_module(module)).items() if callable(one)]
    allowed = {f"{module}.{name}" for name in names if makes_data(module, name, ("an argument",))}
    exceptions = {f"builtins.{name}" for name, one in vars(builtins).items() if is_exception(one)}
    assert allowed <= HARMLESS | exceptions


def is_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def by_hand(tail: bytes) -> bytes:
    return pickle.PROTO + b"\x02" + tail + b"."


GETATTR = b"c__builtin__\ngetattr\ncposix\nsystem\nX\x08\x00\x00\x00__call__\x86R"
PARTIAL = b"cfunctools\npartial\ncposix\nsystem\n\x85R"


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (GETATTR + b"X\x04\x00\x00\x00true\x85R", r"would call posix\.system\.__call__ when"),
        (PARTIAL + b"X\x04\x00\x00\x00true\x85R", r"would call functools\.partial of posix\.system when"),
        (b"(X\x04\x00\x00\x00trueiposix\nsystem\n", r"would call posix\.system when"),
        (b"(cposix\nsystem\nX\x04\x00\x00\x00trueo", r"would call posix\.system when"),
        (b"cos\npath\n}X\x04\x00\x00\x00joinK\x01sb", r"would change os\.path when it is unpickled"),
    ],
)
def test_calls_that_pickle_itself_never_writes_are_refused_too(pickled: bytes, message: str, tmp_path: Path) -> None:
    import zipfile

    torch.save(WEIGHTS, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "bad.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, by_hand(pickled) if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(CheckpointError, match=message):
        open_container(tmp_path / "bad.pt")


def test_who_trusts_a_refused_file_converts_it_as_the_error_says(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "model": Reduced(build_model, ())}, tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError, match="unpickle it yourself and save the state_dict.. of its model with safetensors"
    ):
        open_container(tmp_path / "x.pt")
    loaded = torch.load(tmp_path / "x.pt", weights_only=False)
    save_file(loaded["state_dict"], tmp_path / "x.safetensors")
    assert load_file(tmp_path / "x.safetensors").keys() == open_container(tmp_path / "x.safetensors").entries.keys()


# What training code saves beside weights


class Precision(enum.Enum):
    """An enumeration of training code."""

    AMP = "amp"


class Settings(dict[str, Any]):
    """A dict with attributes, as Lightning's `AttributeDict`."""


def announce() -> None:
    """Stand in a config as a function that is mentioned and not called."""


BESIDE: dict[str, Any] = {
    "epoch": 3,
    "name": "run",
    "args": argparse.Namespace(lr=0.1, precision=Precision.AMP, train_data=pathlib.Path("/data")),
    "plain path": pathlib.PurePosixPath("a"),
    "hyper_parameters": Settings(lr=0.1, model=OmegaConf.create({"width": [1, 2], "name": "${width}"})),
    "numpy": [numpy.float64(2), numpy.int64(3), numpy.arange(3), numpy.dtype("f4"), numpy.array(["a"])],
    "random": numpy.random.default_rng(0),
    "time": [
        datetime.datetime.now(),
        datetime.date.today(),
        datetime.timedelta(1),
        datetime.datetime.now(datetime.UTC),
    ],
    "collections": [OrderedDict(a=1), defaultdict(list, a=[1]), Counter("aab"), deque([1], 3), frozenset("a"), {1}],
    "numbers": [decimal.Decimal("1.5"), complex(1, 2), range(3), slice(1), bytearray(b"a"), array.array("d", [1])],
    "bytes": b"\x00\xff",
    "error": ValueError("the loss is not finite"),
    "types": [int, nn.Linear, announce, type(None), dict[str, int]],
    "functions": [functools.partial(nn.LayerNorm, eps=1e-6), operator.itemgetter(1), [].append],
    "other": [uuid.uuid4(), re.compile("a+"), types.SimpleNamespace(a=1), logging.getLogger("x")],
    "torch": [torch.device("cpu"), torch.float16, torch.Size([1]), torch.strided, torch.Generator().get_state()],
    "module": nn.Sequential(nn.Linear(2, 2), nn.GELU()),
    "loss": nn.CrossEntropyLoss(),
    "scaler": torch.amp.GradScaler("cpu").state_dict(),
}


def with_optimizer() -> dict[str, Any]:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return {"optimizer": optimizer.state_dict(), "lr_schedulers": [schedule.state_dict()]}


@pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy support will be removed:DeprecationWarning")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_training_code_saves_beside_weights_is_no_reason_to_refuse_them(
    protocol: int, zipped: bool, tmp_path: Path
) -> None:
    checkpoint = {**BESIDE, **with_optimizer(), "state_dict": WEIGHTS}
    torch.save(checkpoint, tmp_path / "x.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    source = open_container(tmp_path / "x.pt", weights="state_dict")
    assert list(source.entries) == ["a"]
    assert torch.equal(source.read("a"), WEIGHTS["a"])


def test_a_tensor_with_attributes_of_its_own_is_a_weight_like_others(tmp_path: Path) -> None:
    marked = torch.arange(4.0)
    marked.note = "frozen"  # type: ignore[attr-defined]
    torch.save({"a": marked, "b": torch.ones(2)}, tmp_path / "x.pt")
    source = open_container(tmp_path / "x.pt")
    assert list(source.entries) == ["a", "b"]
    assert torch.equal(source.read("a"), torch.arange(4.0))


# Whole models


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_a_whole_model_that_was_pickled_after_use_is_read_back(family: Family, tmp_path: Path) -> None:
    model = family.build()
    picture = Image.new("RGB", (50, 70), (200, 30, 90))
    with torch.inference_mode():
        model.encode_text(["a dog", "two cats"])
        expected = model.encode_image(picture)
    torch.save(model, tmp_path / "x.pt")
    other = zoo.build(family.architecture, pretrained=tmp_path / "x.pt")
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    torch.testing.assert_close(other.encode_image(picture), expected, atol=1e-5, rtol=1e-5)
    assert zoo.load_weights(zoo.build(family.architecture), tmp_path / "x.pt").logit_scale == model.logit_scale


def test_tensors_that_a_module_holds_beside_its_weights_are_none(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(3)
    model.register_buffer("mask", torch.ones(3), persistent=False)
    model.cache, model.engine = torch.ones(2), Settings(mean=torch.ones(3))
    model.helper = [nn.Linear(2, 2)]
    torch.save(model, tmp_path / "x.pt")
    assert open_container(tmp_path / "x.pt").entries.keys() == model.state_dict().keys()


def doubled(depth: int) -> bytes:
    """Instructions that leave a tuple of two tuples of two tuples ... of which each is one object."""
    return b"K\x01q\x00" + b"".join(b"0h%ch%c\x86q%c" % (level, level, level + 1) for level in range(depth))


BOMBS = {
    "a key": b"}" + doubled(60) + b"K\x02s.",
    "keys": b"}(" + doubled(60) + b"K\x02u.",
    "a mapping": b"(" + doubled(60) + b"K\x02d.",
    "a member": b"\x8f(" + doubled(60) + b"\x90.",
    "a frozen member": b"(" + doubled(60) + b"\x91.",
    "an ordered mapping": b"ccollections\nOrderedDict\n](" + doubled(60) + b"K\x02\x86e\x85R.",
    "a deep key": b"}" + b"K\x01" + b"\x85" * 50_000 + b"K\x02s.",
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_key_that_would_be_hashed_for_ever_is_refused(case: str) -> None:
    with pytest.raises(PickleError, match="one of its keys holds more than 100 values"):
        read_pickle(io.BytesIO(b"\x80\x04" + BOMBS[case]))


def test_keys_and_sets_of_plain_values_are_read() -> None:
    data = {("a", (1, 2)): {1, 2}, frozenset({"b"}): [3]}
    assert read_pickle(io.BytesIO(pickle.dumps(data, 4))) == data
