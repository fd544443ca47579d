"""`zoo classify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from command_line import Run, save_tiny


def expected_probabilities(folder: Path, image: Path, captions: list[str]) -> np.ndarray[Any, Any]:
    """The formula in float64, from raw features of one image and of each caption alone."""
    model = zoo.load(folder)
    with torch.no_grad():
        picture = model.encode_image(str(image))[0].double().numpy()
        texts = np.stack([model.encode_text(one)[0].double().numpy() for one in captions])
        scale = float(model.logit_scale.double().exp())
        bias = None if model.logit_bias is None else float(model.logit_bias)
    cosines = texts @ picture / np.linalg.norm(texts, axis=1) / np.linalg.norm(picture)
    if bias is not None:
        return 1 / (1 + np.exp(-(scale * cosines + bias)))
    return np.exp(scale * cosines) / np.exp(scale * cosines).sum()


@pytest.mark.parametrize("bias", [None, -2.0], ids=["softmax", "sigmoid with a logit bias"])
def test_classify_gives_scaled_cosines_as_probabilities(
    bias: float | None, run: Run, pictures: Path, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "model", init_logit_bias=bias)
    image, labels = pictures / "b.png", ["a cat", "dog", "{}"]
    arguments = ["--labels", "a cat, dog,{}", "--template", "it is {}!", "--model", folder, "--json"]
    status, out, err = run("classify", image, *arguments)
    assert (status, err) == (0, "")
    (found,) = json.loads(out)
    expected = expected_probabilities(folder, image, [f"it is {label}!" for label in labels])
    given = found["probabilities"]
    np.testing.assert_allclose([given[label] for label in labels], expected, atol=2e-6)
    assert list(given.values()) == sorted(given.values(), reverse=True)
    assert found["label"] == labels[int(expected.argmax())]
    assert found["image"] == str(image)


def test_classify_takes_a_photo_of_a_for_its_template(run: Run, tiny: Path, pictures: Path) -> None:
    plain = run("classify", pictures / "b.png", "--labels", "cat,dog", "--model", tiny)
    spelled = ["--template", "a photo of a {}"]
    assert run("classify", pictures / "b.png", "--labels", "cat,dog", "--model", tiny, *spelled) == plain
    other = ["--template", "{}"]
    assert run("classify", pictures / "b.png", "--labels", "cat,dog", "--model", tiny, *other) != plain


def test_classify_prints_a_table_with_the_likeliest_first(run: Run, tiny: Path, pictures: Path) -> None:
    status, out, _ = run("classify", pictures / "b.png", "--labels", "cat,dog,eel", "--model", tiny)
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == str(pictures / "b.png")
    shares = [float(line.split()[0].rstrip("%")) for line in lines[2:]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_an_unreadable_image_is_named_after_the_others_were_done(run: Run, tiny: Path, pictures: Path) -> None:
    images = [pictures / "notes.txt", pictures / "b.png", pictures / "none.png", pictures / "sub" / "c.png"]
    status, out, err = run("classify", *images, "--labels", "cat,dog", "--model", tiny)
    assert status == 1
    assert f"{images[1]}\n" in out
    assert f"{images[3]}\n" in out
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["error", str(images[0])],
        ["error", str(images[2])],
    ]
    found = json.loads(run("classify", *images, "--labels", "cat,dog", "--model", tiny, "--json")[1])
    assert {one["image"]: "error" in one for one in found} == {
        str(image): index in (0, 2) for index, image in enumerate(images)
    }


def test_labels_come_from_a_file_where_they_may_hold_commas(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("great white, shark\n\ncat\n")
    arguments = ["--labels", f"@{tmp_path / 'labels.txt'}", "--model", tiny, "--json"]
    (found,) = json.loads(run("classify", pictures / "b.png", *arguments)[1])
    assert set(found["probabilities"]) == {"great white, shark", "cat"}


CLASSIFY_ERRORS = {
    "no file of labels": (["--labels", "@none.txt"], "none.txt cannot be read: No such file or directory"),
    "no label": (["--labels", " , "], "labels: expected names with commas between them"),
    "a label twice": (["--labels", "cat,dog,cat"], "labels: cat is there twice"),
    "one label for a softmax": (["--labels", "cat"], "labels: expected at least two to choose from, found 1"),
    "no place for the label": (
        ["--labels", "a,b", "--template", "a photo"],
        "template: '{}' has to stand where",
    ),
    "a tag for a saved folder": (
        ["--labels", "a,b", "--pretrained", "x"],
        "is a saved model with weights of its own",
    ),
    "a device that is none": (["--labels", "a,b", "--device", "abacus"], "device 'abacus' is none"),
    "a dtype that is none": (["--labels", "a,b", "--dtype", "bf16"], "--dtype 'bf16', did you mean 'bfloat16'?"),
}


@pytest.mark.parametrize(("arguments", "message"), CLASSIFY_ERRORS.values(), ids=CLASSIFY_ERRORS)
def test_classify_refuses(arguments: list[str], message: str, run: Run, tiny: Path, pictures: Path) -> None:
    status, out, err = run("classify", pictures / "b.png", "--model", tiny, *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_random_weights_are_never_asked(run: Run, pictures: Path, tmp_path: Path) -> None:
    status, _, err = run("classify", pictures / "b.png", "--labels", "a,b", "--model", "vit-b16")
    assert status == 2
    assert "'vit-b16' needs pretrained weights" in err
    (tmp_path / "own.yaml").write_text("extends: vit-b16\n")
    status, _, err = run("embed", pictures, "--out", tmp_path / "x.npy", "--model", tmp_path / "own.yaml")
    assert status == 2
    assert "needs pretrained weights" in err


def test_the_default_model_is_the_one_that_ships_with_weights(
    run: Run, tiny: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def open_model(*arguments: object, **_: object) -> Any:
        asked.append(arguments)
        return zoo.load(tiny)

    monkeypatch.setattr("zoo.embedding.open_model", open_model)
    assert run("classify", pictures / "b.png", "--labels", "a,b")[0] == 0
    assert run("classify", pictures / "b.png", "--labels", "a,b", "--pretrained", "other")[0] == 0
    assert run("classify", pictures / "b.png", "--labels", "a,b", "--model", "vit-b16", "--pretrained", "x")[0] == 0
    assert asked == [("digits-tiny", "demo"), ("digits-tiny", "other"), ("vit-b16", "x")]
