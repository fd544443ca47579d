"""`zoo info --groups`: the layer groups that locking counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import zoo
from support.command_line import Run


@pytest.mark.parametrize(("image", "text"), [(0, 0), (1, 2), (2, 0), (99, 1)])
def test_groups_are_trainable_where_a_built_model_is_once_its_towers_are_locked(
    run: Run, tiny: Path, image: int, text: int
) -> None:
    model = zoo.build(tiny)
    model.lock_image_tower(image)
    model.lock_text_tower(text)
    status, out, err = run("info", tiny, "--lock-image", image, "--lock-text", text, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert list(found) == ["vision", "text"]
    for groups, unlocked in zip(found.values(), (image, text), strict=True):
        assert [one["number"] for one in groups] == list(range(1, len(groups) + 1))
        for one in groups:
            assert one["parameters"] == sum(model.get_parameter(name).numel() for name in one["names"])
            assert one["trainable"] == (one["parameters"] if one["number"] <= unlocked else 0)
            assert all(model.get_parameter(name).requires_grad == (one["trainable"] > 0) for name in one["names"])


def test_groups_hold_every_parameter_of_both_towers_once(run: Run, tiny: Path) -> None:
    found = json.loads(run("info", tiny, "--groups", "--json")[1])
    names = [name for groups in found.values() for one in groups for name in one["names"]]
    assert sorted(names) == sorted(name for name, _ in zoo.build(tiny).named_parameters() if name != "logit_scale")


def test_groups_are_a_table_that_begins_at_the_output(run: Run, tiny: Path) -> None:
    status, out, _ = run("info", tiny, "--lock-image", 1)
    head, *rows = [line.split("  ") for line in out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in (head, *rows)]
    assert status == 0
    assert cells[0] == ["TOWER", "GROUP", "FIRST PARAMETER", "PARAMETERS", "TRAINABLE"]
    assert cells[1] == ["vision", "1", "visual.proj", "512", "yes"]
    assert cells[2][2] == "visual.transformer.resblocks.0.ln_1.weight and 13 more"
    assert cells[2][4] == "no"
    assert cells[4] == ["text", "1", "text.text_projection", "256", "yes"]


def test_a_group_of_which_some_is_frozen_is_trainable_partly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.building.layer_groups import Group

    group = Group(number=1, names=("visual.proj",), parameters=3, trainable=2)
    monkeypatch.setattr("zoo.building.layer_groups.layer_groups", lambda *_, **__: {"vision": (group,)})
    assert run("info", "any", "--groups")[1].splitlines()[1].endswith("3  partly")


def test_groups_take_no_memory_however_large_the_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_for_real(*_: Any) -> None:
        raise AssertionError("the groups are told from the meta device")

    monkeypatch.setattr("torch.Tensor.normal_", lambda tensor, *_, **__: tensor if tensor.is_meta else build_for_real())
    assert run("info", "vit-b32", "--groups")[0] == 0


GROUP_ERRORS = {
    "no such name": (["vit-b17", "--groups"], "error: unknown architecture 'vit-b17', did you mean 'vit-b16'?"),
    "fewer than none": (["vit-b16", "--lock-text", "-1"], "Invalid value for '--lock-text'"),
}


@pytest.mark.parametrize(("arguments", "message"), GROUP_ERRORS.values(), ids=GROUP_ERRORS)
def test_groups_refuse(arguments: list[str], message: str, run: Run) -> None:
    status, out, err = run("info", *arguments)
    assert (status, out) == (2, "")
    assert message in err
