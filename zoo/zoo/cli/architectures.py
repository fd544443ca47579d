"""The list of architectures, as a table or JSON.

typer is not imported here, so that a plain `zoo list` need not wait for it.
"""

from __future__ import annotations

import sys

from zoo.cli.output import count, show, show_json
from zoo.cli.tables import table

__all__ = ["show_architectures"]


def show_architectures(pattern: str = "*", *, json: bool = False) -> None:
    """Print the architectures that a pattern means."""
    from zoo.catalog.architectures import registry
    from zoo.catalog.listing import list_architectures

    listings = list_architectures(pattern)
    if json:
        show_json([listing.to_dict() for listing in listings])
        return
    if not listings:
        print(f"no architecture matches '{pattern}'{registry().quarantine_note()}", file=sys.stderr)
        return
    rows = [
        (listing.name, "", "", "", listing.problem)
        if listing.problem is not None
        else (
            listing.name,
            count(listing.parameters),
            _size(listing.image_size),
            listing.embed_dim,
            ", ".join(listing.aliases),
        )
        for listing in listings
    ]
    show(table(("NAME", "PARAMETERS", "IMAGE", "EMBED", "ALIAS"), rows, right=("PARAMETERS", "IMAGE", "EMBED")))


def _size(size: tuple[int, int] | None) -> str:
    if size is None:
        return ""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"
