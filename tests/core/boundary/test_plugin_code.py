"""Code of plugins: nothing that it raises or returns takes zoo down, or reaches users without its owner's name."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.plugins import Install, hooks, spec
from zoo_core.boundary.plugin_code import Interrupts, PluginCode
from zoo_core.errors import PluginError, reason
from zoo_core.registry import Registry


class Escaping(BaseException):
    """An error that no `except Exception` stops."""


class Speechless(BaseException):
    def __str__(self) -> str:
        raise Escaping


RAISED: dict[str, tuple[BaseException, str]] = {
    "interrupt without a signal": (KeyboardInterrupt(), "KeyboardInterrupt"),
    "cancelled": (asyncio.CancelledError("stop"), "CancelledError: stop"),
    "generator exit": (GeneratorExit(), "GeneratorExit"),
    "own base exception": (Escaping("out"), "Escaping: out"),
    "no words": (Speechless(), "Speechless"),
    "exit": (SystemExit("bye"), "SystemExit: bye"),
    "recursion": (RecursionError("deep"), "RecursionError: deep"),
}
"""What a plugin raises, and how zoo tells it."""


@pytest.mark.parametrize(("error", "told"), RAISED.values(), ids=RAISED)
def test_whatever_a_plugin_raises_it_is_quarantined_alone(install: Install, error: BaseException, told: str) -> None:
    registry = install({"acme": hooks(components=error), "good": hooks(components=[spec("fine")])})
    assert [(one.distribution, one.error) for one in registry.quarantined] == [("acme", told)]
    assert registry.get("vision-tower", "fine").plugin.distribution == "good"


@pytest.mark.parametrize("line", ["raise KeyboardInterrupt", "import asyncio; raise asyncio.CancelledError"])
def test_whatever_a_plugins_module_raises_it_is_quarantined(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    (tmp_path / "escaping_plugin.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    assert [one.distribution for one in install({"acme": "escaping_plugin"}).quarantined] == ["acme"]


def interrupted() -> Iterator[Any]:
    signal.raise_signal(signal.SIGINT)
    yield spec()


def interrupted_with_another_error() -> Iterator[Any]:
    try:
        signal.raise_signal(signal.SIGINT)
        yield spec()
    except KeyboardInterrupt:
        raise RuntimeError("cleaning up") from None


@pytest.fixture
def ctrl_c() -> Iterator[Any]:
    """Python's own handler, which a shell that starts the tests in the background takes away."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("specs", [interrupted, interrupted_with_another_error])
def test_ctrl_c_of_the_user_ends_discovery(install: Install, ctrl_c: Any, specs: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        install({"acme": hooks(components=specs())})
    assert signal.getsignal(signal.SIGINT) is ctrl_c


def test_plugins_are_found_in_any_thread(install: Install) -> None:
    install({"acme": hooks(components=KeyboardInterrupt()), "good": hooks(components=[spec()])})
    found: list[Registry] = []
    thread = threading.Thread(target=lambda: found.append(Registry.discover()))
    thread.start()
    thread.join()
    assert [one.distribution for one in found[0].quarantined] == ["acme"]


def test_a_handler_that_a_plugin_sets_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with Interrupts():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


ENDLESS = {
    "specs": (
        {"components": (spec(f"conv-{number}") for number in itertools.count())},
        "ValueError: zoo_components declares more than 1000 components",
    ),
    "exports": (
        {"exports": {f"Conv{number}": "a:B" for number in range(2_000)}},
        "ValueError: zoo_exports declares more than 1000 names",
    ),
}


@pytest.mark.parametrize(("answers", "told"), ENDLESS.values(), ids=ENDLESS)
def test_a_plugin_that_declares_without_end_is_quarantined(install: Install, answers: Any, told: str) -> None:
    assert [one.error for one in install({"acme": hooks(**answers)}).quarantined] == [told]


def test_an_error_is_told_in_one_line_whatever_its_words_do() -> None:
    assert reason(Speechless()) == "Speechless"
    assert len(reason(ValueError("x" * 10**6))) < 400


def failing(config: object, **_: object) -> None:
    raise KeyError("width")


def giving_nothing(config: object, **_: object) -> None:
    return None


FACTORIES = {
    "vision-tower": "must return a VisionTower, found NoneType",
    "text-tower": "must return a TextTower, found NoneType",
    "model": "must return a DualEncoder, found NoneType",
    "tokenizer": "must return a Tokenizer, found NoneType",
    "loss": "must return a Loss, found NoneType",
    "preprocessor": "must return a Preprocessor, found NoneType",
    "checkpoint-format": "must return a CheckpointFormat, found NoneType",
    "dataset": "must return a SampleSource, found NoneType",
    "optimizer": "must return an Optimizer, found NoneType",
    "callback": "must return a Callback, found NoneType",
    "evaluator": "must return an Evaluator, found NoneType",
}


@pytest.mark.parametrize(("kind", "told"), FACTORIES.items(), ids=FACTORIES)
def test_a_factory_that_fails_or_gives_something_else_names_its_component(
    install: Install, kind: Any, told: str
) -> None:
    for factory, ending in ((giving_nothing, told), (failing, f"{__name__}:failing failed: KeyError: 'width'")):
        declared = spec(kind=kind, factory=f"{__name__}:{factory.__name__}")
        component = install({"acme": hooks(components=[declared])}).get(kind, "conv")
        with pytest.raises(PluginError) as raised:
            component.build(None)
        assert str(raised.value) == f"{kind} 'conv' of acme 1.0: its factory {ending}"


@pytest.mark.parametrize("error", [PluginError("ours"), MemoryError(), DeprecationWarning("old")])
def test_what_is_no_fault_of_a_plugin_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, PluginCode("acme", "it failed"):
        raise error
    assert raised.value is error
