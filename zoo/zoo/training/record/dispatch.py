"""Callbacks of a run: how they are built, and how they are told of what happens.

A callback that fails is reported once and told on, since what it writes to may come back. It stops the run where its
config says `strict: true`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo_core.boundary.plugin_code import PluginCode
from zoo_core.errors import ZooError, reason
from zoo_core.registry import Registry, default_registry
from zoo_core.training import Callback

if TYPE_CHECKING:
    from zoo_core.config import CallbackConfig

__all__ = ["Listener", "build_callbacks", "tell"]


@dataclass
class Listener:
    """A callback with its name in messages.

    Attributes:
        failed: whether an error in it was reported already.
    """

    callback: Callback
    name: str
    strict: bool = False
    failed: bool = False

    @classmethod
    def of(cls, callback: Callback) -> Listener:
        """Return a listener for a callback that somebody made without a config."""
        return cls(callback, f"callback {type(callback).__qualname__}")


def build_callbacks(configs: Sequence[CallbackConfig], registry: Registry | None = None) -> list[Listener]:
    """Return the callbacks of `log.to`, in its order.

    Raises:
        MissingDependencyError: the package that one writes with is not installed.
        PluginError: one cannot be built.
    """
    components = registry or default_registry()
    listeners: list[Listener] = []
    for config in configs:
        component = components.get("callback", config.component)
        listeners.append(Listener(component.build(config), str(component), config.strict))
    return listeners


def tell(
    listeners: Sequence[Listener], method: str, call: Callable[[Callback], None], report: Callable[[str], None]
) -> None:
    """Tell every listener of an event.

    Args:
        listeners: who is told.
        method: what the event is called, for messages.
        call: calls the method of a callback.
        report: called with what is wrong, once for each listener.

    Raises:
        ZooError: a strict callback failed, after all others were told.
    """
    strict: list[ZooError | Warning] = []
    for listener in listeners:
        try:
            with PluginCode(listener.name, f"{method} failed"):
                call(listener.callback)
        except (ZooError, Warning) as error:
            if listener.strict:
                strict.append(error)
            elif not listener.failed:
                report(f"{reason(error)}; the run goes on without it where it fails, and this is said once")
                listener.failed = True
    if strict:
        raise strict[0]
