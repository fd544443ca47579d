"""Wrappers of training code around weights.

These are a dict beside the optimizer, averages and prefixes of every name. They are taken off, each with a note that
says so. Where two readings are possible, such as weights and their average, the trained weights are taken and the note
names the others. Where none is the obvious one, it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from zoo.checkpoints.containers.pickles import Call
from zoo_core.checkpoints import shown
from zoo_core.errors import CheckpointError

__all__ = ["choose_weights", "plain_names"]

T = TypeVar("T")

_USUAL = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Names under which training code keeps the trained weights."""
_AVERAGES = ("ema", "swa", "average", "averaged", "shadow")
"""Parts of names under which it keeps an average of them."""
_PREFIXES = ("module.", "_orig_mod.")
"""Put before every name by data parallelism and by torch.compile."""
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Put inside names by the same for a part of a model, by FSDP and by activation checkpointing."""
_WORD = re.compile(r"[^._]+")
_COUNTER = "n_averaged"
"""Stands beside the weights in the state dict of torch's AveragedModel: how many were averaged."""
_DEPTH = 3


def choose_weights(
    tree: Any, leaf: type[T], weights: str | None, path: Path
) -> tuple[Mapping[str, T], tuple[str, ...]]:
    """Return the state dict of a checkpoint's tree, and what was assumed.

    Args:
        tree: what was saved.
        leaf: what stands for a tensor in it.
        weights: None for the trained weights, `"ema"` for their average, or the name of a state dict.
        path: for messages.

    Raises:
        CheckpointError: there is no such state dict, or several could be meant.
    """
    if not isinstance(tree, dict):
        what = "one tensor" if isinstance(tree, leaf) else _describe_value(tree)
        raise CheckpointError(
            f"{path} holds {what}, expected a mapping of names to tensors; save the state_dict() of a model"
        )
    state_dicts = dict(_state_dicts(cast("dict[Any, Any]", tree), leaf))
    if not state_dicts:
        held = ", ".join(
            f"{key} ({_describe_value(value)})" for key, value in list(cast("dict[Any, Any]", tree).items())[:6]
        )
        raise CheckpointError(f"{path} holds no tensors by name; it holds {held or 'nothing'}")
    name = _choose(list(state_dicts), weights, path)
    others = [key for key in state_dicts if key != name]
    if not name:
        return state_dicts[name], ()
    return state_dicts[name], (f"read from '{name}'" + (f"; {', '.join(others)} left aside" if others else ""),)


def plain_names(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return each name without wrappers, by the name in the file, and what was assumed.

    A prefix is taken off where every name has it. Where two names would become one, all stay as they are.
    """
    plain = {name: name for name in names}
    notes: list[str] = []
    if _COUNTER in plain and all(name.startswith("module.") for name in plain if name != _COUNTER):
        del plain[_COUNTER]
        notes.append("the weights are an average, made by AveragedModel")
    while plain:
        prefix = next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in plain.values())), None)
        if prefix is None:
            break
        plain = {name: now.removeprefix(prefix) for name, now in plain.items()}
        notes.append(f"prefix '{prefix}' taken off every name")
    for part in _INSIDE:
        if any(now.startswith(part) or f".{part}" in now for now in plain.values()):
            plain = {name: f".{now}".replace(f".{part}", ".")[1:] for name, now in plain.items()}
            notes.append(f"'{part}' taken out of names")
    if len(set(plain.values())) < len(plain):
        return {name: name for name in plain}, ("names hold wrappers, but would be equal without them",)
    return plain, tuple(notes)


def _state_dicts(
    tree: Mapping[Any, Any], leaf: type[T], prefix: str = "", depth: int = _DEPTH
) -> Iterator[tuple[str, dict[str, T]]]:
    """Yield the mappings that hold tensors by name, by their own dotted names; the name of the whole is empty.

    Tensors beside weights that have one of the usual names are what training keeps: a generator's state, the best loss.
    """
    tensors = {key: value for key, value in tree.items() if isinstance(key, str) and isinstance(value, leaf)}
    inner: dict[str, dict[str, T]] = {}
    for key, value in tree.items():
        if isinstance(key, str) and isinstance(value, dict) and depth:
            inner.update(_state_dicts(cast("dict[Any, Any]", value), leaf, f"{prefix}{key}.", depth - 1))
    if tensors and not any(_is_usual(name) for name in inner):
        yield prefix.removesuffix("."), tensors
    else:
        yield from inner.items()


def _is_usual(name: str) -> bool:
    return name.rpartition(".")[2] in _USUAL


def _choose(names: Sequence[str], weights: str | None, path: Path) -> str:
    """Return the name of the state dict that is meant."""
    averages = [name for name in names if set(_WORD.findall(name.lower())) & set(_AVERAGES)]
    if weights == "ema":
        candidates = averages
    elif weights is not None:
        candidates = [name for name in names if name == weights]
    else:
        trained = [name for name in names if name not in averages]
        usual = [name for name in trained if _is_usual(name)]
        candidates = usual or trained
    if len(candidates) == 1:
        return candidates[0]
    if list(names) == [""]:
        raise CheckpointError(f"{path} is one state dict, not several; leave out weights={weights!r}")
    listed = shown(f"'{name}'" for name in names)
    if not candidates and weights is None:
        raise CheckpointError(f"{path} holds an average of weights only, {listed}; take it with weights='ema'")
    what = "no such weights" if not candidates else "several weights that could be meant"
    asked = "" if weights is None else f" (asked for weights={weights!r})"
    raise CheckpointError(f"{path} holds {what}{asked}; choose with weights= one of {listed}")


def _describe_value(value: Any) -> str:
    if isinstance(value, Call):
        return f"a call of {value.callee}, which zoo never runs"
    return f"a {type(value).__name__}"
