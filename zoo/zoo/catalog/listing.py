"""Listings of the installed architectures: names, sizes and problems.

The sizes of the architectures that ship with zoo are data, `listing.json`, so that a list need not validate 155 files.
They count while the files are byte for byte those that the sizes were computed from, and while this distribution's
own components are installed. Otherwise these architectures are validated, as those of other distributions always are.
`docs/generate_catalog.py` writes the data, and a test compares them with the validated configs.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.catalog.architectures import architectures, loader
from zoo_core.architectures import Architectures, Entry
from zoo_core.errors import ZooError

if TYPE_CHECKING:
    from zoo_core.config import ModelConfig

__all__ = ["DATA", "SHIPPED", "Listing", "digest_of", "list_architectures", "sizes_of"]

DATA = Path(__file__).with_name("listing.json")
SHIPPED = "zoo:architectures"
"""The folder whose sizes are recorded, as a plugin declares it."""


@dataclass(frozen=True)
class Listing:
    """One architecture of the list; where it cannot be used, `problem` says why and its numbers are None.

    `name` is what `zoo.build` takes: `distribution/name` where several distributions offer the name.
    """

    name: str
    aliases: tuple[str, ...]
    distribution: str
    parameters: int | None = None
    image_size: tuple[int, int] | None = None
    embed_dim: int | None = None
    description: str | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def list_architectures(pattern: str = "*") -> list[Listing]:
    """Return the architectures that a pattern means, by name or alias.

    Args:
        pattern: as in `zoo.list_models`.
    """
    catalog = architectures()
    names = set(catalog.names(pattern))
    offers = Counter(entry.name for entry in catalog.entries)
    recorded = _recorded_sizes(catalog)
    return [
        _listing(entry, catalog, qualified=offers[entry.name] > 1, sizes=recorded.get(entry.path))
        for entry in catalog.entries
        if entry.name in names
    ]


def sizes_of(config: ModelConfig) -> dict[str, Any]:
    """Return what a list shows of a validated architecture."""
    return {
        "parameters": config.parameter_count(),
        "image_size": config.vision.image_size if "image" in config.towers else None,
        "embed_dim": config.embed_dim,
        "description": config.description,
    }


def digest_of(entries: Iterable[Entry]) -> str:
    """Return one SHA-256 of the names and contents of architecture files."""
    digest = hashlib.sha256()
    for entry in entries:
        content = entry.path.read_bytes()
        digest.update(f"{entry.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _recorded_sizes(catalog: Architectures) -> dict[Path, dict[str, Any]]:
    """Return the recorded sizes by file; none where a file or a component is not what they were computed from."""
    shipped = [entry for entry in catalog.entries if entry.plugin.architectures == SHIPPED]
    data = json.loads(DATA.read_text(encoding="utf-8"))
    try:
        if digest_of(shipped) != data["sha256"]:
            return {}
        for kind, name in data["components"]:
            catalog.registry.get(kind, f"{shipped[0].plugin.distribution}/{name}")
    except (OSError, ZooError):
        return {}
    return {entry.path: data["sizes"][entry.name] for entry in shipped}


def _listing(entry: Entry, catalog: Architectures, *, qualified: bool, sizes: dict[str, Any] | None) -> Listing:
    name = f"{entry.plugin.distribution}/{entry.name}" if qualified else entry.name
    listing = Listing(name, entry.aliases, entry.plugin.distribution)
    try:
        if sizes is None:
            return replace(listing, **sizes_of(loader().load(name)))
        catalog.find(name)  # another plugin's alias may make the name ambiguous
        return replace(listing, **sizes | {"image_size": tuple(sizes["image_size"])})
    except ZooError as error:
        return replace(listing, problem=str(error))
    except Exception as error:  # a stranger's config class may raise anything
        return replace(listing, problem=f"{type(error).__name__}: {' '.join(str(error).split())}")
