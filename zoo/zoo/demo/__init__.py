"""The demo: a tiny CLIP learns handwritten digits from captions.

It is tested on digits and prompts that it never saw. Nothing is downloaded, since the digits come with scikit-learn.
Importing this package imports neither torch, nor scikit-learn, nor matplotlib: each name below is looked up on first
use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.demo.picture import draw
    from zoo.demo.run import DemoResult, run_demo
    from zoo.demo.settings import recipe

__all__ = ["DemoResult", "draw", "recipe", "run_demo"]

_HOMES = {"DemoResult": "run", "draw": "picture", "recipe": "settings", "run_demo": "run"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.demo' has no attribute '{name}'")
    return getattr(importlib.import_module(f"zoo.demo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
