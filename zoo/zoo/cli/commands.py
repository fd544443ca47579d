"""The commands of the program `zoo`.

torch is imported by the commands that compute, and by no other, so that help and listings come at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import zoo
from zoo.cli import checks, classify, data, embed, listing, profile, train, transfer
from zoo.cli.output import exit_on_error

__all__ = ["app"]


class _Commands(TyperGroup):
    """Turns errors into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        with exit_on_error():
            return super().invoke(ctx)


app = typer.Typer(
    name="zoo",
    cls=_Commands,
    help="A modular zoo of contrastive image-text models whose every part is a plugin.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    rich_markup_mode=None,  # plain help comes in half the time
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zoo {zoo.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Hold the options of the program itself; each is done with when its callback returns."""


app.command("list")(listing.list_command)
app.command("info")(listing.info_command)
app.command("plugins")(listing.plugins_command)
app.command("validate")(checks.validate_command)
app.command("schema")(checks.schema_command)
app.command("verify")(checks.verify_command)
app.command("identify")(checks.identify_command)
app.command("import")(transfer.import_command)
app.command("convert")(transfer.convert_command)
app.command("classify")(classify.classify_command)
app.command("embed")(embed.embed_command)
app.command("data")(data.data_command)
app.command("train")(train.train_command)
app.command("demo")(train.demo_command)
app.command("profile")(profile.profile_command)
app.command("pull")(transfer.pull_command)
app.command("push")(transfer.push_command)
