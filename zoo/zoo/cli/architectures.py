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
    rows: list[tuple[object, ...]] = []
    for listing in listings:
        if listing.problem is not None:
            rows.append((listing.name, "", "", "", listing.problem))
            continue
        image = ""  # of a model without images
        if listing.image_size is not None:
            height, width = listing.image_size
            image = str(height) if height == width else f"{height}x{width}"
        aliases = ", ".join(listing.aliases)
        rows.append((listing.name, count(listing.parameters), image, listing.embed_dim, aliases))
    show(table(("NAME", "PARAMETERS", "IMAGE", "EMBED", "ALIAS"), rows, right=("PARAMETERS", "IMAGE", "EMBED")))
