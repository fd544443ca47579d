"""Dry runs: what they tell, and that they leave nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from support.training import tiny_recipe, weights_digest, write_pairs, write_recipe
from zoo.cli.app import main

pytest.importorskip("matplotlib")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "tiny.yaml", tiny_recipe(write_pairs(tmp_path / "pairs")))


def test_a_dry_run_shows_what_the_first_steps_tell_and_leaves_nothing(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in recipe.parent.iterdir())
    assert main(["train", str(recipe), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for name in ("learning rate", "memory", "rate", "whole run", "loss", "gradients", "duplicates", "cut captions"):
        assert name in shown, name
    assert "6 steps, 24 samples" in shown
    assert "where chance gives 1.386" in shown  # the logarithm of a batch of 4
    assert sorted(path.name for path in recipe.parent.iterdir()) == before


def test_a_dry_run_changes_no_weight_of_the_run_after_it(recipe: Path) -> None:
    zoo.train(recipe, out="first")
    main(["train", str(recipe), "--dry-run"])
    zoo.train(recipe, out="second")
    assert weights_digest(Path("first")) == weights_digest(Path("second"))
    assert Path("first/curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ("optimizer.lr=-1", 2, "optimizer.lr"),
        ("batch.size=100", 3, "100"),
        ("data.train.path=nowhere", 3, "nowhere"),
    ],
)
def test_a_dry_run_fails_as_the_run_would(
    recipe: Path, capsys: pytest.CaptureFixture[str], change: str, status: int, message: str
) -> None:
    assert main(["train", str(recipe), change, "--dry-run"]) == status
    assert message in capsys.readouterr().err
