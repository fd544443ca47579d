"""Requests to the Hub: what is not taken from its answers, and who else asks it."""

from __future__ import annotations

import ast
from pathlib import Path

import huggingface_hub
import pytest

import zoo
from zoo_core.errors import DownloadError
from zoo_core.hub.request import HubRequest


@pytest.mark.parametrize("commit", [None, "", "../../x", "A" * 40])
def test_a_commit_that_is_none_is_not_taken_from_the_list_of_files(
    commit: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = huggingface_hub.hf_api.ModelInfo(id="acme/part", sha=commit, siblings=[])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    with pytest.raises(
        DownloadError, match=f"acme/part: the Hub tells a commit that is none: '{commit or ''}'; try again"
    ):
        HubRequest("acme/part").list_files()


def test_nothing_but_the_door_and_the_push_asks_the_client() -> None:
    """The Hub's client is imported by `zoo_core.hub`, and by what writes to the Hub."""
    root = Path(zoo.__file__).parents[2]
    sources = [path for place in ("core", "plugins", "zoo") for path in (root / place).rglob("*.py")]
    importing = {
        path.relative_to(root).as_posix()
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom | ast.Import)
        and any(
            "huggingface_hub" in (name or "")
            for name in (getattr(node, "module", ""), *(one.name for one in node.names))
        )
    }
    assert {path for path in importing if not path.startswith("core/zoo_core/hub/")} == {"zoo/zoo/transfer/push.py"}
