"""The program `zoo`: its commands, and what becomes of an error.

torch is imported by the commands that compute, and by no other, so that help and listings come at once.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import zoo
from zoo.cli import checks, classify, convert, demo, embed, import_config, listing, profile, transfer
from zoo.cli.output import report, report_warning
from zoo_core.errors import ZooError, ZooWarning

__all__ = ["app", "main"]

FAILED = 2
INTERRUPTED = 130
"""128 and the number of the signal, as shells count; the same for the next."""
PIPE_CLOSED = 141


class _Commands(TyperGroup):
    """Turns errors into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise typer.Exit(PIPE_CLOSED) from None
        except (ZooError, OSError) as error:
            if os.environ.get("ZOO_DEBUG"):
                traceback.print_exc()
            report(str(error))
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        return result


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
app.command("import")(import_config.import_command)
app.command("convert")(convert.convert_command)
app.command("classify")(classify.classify_command)
app.command("embed")(embed.embed_command)
app.command("demo")(demo.demo_command)
app.command("profile")(profile.profile_command)
app.command("pull")(transfer.pull_command)
app.command("push")(transfer.push_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `zoo` and return its exit status: 0, 1 for findings, 2 for errors, 130 where it was interrupted.

    Args:
        arguments: those of the command line where None.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started us closed it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - until we end
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # a file name may be anything
    try:
        with _warnings_in_a_line():
            app(args=arguments, prog_name="zoo")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


@contextmanager
def _warnings_in_a_line() -> Generator[None]:
    """Print our own warnings as errors are printed, without the line of code that gave them."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
            if issubclass(category, ZooWarning):
                report_warning(message)
            else:
                others(message, category, *place, **options)

        warnings.showwarning = show
        warnings.simplefilter("always", ZooWarning)
        yield
