"""Public functions and junk: every argument of every one works, or is refused in one line that names it.

Functions and arguments are found by inspection, so that a new one is held to it without a word here. Whatever is no
`ZooError` is a fault, but for the `TypeError` that Python itself raises for arguments that a function does not have.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from support.models.tiny_clip import ARCHITECTURE
from zoo_core.errors import PluginError, ZooError

SECONDS = 20
"""A pair that takes longer hangs, on however busy a machine."""


class Evil:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def circle(kind: type) -> Any:
    made = kind()
    if isinstance(made, list):
        made.append(made)
    else:
        made["a"] = made
    return made


JUNK: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "5": lambda: 5,
    "-1": lambda: -1,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "True": lambda: True,
    "empty": lambda: "",
    "long": lambda: "x" * 300,
    "very long": lambda: "x" * 100_000,
    "long path": lambda: "x/" * 3_000,
    "nul": lambda: "a\0b",
    "surrogate": lambda: "\ud800",
    "lines": lambda: "a\nb",
    "bytes": lambda: b"x",
    "list": list,
    "dict": dict,
    "dict of junk": lambda: {5: object()},
    "object": object,
    "evil": Evil,
    "class": lambda: int,
    "function": lambda: len,
    "circle of lists": lambda: circle(list),
    "circle of dicts": lambda: circle(dict),
    "huge": lambda: 10**30,
    "digits": lambda: 10**5000,
    "path": lambda: Path("there/is/nothing"),
    "tensor": lambda: torch.zeros(2, 3),
    "numbers": lambda: torch.arange(3),
    "generator": lambda: (one for one in "ab"),
    "array": lambda: np.zeros((2, 2), dtype=np.complex64),
    "objects": lambda: np.array([object()], dtype=object),
    "texts": lambda: np.array(["a", "b"]),
    "list of junk": lambda: [None, 5],
    "string": lambda: "a",
}


def features(count: int = 4) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(0)), dim=-1)


VALID: dict[str, Callable[[], Any]] = {
    "source": lambda: ARCHITECTURE,
    "name": lambda: "contrastive",
    "folder": lambda: "new-folder",
    "path": lambda: "nothing.safetensors",
    "to": lambda: "new-folder",
    "repo": lambda: "organisation/name",
    "labels": lambda: ["a", "b"],
    "image": lambda: torch.zeros(2, 3, 32, 32),
    "images": lambda: torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
    "text": lambda: ["a", "b"],
    "texts": lambda: ["a", "b"],
    "ids": lambda: [1, 2],
    "image_features": features,
    "text_features": features,
    "logit_scale": lambda: torch.tensor(10.0),
    "logits": lambda: torch.randn(4, 3, 5),
    "dist_image_features": features,
    "dist_text_features": features,
    "dist_logit_scale": lambda: torch.tensor(10.0),
    "targets": lambda: [0, 1],
    "pixels": lambda: torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
    "prepared": lambda: [torch.zeros(3, 32, 32)],
    "embed_dim": lambda: 16,
    "vision_cfg": lambda: ARCHITECTURE["vision"],
    "text_cfg": lambda: ARCHITECTURE["text"],
    "multimodal_cfg": lambda: {"width": 24, "heads": 2, "layers": 1},
    "model": lambda: PARTS.model,
    "kind": lambda: "loss",
    "key": lambda: "logit_scale",
}
"""What stands for a required argument while another one is junk, by the name of the argument."""


class Parts:
    """What public methods are found on."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = zoo.build(ARCHITECTURE)
        self.classifier = zoo.ZeroShotClassifier(self.model, ["a", "b"])
        self.registry = zoo.registry()
        self.tokenizer = self.model.tokenizer
        self.preprocess = self.model.preprocess
        self.clip_loss = zoo.ClipLoss()
        self.siglip_loss = zoo.SigLipLoss()
        self.coca_loss = zoo.CoCaLoss(pad_id=0)
        self.distill_loss = zoo.DistillClipLoss()


PARTS = Parts()
INNER = ("tokenizer.fill", "preprocess.prepare")
"""What users do not call: subclasses override them, and get what was made or checked for them."""


EXPENSIVE = {("vision_cfg", "dict"), ("text_cfg", "dict")}
"""Junk that is none: all defaults, a model of 150 million parameters."""


def functions() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for name in (*zoo.__all__, *zoo.registry().exported_names()):
        public = getattr(zoo, name)
        if not (isinstance(public, type) and issubclass(public, Exception)):
            found[f"zoo.{name}"] = public
    for part, value in vars(PARTS).items():
        for name in dir(type(value)):
            method = inspect.getattr_static(type(value), name)
            ours = isinstance(method, FunctionType) and method.__module__.partition(".")[0].startswith("zoo")
            if ours and f"{part}.{name}" not in INNER and (not name.startswith("_") or name == "__call__"):
                found[f"{part}.{name}"] = getattr(value, name)
    return found


FUNCTIONS = functions()


def arguments(function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def faults(function: Callable[..., Any]) -> Iterator[str]:
    """Yield what is wrong with how a function takes junk."""
    for one in arguments(function):
        for junk, make in JUNK.items():
            if (one.name, junk) in EXPENSIVE:
                continue
            given = {
                other.name: VALID.get(other.name, lambda: None)()
                for other in arguments(function)
                if other.default is other.empty
            }
            given[one.name] = make()
            start = time.perf_counter()
            told = _told(function, given)
            if told:
                yield f"{one.name}={junk}: {told}"
            if time.perf_counter() - start > SECONDS:
                yield f"{one.name}={junk}: took {time.perf_counter() - start:.0f} s"


def _told(function: Callable[..., Any], given: dict[str, Any]) -> str:
    try:
        answer = function(**given)
        if isinstance(answer, Iterator):
            list(answer)
    except PluginError as error:
        return f"blames a plugin: {error}"
    except ZooError as error:
        text = str(error)
        if len(text) > 500:
            return f"{len(text)} characters: {text[:200]}"
        return f"several lines: {text!r}" if "\n" in text and not hasattr(error, "problems") else ""
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:160]
    return ""


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore")
def test_junk_is_refused_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = list(faults(FUNCTIONS[name]))
    assert not found, "\n".join(found)
