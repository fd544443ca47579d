"""Discovery of plugins: entry points, and what each module declares.

Each plugin is loaded on its own. One that fails to import in whatever way, declares nonsense or was built for another
API is quarantined: its `error` says why, and nothing else is harmed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import redirect_stdout, suppress
from importlib.resources.abc import Traversable
from itertools import islice
from typing import Any, TypeVar, cast

from zoo_core.boundary.plugin_code import Interrupts
from zoo_core.errors import PluginError, describe, reason
from zoo_core.plugin import (
    API_VERSION,
    ENTRY_POINT_GROUP,
    KINDS,
    MODALITIES,
    ComponentSpec,
    ModalitySpec,
    call_hooks,
)
from zoo_core.registry.component import Plugin, normalised, resolve

__all__ = ["entry_points", "load_plugin", "origin_of", "package_folder"]

Spec = TypeVar("Spec", ComponentSpec, ModalitySpec)

MODEL_CONFIG = "zoo_core.config.dual_encoder:AnyModalityConfig"
"""The config whose sections modalities declare. It stands above the registry, see `zoo_core.registry.component`."""

MAX_DECLARED = 1_000
"""Components, exports or importers of one plugin; more are no declaration, but a generator without an end."""


def entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    """Return the entry points of the group `zoo.plugins`."""
    try:
        return importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    except Exception:  # one malformed entry_points.txt, of whatever package, spoils the list of all
        entries: dict[tuple[str, str], importlib.metadata.EntryPoint] = {}
        for distribution in importlib.metadata.distributions():
            with suppress(Exception):
                for entry in distribution.entry_points.select(group=ENTRY_POINT_GROUP):
                    entries.setdefault((normalised(origin_of(entry.dist)[0]), entry.name), entry)
        return entries.values()


def origin_of(distribution: importlib.metadata.Distribution | None) -> tuple[str, str]:
    """Return name and version; metadata that was half removed has neither."""
    name: str | None = distribution.name if distribution is not None else None
    version: str | None = distribution.version if distribution is not None else None
    return name or "unknown", version or "0"


def load_plugin(name: str, target: str, distribution: str, version: str) -> Plugin:
    """Import one plugin module and collect its declarations; any failure becomes the plugin's `error`."""
    with Interrupts() as interrupts, redirect_stdout(sys.stderr):  # what a plugin prints is no output of a command
        try:
            return _declared(name, target, distribution, version)
        except BaseException as error:
            if interrupts.arrived:
                raise KeyboardInterrupt from error
            return Plugin(name=name, target=target, distribution=distribution, version=version, error=reason(error))


def _declared(name: str, target: str, distribution: str, version: str) -> Plugin:
    module = resolve(target)
    api_version = getattr(module, "ZOO_API_VERSION", None)
    if api_version != API_VERSION:
        built_for = "no API version" if api_version is None else f"API version {api_version}"
        raise PluginError(
            f"it declares {built_for}, this zoo speaks API version {API_VERSION}; "
            f"set ZOO_API_VERSION = {API_VERSION} once the plugin follows it, or install a matching release"
        )
    answers = call_hooks(module, name)
    components = _specs("zoo_components", "component specs", ComponentSpec, answers)
    return Plugin(
        name=name,
        target=target,
        distribution=distribution,
        version=version,
        components=components,
        modalities=_modalities(answers),
        architectures=_folder_name("zoo_architectures", answers),
        pretrained=_folder_name("zoo_pretrained", answers),
        recipes=_folder_name("zoo_recipes", answers),
        exports=_targets("zoo_exports", answers),
        importers=_targets("zoo_importers", answers),
    )


def _specs(hook: str, what: str, kind: type[Spec], answers: Mapping[str, object]) -> tuple[Spec, ...]:
    """Return the specs that a hook gave, each of another name within its kind."""
    answer = answers.get(hook, ())
    if not isinstance(answer, Iterable):
        raise TypeError(f"{hook} must return {what}, found {type(answer).__name__}")
    specs = tuple(islice(cast("Iterable[object]", answer), MAX_DECLARED + 1))
    if len(specs) > MAX_DECLARED:
        raise ValueError(f"{hook} declares more than {MAX_DECLARED} {hook.removeprefix('zoo_')}")
    labels: set[str] = set()
    for spec in specs:
        if not isinstance(spec, kind):
            raise TypeError(f"{hook} must return {what}, found {type(spec).__name__}")
        label = f"{spec.kind if isinstance(spec, ComponentSpec) else 'modality'} '{spec.name}'"
        if label in labels:
            raise ValueError(f"{hook} declares {label} twice")
        labels.add(label)
    return cast("tuple[Spec, ...]", specs)


def _modalities(answers: Mapping[str, object]) -> tuple[ModalitySpec, ...]:
    """Return the modalities that a plugin declares, if they take no name that is zoo's own."""
    modalities = _specs("zoo_modalities", "modality specs", ModalitySpec, answers)
    for modality in modalities:
        for field in ("name", "section", "processor", "module", "tower_kind", "processor_kind"):
            value = getattr(modality, field)
            if value in KINDS or any(value == getattr(taken, field) for taken in MODALITIES):
                raise ValueError(f"modality '{modality.name}': {field} '{value}' is zoo's own; choose another")
    keys = [key for modality in modalities for key in (modality.section, modality.processor)]
    taken = _keys_of_models() if keys else ()
    for key in keys:
        if key in taken:
            raise ValueError(f"zoo_modalities declares the section '{key}', which is a key of models; choose another")
        if keys.count(key) > 1:
            raise ValueError(f"zoo_modalities declares the section '{key}' twice; choose another")
    return modalities


def _keys_of_models() -> Collection[str]:
    """Return the keys that an architecture has beside its sections, and the names that its config has for other things.

    A section of such a name would be out of reach.
    """
    config: Any = resolve(MODEL_CONFIG)
    return {"extends", *config.model_fields, *dir(config)}


def _folder_name(hook: str, answers: Mapping[str, object]) -> str | None:
    answer = answers.get(hook)
    if answer is None:
        return None
    if not isinstance(answer, str):
        raise TypeError(f"{hook} must return 'package:folder', found {type(answer).__name__}")
    if not package_folder(answer).is_dir():
        raise FileNotFoundError(f"{hook} names {answer!r}, which is no folder")
    return answer


def _targets(hook: str, answers: Mapping[str, object]) -> Mapping[str, str]:
    answer = answers.get(hook, {})
    if not isinstance(answer, Mapping):
        raise TypeError(f"{hook} must return a mapping, found {type(answer).__name__}")
    targets: dict[str, str] = {}
    for name, target in islice(cast("Mapping[object, object]", answer).items(), MAX_DECLARED + 1):
        if len(targets) == MAX_DECLARED:
            raise ValueError(f"{hook} declares more than {MAX_DECLARED} names")
        if not (isinstance(name, str) and isinstance(target, str) and ":" in target):
            raise TypeError(f"{hook} maps names to 'module:attribute', found {describe(name)}: {describe(target)}")
        targets[name] = target
    return targets


def package_folder(target: str) -> Traversable:
    """Return the folder that `"package:folder"` stands for."""
    package, _, path = target.partition(":")
    return importlib.resources.files(package).joinpath(path) if path else importlib.resources.files(package)
