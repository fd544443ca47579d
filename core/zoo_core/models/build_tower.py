"""Construction of towers from their configs, within a bound on their size."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import nn

from zoo_core.config import TowerConfig
from zoo_core.errors import ConfigError, PluginError, Problem, ZooError, describe
from zoo_core.interfaces import Tower
from zoo_core.registry import Component, Registry

__all__ = ["build_tower", "construct", "expect_attributes", "parameters_on_meta"]

MOST_MODULES = 25_000
"""Modules that a tower may consist of, parts of parts included; the largest that are published have some 3,000."""

T = TypeVar("T", bound=Tower)


def build_tower(registry: Registry, config: TowerConfig, embed_dim: int, interface: type[T] = Tower) -> T:
    """Build the tower of a config and check that it is what its kind promises.

    Raises:
        ConfigError: the config does not go with this `embed_dim`; every problem is named.
        PluginError: the factory failed or returned something else, or a tower of another width or input.
        MissingDependencyError: a package that it needs is not installed.
    """
    component = registry.get(config.kind, config.component)
    broken = [Problem(message, key, type(config).__name__) for key, message in config.rules_for(embed_dim)]
    if broken:
        raise ConfigError(broken)
    tower = cast("T", construct(component, config, embed_dim))
    expect_attributes(component, tower, config, embed_dim)
    return tower


def expect_attributes(component: Component, tower: Tower, config: TowerConfig, embed_dim: int) -> None:
    """Raise a `PluginError` where a tower tells another width or other inputs than its config."""
    for name, promise in {"output_dim": embed_dim, "modality": config.modality, **config.attributes()}.items():
        value = getattr(tower, name, None)
        if value != promise:
            raise PluginError(f"{component}: {name} of the tower must be {promise}, found {describe(value)}")


def construct(component: Component, config: TowerConfig, embed_dim: int) -> Any:
    """Call the factory of a tower.

    On the meta device tensors have no values, and a factory that computes with some fails there. It is called once more
    on the CPU, with its parameters on the meta device; what it computed follows them.

    Raises:
        ConfigError: the tower would consist of more than `MOST_MODULES` modules; building it was given up there.
    """
    with _few_modules(config):
        try:
            return component.build(config, embed_dim=embed_dim)
        except ZooError as error:
            if error.__cause__ is None or torch.get_default_device().type != "meta":
                raise
        with torch.device("cpu"), parameters_on_meta():
            built = component.build(config, embed_dim=embed_dim)
        return built.to("meta") if isinstance(built, nn.Module) else built


@contextmanager
def _few_modules(config: TowerConfig) -> Generator[None]:
    thread, count = threading.get_ident(), 0

    def note(module: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > MOST_MODULES:
            message = f"'{config.component}' would consist of more than {MOST_MODULES:,} modules; give it fewer layers"
            raise ConfigError(Problem(message, config.kind.removesuffix("-tower")))

    register: Any = nn.modules.module.register_module_module_registration_hook
    handle = register(note)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def parameters_on_meta() -> Generator[None]:
    """Within this block every parameter that this thread gives a module is put on the meta device; buffers are real.

    So what a tower computes for itself can be had without the memory and the time that its weights would take.
    """
    thread = threading.get_ident()

    def moved(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or threading.get_ident() != thread:
            return parameter
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    register: Any = nn.modules.module.register_module_parameter_registration_hook
    handle = register(moved)
    state = torch.random.get_rng_state()
    try:
        yield
    finally:
        handle.remove()
        torch.random.set_rng_state(state)
