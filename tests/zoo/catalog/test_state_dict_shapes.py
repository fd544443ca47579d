"""The table of every architecture's names and shapes: it is that of our models, and of open_clip's."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import zoo
from support.checkpoints.published_encoders import HubConfigs
from support.checkpoints.state_dict_deviations import DEVIATIONS
from zoo.catalog import state_dict_shapes
from zoo.catalog.architectures import architectures
from zoo.catalog.state_dict_shapes import Shape, encode, names, shapes_of
from zoo.materialize.skeleton import skeleton
from zoo_core.errors import UnknownNameError

FEW = {
    "vit-b32",
    "rn50",
    "convnext-base",
    "vit-b16-siglip2",
    "mobileclip-s1",
    "roberta-vit-b32",
    "coca-vit-b32",
    "moderntext-vit-b32-256",
    "moderntext-naflex-vit-b32",
    "vit-b16-siglip2-naflex",
}
"""One architecture of each kind, for the default run."""


def some(all_of_them: list[str], few: set[str]) -> list[Any]:
    return [pytest.param(one, marks=() if one in few else pytest.mark.slow) for one in all_of_them]


def test_the_table_names_every_architecture() -> None:
    own = {one.name for one in architectures().entries if one.plugin.belongs_to("clip-zoo")}
    assert set(names()) == own
    assert set(names()) >= FEW


@pytest.mark.parametrize("name", some(names(), FEW))
def test_the_table_is_that_of_our_models(name: str) -> None:
    found = {key: tuple(value.shape) for key, value in skeleton(zoo.config(name)).state_dict().items()}
    assert shapes_of(name) == found, "run: python docs/generate_catalog.py"


def peer_on_meta(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    import open_clip.hf_model

    monkeypatch.setattr(open_clip.hf_model, "AutoConfig", HubConfigs)
    with torch.device("meta"):
        return open_clip.create_model(name, load_weights=False, pretrained_text=False, device="meta")


@pytest.mark.parametrize(
    "name", some(open_clip.list_models(), {"ViT-B-32", "RN50", "ViT-B-16-SigLIP", "mt5-base-ViT-B-32", "coca_base"})
)
def test_the_table_is_that_of_the_peers_models(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {key: tuple(value.shape) for key, value in peer_on_meta(name, monkeypatch).state_dict().items()}
    for key, (ours, _) in DEVIATIONS.get(name, {}).items():
        assert theirs[key] != ours
        theirs[key] = ours
    assert shapes_of(architectures().find(name).name) == theirs


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no shapes are recorded for 'vit-b33', did you mean 'vit-b32'"):
        shapes_of("vit-b33")


KEYS = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "3", "10"]), min_size=1, max_size=4).map(".".join)
SHAPES = st.lists(st.integers(0, 3), max_size=2).map(tuple)


@given(st.dictionaries(st.sampled_from(["x", "y", "z"]), st.dictionaries(KEYS, SHAPES, min_size=1), min_size=1))
def test_a_table_comes_back_from_its_file(table: dict[str, dict[str, Shape]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder) / "table.json.gz"
        file.write_bytes(encode(table))
        patch.setattr(state_dict_shapes, "TABLE", file)
        patch.setattr(state_dict_shapes, "_table", state_dict_shapes._table.__wrapped__)
        assert {name: shapes_of(name) for name in names()} == table


def test_entries_of_one_shape_stand_together_and_equal_architectures_once() -> None:
    entries: dict[str, Shape] = {"b.w": (2, 3), "a.w": (2, 3), "scale": ()}
    data = json.loads(gzip.decompress(encode({"y": entries, "x": entries})))
    assert data == {"x": {"2 3": "a.w b.w", "": "scale"}, "y": "x"}


def test_the_same_table_gives_the_same_file() -> None:
    table: dict[str, dict[str, Shape]] = {"x": {"b": (1,), "a": ()}}
    assert encode(table) == encode({"x": dict(reversed(table["x"].items()))})


def test_the_table_is_read_without_torch() -> None:
    program = "import sys; from zoo.catalog.state_dict_shapes import names, shapes_of; shapes_of('vit-b32'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
