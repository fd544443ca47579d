"""`zoo list`, `zoo info` and `zoo plugins`: what there is, told without torch."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoo.commands.output import count, fields, show, show_json, table

__all__ = ["info_command", "list_command", "plugins_command"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_command(
    pattern: Annotated[str, typer.Argument(help="Shell pattern of names or aliases.")] = "*",
    json: AsJson = False,
) -> None:
    """List the architectures."""
    from zoo.catalog import registry
    from zoo.inventory import list_architectures

    found = list_architectures(pattern)
    if json:
        show_json([one.to_dict() for one in found])
        return
    if not found:
        hint = "" if "*" in pattern else f"; '*' stands for anything: '*{pattern}*'"
        typer.echo(f"no architecture matches '{pattern}'{hint}{registry().quarantine_note()}", err=True)
        return
    rows = [
        (one.name, "", "", "", one.problem)
        if one.problem is not None
        else (one.name, count(one.parameters), _size(one.image_size), one.embed_dim, ", ".join(one.aliases))
        for one in found
    ]
    show(table(("NAME", "PARAMETERS", "IMAGE", "EMBED", "ALIAS"), rows, right=("PARAMETERS", "IMAGE", "EMBED")))


def info_command(
    name: Annotated[str, typer.Argument(help="An architecture, a YAML file, or a saved folder.")],
    json: AsJson = False,
) -> None:
    """Show one architecture in full.

    Its size, where its parts come from, its pretrained weights and its resolved config.
    """
    from zoo.inventory import describe_model

    found = describe_model(name)
    if json:
        show_json(found)
        return
    import yaml

    parts = found["components"]
    show(
        fields(
            (
                ("name", found["name"]),
                ("description", found["description"]),
                ("aliases", ", ".join(found["aliases"]) or None),
                ("file", found["file"]),
                ("parameters", _exact(found["parameters"])),
                *((f"  {section}", _exact(tower["parameters"])) for section, tower in found["towers"].items()),
            )
        ),
        "",
        table(
            ("PART", "COMPONENT", "FROM", "CAPABILITIES"),
            [(section, part["name"], _origin(part), _abilities(part)) for section, part in parts.items()],
        ),
        "",
        table(("PRETRAINED", "DESCRIPTION"), found["pretrained"].items())
        if found["pretrained"]
        else "no pretrained weights",
        "",
        yaml.safe_dump(found["config"], sort_keys=False, default_flow_style=None, width=100).rstrip(),
    )


def plugins_command(json: AsJson = False) -> None:
    """List the plugins, their parts, and what is wrong."""
    from zoo.catalog import registry
    from zoo.inventory import clashes, describe_plugin

    claimed = clashes()
    found = [describe_plugin(plugin, claimed) for plugin in registry().plugins]
    if json:
        show_json(found)
        return
    plugins = [(one["name"], one["distribution"], one["version"], one["status"], one["reason"]) for one in found]
    parts = [
        (part["kind"], part["name"], one["name"], _abilities(part), part["summary"])
        for one in found
        for part in one["components"]
    ]
    show(
        table(("PLUGIN", "DISTRIBUTION", "VERSION", "STATUS", "REASON"), plugins),
        "",
        table(("KIND", "COMPONENT", "PLUGIN", "CAPABILITIES", "SUMMARY"), parts),
        *(f"clash: {clash}" for clash in claimed),
    )


def _size(size: tuple[int, int] | None) -> str:
    if size is None:
        return ""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def _exact(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


def _origin(part: dict[str, Any]) -> str:
    return f"{part['distribution']} {part['version']}"


def _abilities(part: dict[str, Any]) -> str:
    missing = f"needs {', '.join(part['missing'])}" if part["missing"] else ""
    return ", ".join(filter(None, (missing, *part["capabilities"])))
