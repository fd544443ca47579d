"""Declares the importer of open_clip's model configs."""

from zoo_core.plugin import hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_importers() -> dict[str, str]:
    """Offer the reader of open_clip's JSON."""
    return {"open_clip": "zoo_openclip.importing:import_open_clip"}
