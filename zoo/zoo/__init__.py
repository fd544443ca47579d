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

if TYPE_CHECKING:
    from zoo.building import build, loss, preprocess, tokenizer
    from zoo.catalog import config, list_models, registry
    from zoo.classification import ZeroShotClassifier
    from zoo.conversion import convert
    from zoo.embedding_sets import read_set
    from zoo.folders import load, verify
    from zoo.identification import identify
    from zoo.loading import load_weights
    from zoo.pretrained_entries import list_pretrained
    from zoo.publishing import push_to_hub
    from zoo.pulling import pull
    from zoo.retrieval import retrieval_metrics
    from zoo.saving import save
    from zoo_core.errors import ZooError

__version__ = "0.1.0"

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
    "verify",
]

_HOMES = {
    "ZeroShotClassifier": "zoo.classification",
    "ZooError": "zoo_core.errors",
    "build": "zoo.building",
    "config": "zoo.catalog",
    "convert": "zoo.conversion",
    "identify": "zoo.identification",
    "list_models": "zoo.catalog",
    "list_pretrained": "zoo.pretrained_entries",
    "load": "zoo.folders",
    "load_weights": "zoo.loading",
    "loss": "zoo.building",
    "preprocess": "zoo.building",
    "pull": "zoo.pulling",
    "push_to_hub": "zoo.publishing",
    "read_set": "zoo.embedding_sets",
    "registry": "zoo.catalog",
    "save": "zoo.saving",
    "retrieval_metrics": "zoo.retrieval",
    "tokenizer": "zoo.building",
    "verify": "zoo.folders",
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
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name.startswith("_"):
        raise AttributeError(f"module 'zoo' has no attribute '{name}'")
    if name in _ELSEWHERE:
        raise AttributeError(
            f"module 'zoo' has no attribute '{name}': what other libraries call so is zoo.{_ELSEWHERE[name]}; "
            "a model that zoo.build made has its .tokenizer and .preprocess"
        )
    from zoo.catalog import registry
    from zoo_core.errors import AmbiguousNameError, UnknownNameError, did_you_mean

    try:
        return registry().export(name)
    except AmbiguousNameError as error:
        raise AttributeError(f"module 'zoo' has no attribute '{name}': {error}") from None
    except UnknownNameError:
        hint = did_you_mean(name, __dir__()) + registry().quarantine_note()
        raise AttributeError(f"module 'zoo' has no attribute '{name}'{hint}") from None


def __dir__() -> list[str]:
    from zoo.catalog import registry

    return sorted({*__all__, *registry().exported_names(), "__version__"})
