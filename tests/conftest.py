"""What every test stands on: zoo is installed, nothing reaches the network, long sweeps wait for `--slow`."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads wait for each other on a busy machine
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("COLUMNS", None)  # pytest-xdist tells its workers a width, and tables would take it for the terminal's

import pytest

LOOPBACK = ("127.", "::1", "localhost")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the long parity sweeps")
    parser.addoption("--huge", action="store_true", help="with --slow: every architecture at full size, for hours")


def pytest_configure(config: pytest.Config) -> None:
    try:
        importlib.metadata.distribution("clip-zoo")
    except importlib.metadata.PackageNotFoundError:
        pytest.exit(f"zoo is not installed in {sys.prefix}; run: pip install -e '.[test]'", returncode=3)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in ("slow", "huge"):
            if mark in item.keywords and not config.getoption(f"--{mark}"):
                item.add_marker(pytest.mark.skip(reason=f"a long sweep; run with --slow{' --huge' * (mark == 'huge')}"))
                break


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(host).startswith(LOOPBACK):
            raise AssertionError(f"a test tried to reach {address!r}; tests have no network")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture(autouse=True)
def slow_dtypes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have said already which dtypes this processor is slow in: tests of something else run on any."""
    from zoo_core.nn import processors

    monkeypatch.setattr(processors, "_told", {*processors._X86, *processors._ARM})


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tokenizers of transformers by kind, each in its folder."""
    from support.tokenizers.tiny_tokenizers import MAKERS

    root = tmp_path_factory.mktemp("tokenizers")
    return {name: make(root / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="session")
def every_folder(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same, and one that is written in Python."""
    from transformers import ByT5Tokenizer

    folder = tmp_path_factory.mktemp("python")
    ByT5Tokenizer(extra_ids=5).save_pretrained(folder)
    return folders | {"python": folder}


@pytest.fixture(scope="module")
def width_first() -> Iterator[None]:
    """Have Pillow resample the width before the height, as every version before 13 does, so that peers do too."""
    from PIL import Image

    resize = Image.Image.resize

    def in_two_steps(self: Image.Image, size: Any, *args: Any, **kwargs: Any) -> Image.Image:
        return resize(resize(self, (size[0], self.height), *args, **kwargs), size, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", in_two_steps)
        yield
