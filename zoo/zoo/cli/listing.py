"""The commands `zoo list`, `zoo info` and `zoo plugins`.

None of them imports torch, but for the layer groups of `zoo info`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoo.cli.architectures import show_architectures
from zoo.cli.output import show, show_json
from zoo.cli.tables import fields, table

__all__ = ["info_command", "list_command", "plugins_command"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_command(
    pattern: Annotated[str, typer.Argument(help="A name, a part of names, or a shell pattern.")] = "*",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="List the weights that there are for them.")] = False,
    license: Annotated[str | None, typer.Option(help="List the weights under a licence, such as apache-2.0.")] = None,
    json: AsJson = False,
) -> None:
    """List the architectures, or their pretrained weights."""
    if pretrained or license is not None:
        _list_pretrained(pattern, license, json)
    else:
        show_architectures(pattern, json=json)


def _list_pretrained(pattern: str, license: str | None, json: bool) -> None:
    from zoo.catalog.pretrained import list_pretrained

    tags_of = list_pretrained(pattern, license=license)
    if json:
        show_json(
            {
                name: {tag: {"terms": entry.terms} | entry.data() for tag, entry in tags.items()}
                for name, tags in tags_of.items()
            }
        )
        return
    if not tags_of:
        under = "" if license is None else f" under the licence '{license}'"
        typer.echo(f"no weights{under} are known for '{pattern}'", err=True)
        return
    rows = [
        (name, tag, entry.place, entry.activation, entry.license)
        for name, tags in tags_of.items()
        for tag, entry in tags.items()
    ]
    show(table(("NAME", "PRETRAINED", "FROM", "ACTIVATION", "LICENSE"), rows))


def info_command(
    name: Annotated[str, typer.Argument(help="NAME or NAME:TAG, a YAML file, a folder with a model, or hf-hub:.")],
    groups: Annotated[bool, typer.Option("--groups", help="Show the layer groups that locking counts.")] = False,
    lock_image: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The same with all but N groups of the image tower locked.")
    ] = None,
    lock_text: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The same with all but N groups of the text tower locked.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show one architecture in full.

    Its size, where its parts come from, its pretrained weights and its resolved config; or, of each tower, the
    layer groups, counted from the output as locking counts them.
    """
    if groups or lock_image is not None or lock_text is not None:
        _show_groups(name, lock_image, lock_text, json)
        return
    from zoo.building.describe import describe_model
    from zoo.catalog.pretrained import licence_for_people
    from zoo_core.text.contract import TextContract

    model = describe_model(name)
    if json:
        show_json(model)
        return
    import yaml

    contract = model["text_contract"]
    show(
        fields(
            (
                ("name", model["name"]),
                ("description", model["description"]),
                ("aliases", ", ".join(model["aliases"]) or None),
                ("file", model["file"]),
                ("parameters", _exact(model["parameters"])),
                *((f"  {section}", _exact(tower["parameters"])) for section, tower in model["towers"].items()),
            )
        ),
        "",
        *((table(("TEXT", "CONTRACT"), TextContract(**contract).sentences()), "") if contract else ()),
        table(
            ("PART", "COMPONENT", "FROM", "CAPABILITIES"),
            [
                (section, part["name"], f"{part['distribution']} {part['version']}", _abilities(part))
                for section, part in model["components"].items()
            ],
        ),
        "",
        table(
            ("PRETRAINED", "FROM", "LICENSE", "PREPROCESSING", "DESCRIPTION"),
            [
                (
                    tag,
                    entry["from"],
                    licence_for_people(entry["license"], entry["terms"]),
                    ", ".join(f"{key}={value}" for key, value in entry["preprocess"].items()) or "as the architecture",
                    entry["description"],
                )
                for tag, entry in model["pretrained"].items()
            ],
        )
        if model["pretrained"]
        else "no pretrained weights",
        "",
        yaml.safe_dump(model["config"], sort_keys=False, default_flow_style=None, width=100).rstrip(),
    )


def plugins_command(json: AsJson = False) -> None:
    """List the plugins, their parts, and what is wrong."""
    from zoo.building.describe import clashes, describe_plugin
    from zoo.catalog.architectures import registry

    claimed = clashes()
    plugins = [describe_plugin(plugin, claimed) for plugin in registry().plugins]
    if json:
        show_json(plugins)
        return
    columns = ("name", "distribution", "version", "status", "reason")
    parts = [
        (part["kind"], part["name"], plugin["name"], _abilities(part), part["summary"])
        for plugin in plugins
        for part in plugin["components"]
    ]
    show(
        table(
            ("PLUGIN", "DISTRIBUTION", "VERSION", "STATUS", "REASON"),
            [[plugin[column] for column in columns] for plugin in plugins],
        ),
        "",
        table(("KIND", "COMPONENT", "PLUGIN", "CAPABILITIES", "SUMMARY"), parts),
        *(f"clash: {clash}" for clash in claimed),
    )


def _show_groups(name: str, lock_image: int | None, lock_text: int | None, json: bool) -> None:
    from zoo.building.layer_groups import layer_groups

    locks = {"image": lock_image, "text": lock_text}
    groups_of = layer_groups(name, {tower: count for tower, count in locks.items() if count is not None})
    if json:
        show_json({section: [group.to_dict() for group in groups] for section, groups in groups_of.items()})
        return
    rows: list[tuple[object, ...]] = []
    for section, groups in groups_of.items():
        for group in groups:
            first, *others = group.names or ("none",)
            names = f"{first} and {len(others)} more" if others else first
            trainable = "yes" if group.trainable else "no"
            if 0 < group.trainable < group.parameters:
                trainable = "partly"
            rows.append((section, group.number, names, _exact(group.parameters), trainable))
    columns = ("TOWER", "GROUP", "FIRST PARAMETER", "PARAMETERS", "TRAINABLE")
    show(table(columns, rows, right=("GROUP", "PARAMETERS")))


def _exact(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


def _abilities(part: dict[str, Any]) -> str:
    missing = f"needs {', '.join(part['missing'])}" if part["missing"] else ""
    return ", ".join(filter(None, (missing, *part["capabilities"])))
