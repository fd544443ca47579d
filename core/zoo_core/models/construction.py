"""Calling the factory of a tower, also where tensors have no values, and never for longer than its size allows."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from zoo_core.config import TowerConfig
from zoo_core.errors import ConfigError, Problem, ZooError
from zoo_core.registry import Component

__all__ = ["construct", "parameters_on_meta"]

MOST_MODULES = 25_000
"""Modules that a tower may consist of, parts of parts included; the largest that are published have some 3,000."""


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
