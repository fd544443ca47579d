"""Declares the importer of open_clip's model configs, and the layout of its folders."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the part of this plugin."""
    yield ComponentSpec(
        kind="checkpoint-format",
        name="open-clip",
        config="zoo_openclip.config:OpenClipFormatConfig",
        factory="zoo_openclip.layout:OpenClip",
        summary="Folders of open_clip, and its repositories on the Hub; read and written",
    )


@hookimpl
def zoo_importers() -> dict[str, str]:
    """Offer the reader of open_clip's JSON."""
    return {"open_clip": "zoo_openclip.importing:import_open_clip"}
