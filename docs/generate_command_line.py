"""Write docs/command-line.md from the commands themselves: `python docs/generate_command_line.py`.

The suite compares the file with what this module returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from zoo.cli.commands import app

TARGET = Path(__file__).with_name("command-line.md")

INTRODUCTION = """# The command line

`zoo COMMAND --help` says what stands here. `python -m zoo` is the same program. This page is generated: run
`python docs/generate_command_line.py` after changing a command.

A command prints one line for an error, and `ZOO_DEBUG=1` adds the traceback. It exits with 0, with 1 where it found
something (`zoo verify`, files that were skipped), with 2 for an error and with 130 when interrupted. Listings and help
import no torch.

| variable | what it does |
|---|---|
| `ZOO_HOME` | folder of the lock file and of what zoo remembers, in place of the platform's for data and cache |
| `ZOO_DISABLE_PLUGINS` | names of plugins or distributions to leave out, separated by commas |
| `ZOO_HUB_TIMEOUT` | seconds without progress after which a download is given up |
| `ZOO_DEBUG` | show the traceback of an error |
| `HF_HUB_OFFLINE` | never ask the Hugging Face Hub |
"""


def page() -> str:
    """Return the page."""
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009
    return "\n".join([INTRODUCTION, *(line for name, command in commands.items() for line in _chapter(name, command))])


def _chapter(name: str, command: Any) -> Iterator[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    usage = " ".join(["zoo", name, *(_metavar(argument) for argument in arguments), "[OPTIONS]"])
    yield f"## zoo {name}\n\n    {usage}\n\n{command.help}\n"
    if command.params:
        yield "| argument or option | what it is | default |\n|---|---|---|"
        for parameter in [*arguments, *(other for other in command.params if other not in arguments)]:
            text = (parameter.help or "").replace("|", "\\|")
            yield f"| {_spellings(parameter)} | {text} | {_default(parameter)} |"
        yield ""


def _spellings(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`"
    return ", ".join(f"`{spelling}`" for spelling in (*parameter.opts, *parameter.secondary_opts))


def _metavar(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).removesuffix("...") + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    return f"`{value}`" if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
