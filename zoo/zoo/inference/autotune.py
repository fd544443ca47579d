"""Choice of the inference forms that are fastest on this machine.

Outer modules are measured before those inside them. Modules of one kind, size and input are an equivalence group: one
of them is measured, on the input that one image or text gave it, repeated to a batch. The forms that are faster by
themselves are candidates. They are accepted if the tower is faster with them, where caches and memory are shared. A
form that does not give what the module gives is an error of its author. The choice is recorded for the user.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo._version import __version__
from zoo_core.config import Config
from zoo_core.documents.json_reader import read_json
from zoo_core.errors import ConfigError, PluginError, ZooError
from zoo_core.files.atomic import atomic_write
from zoo_core.files.user_folders import user_cache_folder
from zoo_core.nn.inference_forms import Optimization, forms_of, twin

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import DualEncoder

__all__ = ["measured", "optimize_for_inference"]

Call = Callable[[], Any]
Measure = Callable[[Sequence[Call]], Sequence[float]]
"""Returns the seconds that each of some calls takes."""

GAIN = 1.02
"""The tower has to be this many times as fast with new forms: less is noise."""
ROUNDS = 6
SECONDS = 0.25
"""A batch is as large as this time allows, and no larger than `BATCH`."""
BATCH = 16
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
"""How far a form's output may be from the module's, by the largest value of that; `COARSE` for other dtypes."""
COARSE = 0.05

_log = logging.getLogger(__name__)


class Choice(Config):
    """The form that a module takes, and how many times as fast the tower was; the path begins with `tower`."""

    path: Annotated[str, Field(pattern=r"^tower(\.|$)")]
    form: str
    gain: Annotated[float, Field(gt=0)]


class Record(Config):
    """The choices for one tower on one machine, as a file holds them."""

    choices: list[Choice]


def optimize_for_inference(model: DualEncoder, measure: Measure | None = None) -> None:
    """Give the towers of a model the forms that are faster here, and freeze it.

    Args:
        model: whose `optimizations` will tell what was done.
        measure: takes the times; without one they are taken by `measured` and recorded for the user.

    Raises:
        PluginError: a form gives other numbers than the module that offers it.
    """
    model.eval().requires_grad_(False)
    done: list[Optimization] = []
    for side, tower in model.towers.items():
        holder = nn.ModuleDict({"tower": tower})
        try:
            with torch.inference_mode(False), torch.no_grad():
                choices = _optimized(holder, _sample(model, side), measure)
        except ZooError as error:
            if isinstance(error, PluginError):
                raise
            warnings.warn(
                f"the {side} tower is left as it is: it refuses a sample to measure with: {error}", stacklevel=3
            )
        else:
            gains: dict[str, list[float]] = defaultdict(list)
            for choice in choices:
                gains[choice.form].append(choice.gain)
            done += [Optimization(side, form, len(of_form), max(of_form)) for form, of_form in gains.items()]
        setattr(model, model.modalities[side].spec.module, holder["tower"].eval().requires_grad_(False))
    model.optimizations = tuple(done)


def measured(calls: Sequence[Call]) -> list[float]:
    """Return the least seconds of each call in interleaved rounds: process time of one thread, else wall time."""
    clock = time.process_time if torch.get_num_threads() == 1 and not torch.cuda.is_initialized() else time.perf_counter
    least = [float("inf")] * len(calls)
    spent, number = 0.0, 0
    while number < ROUNDS or (spent < SECONDS and number < 4 * ROUNDS):  # the first round warms up
        for index, call in enumerate(calls):
            start = clock()
            call()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            took = clock() - start
            spent += took
            if number:
                least[index] = min(least[index], took)
        number += 1
    return least


def _optimized(holder: nn.ModuleDict, sample: Tensor, measure: Measure | None) -> list[Choice]:
    """Give the tower of `holder` its forms: those recorded for this tower and machine, or those measured now."""
    if measure is not None:
        return _accept_faster(holder, sample, measure)
    path = _record_path(holder["tower"], sample)
    try:
        recorded = Record.from_document(read_json(path)).choices
    except ConfigError as error:
        if os.path.exists(path):  # noqa: PTH110 - Path.exists() raises where the name is too long
            _log.info("forms are measured anew: %s", error)
    else:
        before = holder["tower"]
        holder["tower"] = twin(before)
        if all(_replace(holder, choice.path, choice.form) for choice in recorded):
            return recorded
        holder["tower"] = before
    choices = _accept_faster(holder, sample, measured)
    with suppress(OSError, ZooError), atomic_write(path) as (scratch,):  # a user without a folder measures each time
        scratch.write_text(json.dumps(Record(choices=choices).data()), encoding="utf-8")
    return choices


def _replace(holder: nn.ModuleDict, path: str, name: str) -> bool:
    """Replace the module at a path by its form of a name; return whether there is such a form."""
    try:
        module = holder.get_submodule(path)
    except AttributeError:
        return False
    for form in forms_of(module):
        if form.name == name:
            parent, _, child = path.rpartition(".")
            setattr(holder.get_submodule(parent), child, form.make().eval())
            return True
    return False


def _accept_faster(holder: nn.ModuleDict, sample: Tensor, measure: Measure) -> list[Choice]:
    """Measure the forms of a tower's modules, from the outermost inwards; accept those that make the tower faster."""
    holder["tower"](sample)  # the first run also sets up what later ones use
    start = time.perf_counter()
    holder["tower"](sample)
    repeats = max(1, min(BATCH, int(SECONDS / (time.perf_counter() - start))))
    batch = _repeated(sample, repeats)
    measured_paths: set[str] = set()
    accepted: list[Choice] = []
    while modules := _outermost(holder, measured_paths):
        before = holder["tower"]
        candidates: dict[str, str] = {}
        for paths, inputs in _equivalence_groups(holder, modules, sample):
            form = _fastest(modules[paths[0]], inputs, repeats, measure)
            if form is not None:
                candidates |= dict.fromkeys(paths, form)
        if candidates:
            holder["tower"] = twin(before)
            for path, form in candidates.items():
                _replace(holder, path, form)
            # what is faster alone may still slow the tower down, where caches are shared
            slow, fast = measure([partial(before, batch), partial(holder["tower"], batch)])
            gain = slow / max(fast, 1e-9)
            if gain >= GAIN:
                accepted += [Choice(path=path, form=form, gain=round(gain, 3)) for path, form in candidates.items()]
            else:
                holder["tower"] = before
        measured_paths.update(modules)
    return accepted


def _outermost(holder: nn.Module, measured_paths: Collection[str], prefix: str = "") -> dict[str, nn.Module]:
    """Return by path the modules with forms that lie in no other such module, but for those that were measured."""
    modules: dict[str, nn.Module] = {}
    for name, module in holder.named_children():
        path = prefix + name
        if path not in measured_paths and forms_of(module):
            modules[path] = module
        else:
            modules |= _outermost(module, measured_paths, f"{path}.")
    return modules


Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def _equivalence_groups(
    holder: nn.ModuleDict, modules: Mapping[str, nn.Module], sample: Tensor
) -> list[tuple[list[str], Inputs]]:
    """Return the paths of each group of modules of one kind, size and input, and the input of its first.

    Modules that the tower does not call are left out.
    """
    inputs_of: dict[str, Inputs] = {}

    def record(path: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs_of.setdefault(path, (args, kwargs))

    hooks = [
        module.register_forward_pre_hook(partial(record, path), with_kwargs=True) for path, module in modules.items()
    ]
    try:
        holder["tower"](sample)
    finally:
        for hook in hooks:
            hook.remove()
    groups: dict[str, list[str]] = defaultdict(list)
    for path, inputs in inputs_of.items():
        module = modules[path]
        kind = f"{type(module)} {module!r} {_map_tensors(inputs, lambda tensor: (tensor.shape, tensor.dtype))}"
        groups[kind].append(path)
    return [(paths, inputs_of[paths[0]]) for paths in groups.values()]


def _fastest(module: nn.Module, inputs: Inputs, repeats: int, measure: Measure) -> str | None:
    """Return the name of the fastest form of a module; None where none is faster than the module.

    Raises:
        PluginError: a form does not give what the module gives.
    """
    forms = forms_of(module)
    args, kwargs = _map_tensors(inputs, lambda tensor: _repeated(tensor, repeats))
    variants = [module, *(form.make().eval() for form in forms)]
    expected, *outputs = [variant(*args, **kwargs) for variant in variants]
    for form, output in zip(forms, outputs, strict=True):
        what = f"{type(module).__name__}: its form '{form.name}'"
        if not isinstance(expected, Tensor) or not isinstance(output, Tensor) or output.shape != expected.shape:
            raise PluginError(f"{what} gives no tensor of the same shape")
        largest = float(expected.abs().max())
        difference = float((output - expected).abs().max())
        if not difference <= TOLERANCE.get(expected.dtype, COARSE) * largest:
            raise PluginError(
                f"{what} differs by {difference:.3g} where the largest value is {largest:.3g}; build without optimize="
            )
    module_seconds, *seconds = measure([partial(variant, *args, **kwargs) for variant in variants])
    best = min(range(len(forms)), key=seconds.__getitem__)
    return forms[best].name if seconds[best] < module_seconds else None


def _sample(model: DualEncoder, side: str) -> Tensor:
    """Return one input of a tower, in which nothing can be left out."""
    modality, tower = model.modalities[side], model.towers[side]
    parameter = next(parameter for parameter in tower.parameters() if parameter.ndim > 1)
    sample = modality.example(tower, 1, modality.processor(model)).to(parameter.device)
    return sample.to(parameter.dtype) if sample.is_floating_point() else sample


def _repeated(tensor: Tensor, times: int) -> Tensor:
    return tensor.repeat(times, *[1] * (tensor.ndim - 1)) if tensor.ndim and len(tensor) == 1 else tensor


def _map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return arguments with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return tuple(_map_tensors(inner, change) for inner in cast("Sequence[Any]", value))
    if isinstance(value, dict):
        return {key: _map_tensors(inner, change) for key, inner in cast("dict[str, Any]", value).items()}
    return value


def _record_path(tower: nn.Module, sample: Tensor) -> Path:
    """Return the file of the choices for a tower, which is named by all that they depend on."""
    parameters = [(str(parameter.dtype), str(parameter.device)) for parameter in tower.parameters()]
    key = [__version__, torch.__version__, _machine(sample.device), torch.get_num_threads(), repr(tower)]
    digest = hashlib.sha256(json.dumps([*key, sorted(set(parameters)), list(sample.shape)]).encode())
    return user_cache_folder() / "inference" / f"{digest.hexdigest()}.json"


def _machine(device: torch.device) -> str:
    """Return name and abilities of the processor, since two of one name may differ in what they can do."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
