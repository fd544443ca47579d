"""`zoo validate` and `zoo schema`."""

from __future__ import annotations

import json
from pathlib import Path

import zoo
from support.command_line import Run


def test_validate_says_ok(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("extends: vit-b16\n")
    assert run("validate", tmp_path / "good.yaml") == (0, f"{tmp_path / 'good.yaml'}: ok\n", "")


def test_validate_prints_every_problem_of_every_file_with_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("extends: vit-b16\n")
    (tmp_path / "bad.yaml").write_text("extends: vit-b16\nvision:\n  patchsize: 8\n  layers: twelve\n")
    status, out, err = run("validate", tmp_path / "bad.yaml", tmp_path / "good.yaml", tmp_path / "none.yaml")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        f"{tmp_path}/bad.yaml:3:3: vision.patchsize: unknown key, did you mean 'patch_size'?",
        f"{tmp_path}/bad.yaml:4:3: vision.layers: expected a whole number, found 'twelve'",
        f"{tmp_path}/good.yaml: ok",
        f"{tmp_path}/none.yaml: cannot be read: No such file or directory",
    ]


def test_validate_as_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("extends: vit-b16\nembed_dims: 8\n")
    status, out, _ = run("validate", "--json", tmp_path / "bad.yaml")
    (found,) = json.loads(out)
    assert status == 1
    assert (found["file"], found["ok"]) == (str(tmp_path / "bad.yaml"), False)
    (problem,) = found["problems"]
    assert (problem["line"], problem["column"], problem["key"]) == (2, 1, "embed_dims")


def test_validate_applies_overrides(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("extends: vit-b16\n")
    good, bad = "vision.patch_size=32", "vision.patch_size=17"
    assert run("validate", tmp_path / "good.yaml", "--override", good)[0] == 0
    status, out, _ = run("validate", tmp_path / "good.yaml", "--override", "embed_dim=8", "--override", bad)
    assert status == 1
    assert "vision.patch_size: 17 does not divide the image" in out


def test_schema_goes_to_standard_output_or_to_a_file(run: Run, tmp_path: Path) -> None:
    from zoo_core.config.json_schema import architecture_schema

    expected = architecture_schema(zoo.registry())
    status, out, err = run("schema")
    assert (status, json.loads(out), err) == (0, expected, "")
    assert run("schema", "--output", tmp_path / "new" / "zoo.json") == (0, "", "")
    assert json.loads((tmp_path / "new" / "zoo.json").read_text()) == expected
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["zoo.json"]


def test_a_schema_that_cannot_be_written_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = run("schema", "--output", tmp_path / "file" / "zoo.json")
    assert status == 2
    assert "zoo.json cannot be written" in err


def test_verify_takes_a_repository_of_the_hub(run: Run) -> None:
    status, _, err = run("verify", "hf-hub:name")
    assert (status, err) == (
        2,
        "error: 'hf-hub:name': expected hf-hub:organisation/name or hf-hub:organisation/name@revision\n",
    )
