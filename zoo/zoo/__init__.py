"""zoo: a modular zoo of contrastive image-text models.

    import zoo

    model = zoo.build("digits-tiny", pretrained="demo")
    model.encode_image("seven.png") @ model.encode_text(["the digit seven", "the digit two"]).T

Importing zoo imports neither torch nor a plugin: every name below is looked up on first use, and names that are
not listed here (`zoo.CLIP`, `zoo.ClipLoss`, ...) are what plugins export.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zoo._version import __version__ as __version__

if TYPE_CHECKING:
    from zoo.building.build import build, loss, preprocess, tokenizer
    from zoo.building.identify import identify
    from zoo.building.load import load, verify
    from zoo.building.source import config
    from zoo.catalog.architectures import list_models, registry
    from zoo.catalog.pretrained import list_pretrained
    from zoo.checkpoints.load import load_weights
    from zoo.embeddings.store import read_set
    from zoo.evaluation.retrieval import retrieval_metrics
    from zoo.evaluation.zero_shot import ZeroShotClassifier
    from zoo.saved.write import save
    from zoo.training.train import train
    from zoo.transfer.convert import convert
    from zoo.transfer.pull import pull
    from zoo.transfer.push import push_to_hub
    from zoo_core.errors import ZooError

__all__ = [
    "ZeroShotClassifier",
    "ZooError",
    "build",
    "config",
    "convert",
    "identify",
    "list_models",
    "list_pretrained",
    "load",
    "load_weights",
    "loss",
    "preprocess",
    "pull",
    "push_to_hub",
    "read_set",
    "registry",
    "retrieval_metrics",
    "save",
    "tokenizer",
    "train",
    "verify",
]

_HOMES = {
    "ZeroShotClassifier": "zoo.evaluation.zero_shot",
    "ZooError": "zoo_core.errors",
    "build": "zoo.building.build",
    "config": "zoo.building.source",
    "convert": "zoo.transfer.convert",
    "identify": "zoo.building.identify",
    "list_models": "zoo.catalog.architectures",
    "list_pretrained": "zoo.catalog.pretrained",
    "load": "zoo.building.load",
    "load_weights": "zoo.checkpoints.load",
    "loss": "zoo.building.build",
    "preprocess": "zoo.building.build",
    "pull": "zoo.transfer.pull",
    "push_to_hub": "zoo.transfer.push",
    "read_set": "zoo.embeddings.store",
    "registry": "zoo.catalog.architectures",
    "save": "zoo.saved.write",
    "retrieval_metrics": "zoo.evaluation.retrieval",
    "tokenizer": "zoo.building.build",
    "train": "zoo.training.train",
    "verify": "zoo.building.load",
}

_ELSEWHERE = {
    "create_model": "build",
    "create_model_and_transforms": "build",
    "create_model_from_pretrained": "build",
    "from_pretrained": "build",
    "get_tokenizer": "tokenizer",
    "tokenize": "tokenizer",
    "image_transform": "preprocess",
    "create_loss": "loss",
    "load_checkpoint": "load_weights",
    "get_model_config": "config",
}
"""What open_clip and transformers call it. A model of `zoo.build` has its tokenizer and preprocessing with it."""


def __getattr__(name: str) -> Any:
    if name == "training":  # the room itself, so that `zoo.training.prepare` needs no second import
        return importlib.import_module("zoo.training")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name.startswith("_"):
        raise AttributeError(f"module 'zoo' has no attribute '{name}'")
    if name in _ELSEWHERE:
        raise AttributeError(
            f"module 'zoo' has no attribute '{name}': what other libraries call so is zoo.{_ELSEWHERE[name]}; "
            "a model that zoo.build made has its .tokenizer and .preprocess"
        )
    from zoo.catalog.architectures import registry
    from zoo_core.errors import AmbiguousNameError, UnknownNameError, did_you_mean

    try:
        return registry().export(name)
    except AmbiguousNameError as error:
        raise AttributeError(f"module 'zoo' has no attribute '{name}': {error}") from None
    except UnknownNameError:
        hint = did_you_mean(name, __dir__()) + registry().quarantine_note()
        raise AttributeError(f"module 'zoo' has no attribute '{name}'{hint}") from None


def __dir__() -> list[str]:
    from zoo.catalog.architectures import registry

    return sorted({*__all__, *registry().exported_names(), "__version__"})
