"""What people type who come from open_clip, transformers or timm: it works, or one line says what is written instead."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import zoo
from support.models.tiny_clip import ARCHITECTURE, assert_same_outputs
from zoo.saved.manifest import digest_of, file_digests
from zoo_core.errors import AmbiguousNameError, CheckpointError, ConfigError, InputError, UnknownNameError, ZooError


@pytest.fixture(scope="module")
def model() -> Any:
    return zoo.build(ARCHITECTURE)


SOURCES: dict[str, tuple[Any, str]] = {
    "a name with a tag": ("digits-tiny:demo", "zoo.build('digits-tiny', pretrained='demo')"),
    "a name with a tag behind a slash": ("ViT-B-32/openai", "zoo.build('ViT-B-32', pretrained='openai')"),
    "a repository": ("laion/CLIP-ViT-B-32", "if you mean a repository of the Hub, write 'hf-hub:laion/CLIP-ViT-B-32'"),
    "timm's prefix": ("hf_hub:timm/ViT-B-16", "a repository of the Hub is written hf-hub:organisation/name"),
    "open_clip's prefix": ("local-dir:some/folder", "a folder is given by its path alone, zoo.build('some/folder')"),
    "a file of weights": ("model.safetensors", "zoo.build(NAME, pretrained='model.safetensors')"),
    "a config of open_clip": ("config.json", "`zoo import` writes one from the config of another library"),
    "a folder that is not there and has the name of an architecture": (
        "./digits-tiny",
        "it looks like a path, but there is no such folder",
    ),
    "the same with the slash of a shell's completion": (
        "vit-b32/",
        "it looks like a path, but there is no such folder",
    ),
    "a folder that is not there": ("./models/mine", "it looks like a path, but there is no such folder"),
    "nothing": ("", "unknown architecture ''; there are"),
}


@pytest.mark.parametrize("case", SOURCES)
@pytest.mark.parametrize("function", [zoo.build, zoo.tokenizer, zoo.preprocess])
def test_a_source_that_is_written_otherwise_is_told_how(function: Callable[..., Any], case: str) -> None:
    source, message = SOURCES[case]
    with pytest.raises(UnknownNameError) as error:
        function(source)
    assert message in str(error.value)


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="it is a folder, but holds no saved model, and no model of another"):
        zoo.build(str(tmp_path))


@pytest.mark.parametrize("source", [None, 7, ["vit-b32"]], ids=repr)
@pytest.mark.parametrize("function", [zoo.build, zoo.config])
def test_a_source_of_another_type_is_refused(function: Callable[..., Any], source: Any) -> None:
    message = r"(expected the name of an architecture|must be a string), a path, a mapping .*, found"
    with pytest.raises(InputError, match=message):
        function(source)


PRETRAINED: dict[str, tuple[Any, str]] = {
    "a flag": (True, "pretrained must be a string, a path or None, found True"),
    "a state dict": ({}, "found a mapping; a state dict goes into a built model with model.load_state_dict"),
    "a URL": ("https://example.org/a.pt", "'https://example.org/a.pt' is a URL, and nothing is fetched; download it"),
    "an address": ("hf-hub:a/b", "'hf-hub:a/b' brings its architecture with it: zoo.build('hf-hub:a/b')"),
    "an empty string": ("", "has no pretrained tag ''"),
}


@pytest.mark.parametrize("case", PRETRAINED)
def test_weights_that_are_given_otherwise_are_told(case: str) -> None:
    pretrained, message = PRETRAINED[case]
    with pytest.raises(ZooError) as error:
        zoo.build("digits-tiny", pretrained=pretrained)
    assert message in str(error.value)


def test_an_architecture_file_takes_weights_from_a_folder_and_has_no_tags(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(json.dumps(ARCHITECTURE), encoding="utf-8")
    zoo.save(model, "saved")
    assert_same_outputs(zoo.build("tiny.yaml", pretrained="saved"), model)
    with pytest.raises(UnknownNameError, match="architecture 'tiny.yaml' has no pretrained tag 'openai'; it has none"):
        zoo.build("tiny.yaml", pretrained="openai")


def test_overrides_in_a_mapping_are_told_how_they_are_written() -> None:
    with pytest.raises(ConfigError, match=r"write overrides=\['vision.layers=1'\]"):
        zoo.config(ARCHITECTURE, {"vision.layers": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "ours"), [("create_model_and_transforms", "build"), ("get_tokenizer", "tokenizer")])
def test_a_function_of_open_clip_is_told_by_its_name_here(name: str, ours: str) -> None:
    with pytest.raises(AttributeError, match=rf"is zoo\.{ours}; a model that zoo\.build made has its \.tokenizer"):
        getattr(zoo, name)


TAKERS: dict[str, Callable[[Any, Path], Any]] = {
    "save": lambda model, folder: zoo.save(model, folder / "saved"),
    "load_weights": lambda model, folder: zoo.load_weights(model, folder / "weights.pt"),
    "ZeroShotClassifier": lambda model, folder: zoo.ZeroShotClassifier(model, ["a", "b"]),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_model_is_refused_and_a_wrapped_one_is_told_where_it_is(
    model: Any, tmp_path: Path, taker: str
) -> None:
    for wrapped in (nn.DataParallel(model), AveragedModel(model)):
        with pytest.raises(InputError, match=rf"found {type(wrapped).__name__}; give its \.module"):
            TAKERS[taker](wrapped, tmp_path)
    for other in (nn.Linear(2, 2), "digits-tiny"):
        with pytest.raises(
            InputError, match=rf"expected a model of zoo, found {type(other).__name__}; zoo.build makes"
        ):
            TAKERS[taker](other, tmp_path)


@pytest.mark.parametrize("taker", TAKERS)
def test_a_compiled_model_is_taken_as_the_model(model: Any, tmp_path: Path, taker: str) -> None:
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    TAKERS[taker](torch.compile(model, backend="eager"), tmp_path)
    if taker == "save":
        assert zoo.load(tmp_path / "saved").notes == ()


def test_weights_in_memory_are_told_where_they_go(model: Any) -> None:
    with pytest.raises(
        InputError, match=r"found a mapping; a state dict goes into a built model with model\.load_state"
    ):
        zoo.load_weights(model, model.state_dict())


def test_a_model_whose_layers_were_replaced_is_not_saved_as_what_it_was(tmp_path: Path) -> None:
    model: Any = zoo.build(ARCHITECTURE)
    model.visual.transformer.resblocks[0].mlp.c_fc = nn.Sequential(model.visual.transformer.resblocks[0].mlp.c_fc)
    with pytest.raises(InputError, match=r"4 tensors are not those of .*resblocks\.0\.mlp\.c_fc\.0\.weight the first"):
        zoo.save(model, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_retrieval_takes_the_arrays_that_embed_writes() -> None:
    features = np.eye(4, dtype=np.float32)
    assert zoo.retrieval_metrics(features, features).image_to_text.recall[1] == 1


def test_python_runs_zoo_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "zoo", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"zoo {zoo.__version__}\n"


def test_the_average_of_torch_loads_without_its_counter(model: Any, tmp_path: Path) -> None:
    torch.save(AveragedModel(model).state_dict(), tmp_path / "average.pt")
    loaded = zoo.build(ARCHITECTURE, pretrained=tmp_path / "average.pt")
    assert_same_outputs(loaded, model)
    assert "the weights are an average, made by AveragedModel" in loaded.notes


@pytest.mark.parametrize("kind", ["clip", "custom-text-clip"])
def test_a_model_that_was_pickled_whole_gives_its_weights(tmp_path: Path, kind: str) -> None:
    model = zoo.build(ARCHITECTURE | {"model": kind})
    torch.save(model, tmp_path / "whole.pt")
    torch.save(model.own_state_dict(), tmp_path / "own.pt")
    for name in ("whole.pt", "own.pt"):
        assert_same_outputs(zoo.build(ARCHITECTURE | {"model": kind}, pretrained=tmp_path / name), model)


def test_one_state_dict_has_no_average_to_choose(model: Any, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="is one state dict, not several; leave out weights='ema'"):
        zoo.build(ARCHITECTURE, pretrained=tmp_path / "weights.pt", weights="ema")


TEXTS: dict[str, tuple[Any, str]] = {
    "an array of strings": (np.array(["a", "b"]), "found ndarray; make a list of it"),
    "a generator": ((one for one in "ab"), "found generator; make a list of it"),
    "token ids of numpy": (np.array([[1, 2]]), "found ndarray; token ids are a tensor, torch.from_numpy makes one"),
    "a batch of transformers": ({"input_ids": torch.ones(1, 2)}, "found dict; of a batch of token ids give"),
    "bytes": (b"a", "found bytes"),
    "one row of ids": (torch.tensor([1, 2]), "add the batch dimension with ids[None]"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_texts_of_another_form_are_told_what_makes_them_fit(model: Any, case: str) -> None:
    text, message = TEXTS[case]
    with pytest.raises(InputError) as error:
        model.encode_text(text)
    assert message in str(error.value)


def test_tokenizers_and_classifiers_tell_what_they_are(model: Any) -> None:
    assert repr(model.tokenizer) == "ClipBpeTokenizer(context_length=12, vocab_size=1024)"
    assert repr(zoo.ZeroShotClassifier(model, ["a", "b"])) == "ZeroShotClassifier(2 labels, 1 templates, softmax)"


@pytest.mark.slow
def test_what_build_gives_has_no_none_in_it_for_type_checkers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import zoo\n"
        "model = zoo.build('digits-tiny')\n"
        "model.encode_text(model.tokenizer(['a']))\n"
        "model.encode_image(model.preprocess('a.png')[None])\n"
        "print(model.visual.image_size, model.config.embed_dim, zoo.load('mine').text.vocab_size)\n"
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_folder_with_the_name_of_an_architecture_is_not_taken_for_it(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zoo.save(model, "vit-b32")
    with pytest.raises(AmbiguousNameError, match=r"write '\./vit-b32' for the model, 'clip-zoo/vit-b32' for the arch"):
        zoo.build("vit-b32")
    assert_same_outputs(zoo.build("./vit-b32"), model)
    assert_same_outputs(zoo.load("vit-b32"), model)
    assert zoo.tokenizer("clip-zoo/vit-b32").context_length == 77


def test_weights_do_not_go_where_nothing_is_held() -> None:
    with pytest.raises(InputError, match="device 'meta' holds no values"):
        zoo.build("digits-tiny", pretrained="demo", device="meta")


def test_the_length_of_a_row_is_a_number(model: Any) -> None:
    with pytest.raises(InputError, match="context_length must be a whole number .*, found '77'"):
        model.tokenizer("a", context_length="77")


def test_a_saved_model_names_the_package_that_it_needs(tmp_path: Path) -> None:
    folder = zoo.save(zoo.build(ARCHITECTURE), tmp_path / "saved")
    origin = json.loads((folder / "zoo.json").read_text())
    config = (folder / "config.yaml").read_text().replace("tower: vit", "tower: acme-vit")
    (folder / "config.yaml").write_text(config)
    origin["parts"]["vision-tower"] = "vision-tower 'acme-vit' of acme-towers 0.1.0"
    origin["files"] = file_digests(folder)
    origin["digest"] = digest_of(origin)
    (folder / "zoo.json").write_text(json.dumps(origin))
    with pytest.raises(ConfigError) as error:
        zoo.load(folder)
    assert "unknown vision-tower 'acme-vit'" in str(error.value)
    assert "the vision-tower 'acme-vit' of acme-towers 0.1.0 is not installed here" in str(error.value)


@pytest.mark.parametrize(
    ("theirs", "ours", "made"),
    [
        ("clip", "contrastive", "ClipLoss"),
        ("CLIP", "contrastive", "ClipLoss"),
        ("ClipLoss", "contrastive", "ClipLoss"),
        ("siglip", "sigmoid", "SigLipLoss"),
        ("SigLipLoss", "sigmoid", "SigLipLoss"),
        ("CoCaLoss", "coca", "CoCaLoss"),
        ("distill", "distillation", "DistillClipLoss"),
        ("distill_clip", "distillation", "DistillClipLoss"),
    ],
)
def test_a_loss_by_the_name_of_another_library_is_told_how_it_is_written(theirs: str, ours: str, made: str) -> None:
    with pytest.raises(ConfigError, match=rf"^loss: type: '{theirs}' is written zoo\.loss\('{ours}'\) here$"):
        zoo.loss(theirs)
    assert type(zoo.loss(ours, **({"pad_id": 0} if ours == "coca" else {}))).__name__ == made
