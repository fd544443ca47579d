"""An error's own advice works: each is provoked, and followed to the letter.

Not here: `core/config/test_config_advice` follows what is said of configs, `test_one_tower` of towers, `test_weight_values` of
numbers, `test_pickled_calls` of pickles. Advice to install a package, to get a file anew, to ask the Hub or whoever wrote
a plugin leads out of the process and cannot be followed by a test.
"""

from __future__ import annotations

import ast
import gzip
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from support.models.families import FAMILIES, pictures, words
from zoo_core.errors import ZooError, ZooWarning


class Case:
    """What the calls below work with; each is made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = FAMILIES["ViT CLIP"].architecture
        self.told = ""

    @property
    def model(self) -> Any:
        return zoo.build(self.config)

    def file(self, change: Callable[[dict[str, Any]], Any] = lambda entries: entries, name: str = "x.pt") -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        torch.save(change(dict(self.model.state_dict())), path)
        return path

    def saved(self, **options: Any) -> Path:
        return zoo.save(self.model, self.folder / "model", **options)

    @property
    def weights(self) -> Path:
        """The weights of what `saved` wrote."""
        return self.folder / "model" / "model.safetensors"

    def changed(self, section: str, **changes: Any) -> dict[str, Any]:
        return {**self.config, section: {**self.config[section], **changes}}

    def evaluated(self, pattern: str) -> Any:
        """Return the literal that the advice holds."""
        found = re.search(pattern, self.told)
        assert found, self.told
        return ast.literal_eval(found[1])


def with_weights(case: Case, path: Path, **options: Any) -> Any:
    return zoo.build(case.config, pretrained=path, **options)


def edited(folder: Path) -> Path:
    with (folder / "config.yaml").open("a") as file:
        file.write("description: edited\n")
    return folder


def biased(entries: dict[str, Any]) -> dict[str, Any]:
    return entries | {"logit_bias": torch.tensor(-3.0)}


def two_files(case: Case) -> Path:
    case.file(name="m/a.pt")
    return case.file(name="m/b.pt").parent


def packed(case: Case) -> Path:
    path = case.folder / "x.pt.gz"
    path.write_bytes(gzip.compress(case.file().read_bytes()))
    return path


def unpacked(case: Case) -> Path:
    path = case.folder / "y.pt"
    path.write_bytes(gzip.decompress((case.folder / "x.pt.gz").read_bytes()))
    return path


class Wrapper(nn.Module):
    """A model inside another, as DataParallel holds it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


DEMO = Path(zoo.__file__).parent / "pretrained" / "digits-tiny-demo.safetensors"
BIAS = {"init_logit_bias": -10}
TWICE = ("student", "teacher")
PICTURE = Image.new("RGB", (40, 40))
LONG = "a very long caption of many words that no row of ten tokens can hold"
BY_HAND: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": FAMILIES["ViT CLIP"].vision.config,
    "text_cfg": FAMILIES["ViT CLIP"].architecture["text"],
}


def intermediates(family: str, *, image: bool = False, text: bool = False, **options: Any) -> Any:
    model = FAMILIES[family].build()
    return model.forward_intermediates(
        image=pictures(model) if image else None, text=words(model) if text else None, **options
    )


def described(towers: tuple[str, ...] | None = None, **options: Any) -> Any:
    model = zoo.build(FAMILIES["CoCa"].architecture, towers=towers)
    return model.generate(torch.zeros(1, 3, 32, 48), max_length=8, **options)  # type: ignore[attr-defined]


Call = Callable[[Case], Any]
CALLS: dict[str, tuple[Call, str, Call]] = {
    "overrides": (
        lambda c: zoo.config(c.config, "embed_dim=8"),
        r"write overrides=\['embed_dim=8'\]",
        lambda c: zoo.config(c.config, c.evaluated(r"write overrides=(\[.*\])")),
    ),
    "a name": (lambda c: zoo.config("vit-b61"), "did you mean 'vit-b16'", lambda c: zoo.config("vit-b16")),
    "no image tower": (
        lambda c: zoo.build(c.config, towers=("text",)).encode_image(PICTURE),
        "add 'image' to towers",
        lambda c: zoo.build(c.config, towers=("text", "image")).encode_image(PICTURE),
    ),
    "no text tower": (
        lambda c: zoo.build(c.config, towers=("image",)).encode_text("a"),
        "add 'text' to towers",
        lambda c: zoo.build(c.config, towers=("image", "text")).encode_text("a"),
    ),
    "one image": (
        lambda c: c.model.encode_image(pictures(c.model)[0]),
        r"add the batch dimension with image\[None\]",
        lambda c: c.model.encode_image(pictures(c.model)[0][None]),
    ),
    "one row": (
        lambda c: c.model.encode_text(words(c.model)[0]),
        r"add the batch dimension with ids\[None\]",
        lambda c: c.model.encode_text(words(c.model)[0][None]),
    ),
    "by hand": (
        lambda c: zoo.CLIP(**BY_HAND).encode_image(PICTURE),
        "build it with zoo.build, or set model.preprocess",
        lambda c: (
            model := zoo.CLIP(**BY_HAND),
            setattr(model, "preprocess", c.model.preprocess),
            model.encode_image(PICTURE),
        ),
    ),
    "a text by hand": (
        lambda c: zoo.CLIP(**BY_HAND).encode_text("a"),
        r"build it with zoo\.build, or set model\.tokenizer",
        lambda c: (
            model := zoo.CLIP(**BY_HAND),
            setattr(model, "tokenizer", c.model.tokenizer),
            model.encode_text("a"),
        ),
    ),
    "a norm that there is not": (
        lambda c: intermediates("ResNet CLIP", image=True, text=True, normalize_intermediates=True),
        "leave it out, or ask for the text's intermediates alone",
        lambda c: (
            intermediates("ResNet CLIP", image=True, text=True),
            intermediates("ResNet CLIP", text=True, normalize_intermediates=True),
        ),
    ),
    "a norm of another width": (
        lambda c: intermediates("CoCa", image=True, normalize_intermediates=True),
        "ask for intermediates without it",
        lambda c: intermediates("CoCa", image=True),
    ),
    "captions of one tower": (
        lambda c: described(towers=("text",)),
        "add 'image' to towers|build the model with both",
        lambda c: described(),
    ),
    "beams of a greedy search": (
        lambda c: described(strategy="greedy", num_beams=3),
        "only 'beam'; leave it out",
        lambda c: described(strategy="greedy"),
    ),
    "a long caption": (
        lambda c: c.model.encode_text(LONG, overflow="error"),
        "cut them with overflow='truncate'",
        lambda c: c.model.encode_text(LONG, overflow="truncate"),
    ),
    "saving by hand": (
        lambda c: zoo.save(zoo.CLIP(**BY_HAND), c.folder / "m"),
        "build it with zoo.build",
        lambda c: zoo.save(c.model, c.folder / "m"),
    ),
    "saving a tower": (
        lambda c: zoo.save(zoo.build(c.config, towers=("image",)), c.folder / "m"),
        "save the whole model",
        lambda c: zoo.save(c.model, c.folder / "m"),
    ),
    "an occupied folder": (
        lambda c: zoo.save(c.model, c.file().parent),
        "choose another folder",
        lambda c: zoo.save(c.model, c.folder / "another"),
    ),
    "replaced layers": (
        lambda c: (
            model := c.model,
            setattr(model.visual, "proj", nn.Parameter(torch.ones(2, 2))),
            zoo.save(model, c.folder / "m"),
        ),
        r"keep model\.state_dict\(\) with torch\.save",
        lambda c: torch.save(c.model.state_dict(), c.folder / "x.pt"),
    ),
    "a saved model and weights": (
        lambda c: zoo.build(c.saved(), pretrained=c.file()),
        "leave out pretrained=",
        lambda c: zoo.build(c.folder / "model"),
    ),
    "weights on meta": (
        lambda c: with_weights(c, c.file(), device="meta"),
        "build the architecture alone on it",
        lambda c: zoo.build(c.config, device="meta"),
    ),
    "a state dict": (
        lambda c: zoo.build(c.config, pretrained=c.model.state_dict()),
        r"goes into a built model with model\.load_state_dict",
        lambda c: c.model.load_state_dict(c.model.state_dict()),
    ),
    "a state dict, loaded": (
        lambda c: zoo.load_weights(c.model, c.model.state_dict()),
        r"goes into a built model with model\.load_state_dict",
        lambda c: c.model.load_state_dict(c.model.state_dict()),
    ),
    "an average alone": (
        lambda c: with_weights(c, c.file(lambda entries: {"model_ema": entries})),
        "take it with weights='ema'",
        lambda c: with_weights(c, c.folder / "x.pt", weights="ema"),
    ),
    "several": (
        lambda c: with_weights(c, c.file(lambda entries: dict.fromkeys(TWICE, entries))),
        "choose with weights= one of 'student', 'teacher'",
        lambda c: with_weights(c, c.folder / "x.pt", weights="student"),
    ),
    "not several": (
        lambda c: with_weights(c, c.file(), weights="ema"),
        "leave out weights='ema'",
        lambda c: with_weights(c, c.folder / "x.pt"),
    ),
    "not several, safetensors": (
        lambda c: with_weights(c, c.saved() / "model.safetensors", weights="ema"),
        "leave weights= out",
        lambda c: with_weights(c, c.weights),
    ),
    "no mapping": (
        lambda c: with_weights(c, c.file(lambda entries: list(entries.values()))),
        r"save the state_dict\(\) of a model",
        lambda c: with_weights(c, c.file()),
    ),
    "several files": (
        lambda c: with_weights(c, two_files(c)),
        "a.pt, b.pt; name the file",
        lambda c: with_weights(c, c.folder / "m" / "a.pt"),
    ),
    "packed": (
        lambda c: with_weights(c, packed(c)),
        "unpack it and give the file of weights in it",
        lambda c: with_weights(c, unpacked(c)),
    ),
    "a config for weights": (
        lambda c: with_weights(c, c.saved() / "zoo.json"),
        "give the weights beside it",
        lambda c: with_weights(c, c.weights),
    ),
    "another activation": (
        lambda c: zoo.build(c.changed("text", activation="quick_gelu"), pretrained=c.saved() / "model.safetensors"),
        r"say overrides=\['text\.activation=",
        lambda c: zoo.build(
            c.changed("text", activation="quick_gelu"),
            pretrained=c.weights,
            overrides=c.evaluated(r"say overrides=(\[.*\])"),
        ),
    ),
    "no logit bias": (
        lambda c: zoo.build({**c.config, **BIAS}, pretrained=c.file()),
        r"leave it out with overrides=\['init_logit_bias=null'\], or give its value with logit_bias=",
        lambda c: (
            zoo.build({**c.config, **BIAS}, pretrained=c.folder / "x.pt", overrides=c.evaluated(r"overrides=(\[.*\])")),
            zoo.build({**c.config, **BIAS}, pretrained=c.folder / "x.pt", logit_bias=-10),
        ),
    ),
    "a logit bias": (
        lambda c: with_weights(c, c.file(biased)),
        r"take it with overrides=\['init_logit_bias=-10'\]",
        lambda c: with_weights(c, c.folder / "x.pt", overrides=c.evaluated(r"overrides=(\[.*\])")),
    ),
    "another size": (
        lambda c: zoo.build(c.changed("text", context_length=14), pretrained=c.file()),
        "resample them with resize='bicubic'",
        lambda c: zoo.build(c.changed("text", context_length=14), pretrained=c.folder / "x.pt", resize="bicubic"),
    ),
    "another architecture": (
        lambda c: with_weights(c, DEMO),
        "The architecture that fits best is 'digits-tiny'",
        lambda c: zoo.build("digits-tiny", pretrained=DEMO),
    ),
    "an edited folder": (
        lambda c: zoo.load(edited(c.saved())),
        r"build from its files on purpose: zoo\.build\(",
        lambda c: zoo.build(
            c.evaluated(r"zoo\.build\(('[^']*')"),
            pretrained=c.evaluated(r"pretrained=('[^']*')"),
            overrides=["description=null"],
        ),
    ),
    "no probe": (
        lambda c: zoo.load(c.saved(probe=False), probe=True),
        "save it again to have one",
        lambda c: zoo.load(zoo.save(zoo.load(c.folder / "model"), c.folder / "again"), probe=True),
    ),
    "weights for an architecture": (
        lambda c: zoo.build(str(c.file())),
        r"name its architecture too: zoo\.build\(NAME, pretrained='.*x\.pt'\)",
        lambda c: with_weights(c, Path(c.evaluated(r"pretrained=('[^']*')"))),
    ),
    "a wrapper": (
        lambda c: zoo.save(Wrapper(c.model), c.folder / "m"),  # type: ignore[arg-type]
        r"give its \.module",
        lambda c: zoo.save(Wrapper(c.model).module, c.folder / "m"),  # type: ignore[arg-type]
    ),
    "one text": (
        lambda c: c.model.probabilities(PICTURE, ["a"]),
        "at least two texts",
        lambda c: c.model.probabilities(PICTURE, ["a", "b"]),
    ),
    "half precision": (
        lambda c: with_weights(
            c, c.file(lambda e: e | {"visual.proj": e["visual.proj"] * 0 + 1e5}), dtype=torch.float16
        ),
        "take bfloat16 or float32",
        lambda c: (
            with_weights(c, c.folder / "x.pt", dtype=torch.bfloat16),
            with_weights(c, c.folder / "x.pt", dtype=torch.float32),
        ),
    ),
    "two images with other texts": (
        lambda c: zoo.retrieval_metrics(torch.eye(4)[:2], torch.eye(4)[:3]),
        "say with image_of_text whose the texts are",
        lambda c: zoo.retrieval_metrics(torch.eye(4)[:2], torch.eye(4)[:3], image_of_text=[0, 0, 1]),
    ),
    "an image in a batch": (
        lambda c: c.model.preprocess.batch(PICTURE),
        "put it in a list",
        lambda c: c.model.preprocess.batch([PICTURE]),
    ),
    "a name and a folder": (
        lambda c: (zoo.save(c.model, "digits-tiny"), zoo.build("digits-tiny")),
        r"write '\./digits-tiny' for the model, 'clip-zoo/digits-tiny' for the architecture",
        lambda c: (zoo.build("./digits-tiny"), zoo.build("clip-zoo/digits-tiny")),
    ),
    "a file to convert": (
        lambda c: zoo.convert(c.saved() / "model.safetensors", c.folder / "m"),
        "name the architecture that they belong to",
        lambda c: zoo.convert(c.weights, c.folder / "m", architecture=c.folder / "model" / "config.yaml"),
    ),
    "an architecture to convert": (
        lambda c: zoo.convert("digits-tiny", c.folder / "m"),
        "name a tag or a file of them: pretrained=",
        lambda c: zoo.convert("digits-tiny", c.folder / "m", pretrained="demo"),
    ),
}


@pytest.mark.parametrize(("broken", "advice", "mended"), CALLS.values(), ids=list(CALLS))
def test_who_does_what_an_error_says_has_what_was_wanted(
    broken: Call, advice: str, mended: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = Case(tmp_path)
    with pytest.raises(ZooError, match=advice) as caught:
        broken(case)
    case.told = str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZooWarning)  # that something was done as asked
        mended(case)
