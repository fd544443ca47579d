"""`zoo classify`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from support.command_line import Run, save_tiny
from zoo.cli.commands import app
from zoo.cli.options import EXAMPLES


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
    assert lines[1] == str(pictures / "b.png")
    shares = [float(line.split()[0].rstrip("%")) for line in lines[3:]]
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


def test_a_file_of_labels_without_its_sign_is_told_with_it(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("cat\ndog\n")
    arguments = ["classify", pictures / "b.png", "--model", tiny, "--labels"]
    status, out, err = run(*arguments, file)
    assert (status, out) == (2, "")
    assert f"is a file; write @{file} for the labels in it" in err
    assert run(*arguments, f"@{file}")[0] == 0


def test_classify_tells_what_it_passes_over_in_a_folder(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.png").write_bytes((pictures / "b.png").read_bytes())
    (tmp_path / "in" / "a.heic").touch()
    status, out, err = run("classify", tmp_path / "in", "--labels", "a,b", "--model", tiny, "--json")
    assert (status, len(json.loads(out))) == (0, 1)
    assert "warning: passed over files of a format that is not read (1 .heic): " in err


CLASSIFY_ERRORS = {
    "no file of labels": (["--labels", "@none.txt"], "none.txt cannot be read: No such file or directory"),
    "no label": (["--labels", " , "], "labels: expected names with commas between them"),
    "a label twice": (["--labels", "cat,dog,cat"], "labels: cat is there twice; give each label once"),
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


def test_no_command_computes_with_a_model_that_nobody_named(run: Run, pictures: Path, tmp_path: Path) -> None:
    commands = [
        ("classify", pictures / "b.png", "--labels", "building,flower"),
        ("classify", pictures / "b.png", "--labels", "building,flower", "--json"),
        ("embed", pictures, "--out", tmp_path / "x.npy"),
        ("embed", pictures, "--out", tmp_path / "x.npy", "--pretrained", "demo"),
    ]
    for command in commands:
        status, out, err = run(*command)
        assert (status, out) == (2, ""), command
        assert err.count("\n") == 1
        assert err.startswith("error: name the model to compute with: --model vit-b32:laion2b_s34b_b79k, ")
        assert all(one in err for one in EXAMPLES)
    assert not list(tmp_path.iterdir())


def test_the_models_that_are_named_where_none_was_are_there_and_one_of_them_needs_no_network(
    run: Run, pictures: Path
) -> None:
    offered = zoo.list_pretrained()
    for example in EXAMPLES:
        name, _, tag = example.partition(":")
        assert offered[name][tag].license != "unknown"
    status, out, _ = run("classify", pictures / "b.png", "--labels", "a one,a two", "--model", EXAMPLES[-1])
    assert (status, out.splitlines()[0]) == (0, "model: digits-tiny, weights: demo")


def test_no_command_has_a_default_model() -> None:
    """The door for the whole kind: whatever takes a model asks for it."""
    for command in app.registered_commands:
        callback: Any = command.callback
        for name in ("model", "name", "source", "architecture"):
            parameter = inspect.signature(callback).parameters.get(name)
            assert parameter is None or parameter.default in (None, inspect.Parameter.empty), command.name


def test_every_answer_names_the_model_and_its_weights(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    ask = ["classify", pictures / "b.png", pictures / "notes.txt", "--labels", "a,b"]
    assert run(*ask, "--model", tiny)[1].splitlines()[:2] == [f"model: {tiny}", str(pictures / "b.png")]
    for one in json.loads(run(*ask, "--model", tiny, "--json")[1]):
        assert (one["model"], one["weights"]) == (str(tiny), str(tiny))
    demo = ["--model", "digits-tiny", "--pretrained", "demo"]
    for one in json.loads(run(*ask, *demo, "--json")[1]):
        assert (one["model"], one["weights"]) == ("digits-tiny", "demo")
    out = run("embed", pictures, "--out", tmp_path / "x.npy", *demo)[1]
    assert out.rstrip().endswith("; model: digits-tiny, weights: demo")
    told = json.loads((tmp_path / "x.model.json").read_text())
    assert (told["zoo.model"], told["zoo.pretrained"]) == ("digits-tiny", "demo")


def test_weights_are_named_once(run: Run, pictures: Path) -> None:
    ask = ["classify", pictures / "b.png", "--labels", "a,b", "--model"]
    status, _, err = run(*ask, "digits-tiny:demo", "--pretrained", "demo")
    assert (status, err) == (
        2,
        "error: --model digits-tiny:demo names its weights already; leave out --pretrained demo\n",
    )
    assert "no pretrained tag 'dmeo', did you mean 'demo'?" in run(*ask, "Digits_Tiny:dmeo")[2]
    assert "unknown architecture 'vit-b:x'" in run(*ask, "vit-b:x")[2]
    assert "hf-hub:organisation/name" in run(*ask, "https://a.b/c/d")[2]


def test_classify_takes_the_images_of_a_folder(run: Run, tiny: Path, pictures: Path, tmp_path: Path) -> None:
    ask = ["--labels", "a,b", "--model", tiny, "--json"]
    found = json.loads(run("classify", pictures / "sub" / "c.png", pictures, *ask)[1])
    names = ["sub/c.png", "a.JPG", "b.png", "d.webp", "sub/c.png"]
    assert [one["image"] for one in found] == [str(pictures / name) for name in names]
    (tmp_path / "empty").mkdir()
    status, out, err = run("classify", tmp_path / "empty", *ask)
    assert (status, out) == (2, "")
    assert "found no image" in err


def test_the_limit_of_pixels_is_raised_on_the_command_line(
    run: Run, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large.png"
    Image.new("1", (8001, 8000)).save(large)
    for command in (["classify", large, "--labels", "a,b"], ["embed", large, "--out", tmp_path / "x.npy"]):
        status, _, err = run(*command, "--model", tiny)
        assert status != 0
        assert "more than the limit of 64,000,000; shrink it first, or set max_pixels" in err
        assert "(--max-pixels)" in err
        assert run(*command, "--model", tiny, "--max-pixels", 8001 * 8000)[0] == 0
    small = ["classify", pictures / "b.png", "--labels", "a,b", "--model", tiny, "--max-pixels", 20 * 24 - 1]
    assert "has 24 x 20 pixels, more than the limit of 479" in run(*small)[2]
