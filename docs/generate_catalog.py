"""Write what the catalog knows of the shipped architectures.

`python docs/generate_catalog.py` takes some minutes; with the argument `listing` it takes seconds and writes the first
of two files: `listing.json` holds the sizes that `zoo list` shows, `state_dict_shapes.json.gz` the entries of each
state dict. The suite compares both with the configs and the models.
"""

from __future__ import annotations

import json
import sys

from zoo.catalog.architectures import architectures, load_config
from zoo.catalog.listing import DATA, SHIPPED, digest_of, sizes_of
from zoo.catalog.state_dict_shapes import TABLE, Shape, encode
from zoo.materialize.skeleton import skeleton
from zoo_core.config import ComponentConfig, ModelConfig

ENTRIES = [entry for entry in architectures().entries if entry.plugin.architectures == SHIPPED]


def listing() -> str:
    """Return the sizes of every architecture, with the files and components that they were computed from."""
    configs = {entry.name: load_config(f"{entry.plugin.distribution}/{entry.name}") for entry in ENTRIES}
    parts = {(part.kind, part.component) for config in configs.values() for part in components(config)}
    data = {"sha256": digest_of(ENTRIES), "components": sorted(parts)}
    sizes = ",\n".join(f"  {json.dumps(name)}: {json.dumps(sizes_of(config))}" for name, config in configs.items())
    return json.dumps(data)[:-1] + f', "sizes": {{\n{sizes}\n}}}}\n'


def components(config: ModelConfig) -> list[ComponentConfig]:
    """Return a model's config and those of its sections that stand for components."""
    sections = (getattr(config, key) for key in type(config).model_fields)
    return [config, *(section for section in sections if isinstance(section, ComponentConfig))]


def shapes(name: str) -> dict[str, Shape]:
    """Return what the state dict of an architecture holds, built without its memory."""
    return {key: tuple(value.shape) for key, value in skeleton(load_config(name)).state_dict().items()}


if __name__ == "__main__":
    DATA.write_text(listing(), encoding="utf-8")
    if sys.argv[1:] != ["listing"]:
        TABLE.write_bytes(encode({entry.name: shapes(entry.name) for entry in ENTRIES}))
