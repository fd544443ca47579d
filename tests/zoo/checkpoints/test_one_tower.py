"""Files that hold one tower: built, loaded, told by `identify`, and where they do not fit, by advice that works."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import zoo
from support.models.families import FAMILIES, Family, pictures, words
from zoo.catalog.state_dict_shapes import shapes_of
from zoo.cli.app import main
from zoo_core.errors import MismatchError

Entries = dict[str, Tensor]
LOGIT = ("logit_scale", "logit_bias")


def of_text(key: str) -> bool:
    return not key.startswith(("visual.", *LOGIT))


IMAGE_FILES: dict[str, Callable[[Any], Entries]] = {
    "visual.*": lambda model: {key: one for key, one in model.state_dict().items() if key.startswith("visual.")},
    "visual.* and logit_*": lambda model: {key: one for key, one in model.state_dict().items() if not of_text(key)},
    "the tower's own": lambda model: model.visual.state_dict(),
    "below a name": lambda model: {f"clip.visual.{key}": one for key, one in model.visual.state_dict().items()},
}
TEXT_FILES: dict[str, Callable[[Any], Entries]] = {
    "text": lambda model: {key: one for key, one in model.state_dict().items() if of_text(key)},
    "text and logit_*": lambda model: {k: v for k, v in model.state_dict().items() if not k.startswith("visual.")},
    "text.*": lambda model: {f"text.{key}": one for key, one in model.text.state_dict().items()},
    "the tower's own": lambda model: model.text.state_dict(),
}
CASES = [
    *(("image", name, change) for name, change in IMAGE_FILES.items()),
    *(("text", name, change) for name, change in TEXT_FILES.items()),
]


def written(path: Path, entries: Entries) -> Path:
    save_file({key: value.detach().clone().contiguous() for key, value in entries.items()}, path)
    return path


def features(model: Any, tower: str) -> Tensor:
    with torch.inference_mode():
        return model.encode_image(pictures(model)) if tower == "image" else model.encode_text(words(model))


@pytest.mark.parametrize("family", ["ViT CLIP", "ResNet CLIP", "CustomTextCLIP", "modern text"])
@pytest.mark.parametrize(("tower", "name", "change"), CASES, ids=[f"{side} {name}" for side, name, _ in CASES])
def test_a_file_of_one_tower_gives_that_tower(
    tower: str, name: str, change: Callable[[Any], Entries], family: str, tmp_path: Path
) -> None:
    whole = FAMILIES[family].build()
    path = written(tmp_path / "x.safetensors", change(whole))
    model = zoo.build(FAMILIES[family].architecture, pretrained=path, towers=(tower,))
    other = zoo.load_weights(zoo.build(FAMILIES[family].architecture, towers=(tower,)), path)
    for found in (model, other):
        assert torch.equal(features(found, tower), features(whole, tower))
        assert found.logit_scale.isfinite().all()
    told = "logit_scale is that of the model: the weights of one tower have none"
    assert (told in model.notes) is (not name.endswith("logit_*"))


def test_a_tower_that_was_pickled_whole_is_one_too(tmp_path: Path) -> None:
    family = FAMILIES["CoCa"]
    whole = family.build()
    torch.save(whole.visual, tmp_path / "x.pt")
    model = zoo.build(family.architecture, pretrained=tmp_path / "x.pt", towers=("image",))
    assert torch.equal(features(model, "image"), features(whole, "image"))


def test_a_model_keeps_the_logit_scale_that_it_has(tmp_path: Path) -> None:
    family: Family = FAMILIES["CustomTextCLIP"]
    path = written(tmp_path / "x.safetensors", family.build().visual.state_dict())
    built = zoo.build(family.architecture | {"init_logit_scale": 2.0}, pretrained=path, towers=("image",))
    assert (built.logit_scale.item(), built.logit_bias.item()) == (2.0, -2.5)
    with torch.no_grad():
        built.logit_scale.fill_(3.0)
    assert zoo.load_weights(built, path).logit_scale.item() == 3.0


@pytest.mark.parametrize(
    ("tower", "change"),
    [pytest.param(side, change, id=f"{side} {name}") for side, name, change in CASES if name != "below a name"],
)
@pytest.mark.parametrize("towers", [None, "the other"])
def test_a_model_that_needs_more_says_which_tower_to_build_and_that_works(
    towers: str | None, tower: str, change: Callable[[Any], Entries], tmp_path: Path
) -> None:
    family = FAMILIES["ViT CLIP"]
    path = written(tmp_path / "x.safetensors", change(family.build()))
    wrong = None if towers is None else ("text" if tower == "image" else "image",)
    with pytest.raises(MismatchError) as caught:
        zoo.build(family.architecture, pretrained=path, towers=wrong)
    with pytest.raises(MismatchError, match=r"towers=\('"):
        zoo.load_weights(zoo.build(family.architecture, towers=wrong), path)
    advice = re.search(r"build the other one with towers=(\(.*\))$", str(caught.value))
    assert advice, caught.value
    zoo.build(family.architecture, pretrained=path, towers=ast.literal_eval(advice[1]))


def test_both_towers_still_need_a_logit_scale(tmp_path: Path) -> None:
    entries = FAMILIES["ViT CLIP"].build().state_dict()
    del entries["logit_scale"]
    with pytest.raises(MismatchError, match=r"1 missing in the model: logit_scale$"):
        zoo.build(FAMILIES["ViT CLIP"].architecture, pretrained=written(tmp_path / "x.safetensors", entries))


def test_one_entry_too_few_of_the_same_architecture_offers_no_other(tmp_path: Path) -> None:
    entries = {key: torch.zeros(()).expand(shape) for key, shape in shapes_of("digits-tiny").items()}
    del entries["visual.proj"]
    with pytest.raises(MismatchError, match=r"1 missing in the image tower: visual.proj$"):
        zoo.build("digits-tiny", pretrained=written(tmp_path / "x.safetensors", entries), towers=("image",))


@pytest.mark.parametrize(
    ("change", "tower", "fits"),
    [
        (lambda key: key if key.startswith("visual.") else None, "image", "vit-b32-quickgelu"),
        (lambda key: key if not of_text(key) else None, "image", "vit-b32-quickgelu"),
        (lambda key: key[7:] if key.startswith("visual.") else None, "image", "vit-b32-quickgelu"),
        (lambda key: key if of_text(key) else None, "text", "rn101"),
        (lambda key: f"text.{key}" if of_text(key) else None, "text", "rn101"),
    ],
    ids=["visual.*", "with a logit scale", "the tower's own", "text", "text.*"],
)
def test_identify_tells_one_tower(
    change: Callable[[str], str | None], tower: str, fits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    byte = torch.zeros((), dtype=torch.int8)
    entries = {new: byte.expand(shape) for key, shape in shapes_of("vit-b32").items() if (new := change(key))}
    path = written(tmp_path / "x.safetensors", entries)
    best = zoo.identify(path, limit=1)[0]
    assert (best.fit, best.towers, best.missing, best.unexpected) == (1.0, (tower,), (), ())
    assert {"vit-b32", fits} <= set(best.names)
    section = {"image": ("vision.", "preprocess."), "text": ("text.", "tokenizer.")}[tower]
    assert all(key.startswith(section) for key in best.untold)
    assert main(["identify", str(path), "--limit", "1"]) == 0
    assert f"({tower} tower alone)" in " ".join(capsys.readouterr().out.split())
