"""Addresses of models of the Hub: `hf-hub:organisation/name[@revision]`."""

from __future__ import annotations

import re

from zoo_core.errors import InputError, describe

__all__ = ["PREFIX", "parse_address"]

PREFIX = "hf-hub:"
"""How an address begins."""
_ADDRESS = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def parse_address(source: str) -> tuple[str, str | None]:
    """Return repository and revision (None for the main branch) of `hf-hub:organisation/name[@revision]`.

    Raises:
        InputError: it is no such address.
    """
    match = _ADDRESS.fullmatch(source.removeprefix(PREFIX))
    if match is None:
        raise InputError(
            f"{describe(source)}: expected {PREFIX}organisation/name or {PREFIX}organisation/name@revision"
        )
    return match["repo"], match["revision"]
