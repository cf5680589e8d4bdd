"""The `avsbg` command. Each verb is one short module; heavy imports stay inside the verbs."""

from __future__ import annotations

import atexit
import gc
import sys
from importlib import import_module
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from avsbg import __version__
from avsbg.cli import aliases
from avsbg.cli.output import tolerate_closed_pipes
from avsbg.errors import AvsbgError

# The tasks that the help groups verbs by, in this order.
TASKS = MAKE, RUN, MEASURE, TRAIN, CHECK = "Make", "Run", "Measure", "Train", "Check"
# Modules, each of which adds a verb to `app`; and those of a verb that is named otherwise, or is a group.
VERBS = (
    *("export", "quantize", "build", "package", "run", "batch", "serve", "demo_page", "visualize"),
    *("bench", "bench_stream", "compare", "report", "train", "evaluate", "data", "verify", "inspect", "doctor"),
)
OTHERS = {"eval": ("evaluate",), "bench": ("bench", "bench_stream", "compare", "report")}


class VerbGroup(TyperGroup):
    """A group of verbs: ordered by task, old names read as the new ones, no Python types in the help."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the names of the verbs, by task."""

        def task(name: str) -> int:
            panel = getattr(self.commands[name], "rich_help_panel", None)
            return TASKS.index(panel) if panel in TASKS else 0

        return sorted(super().list_commands(ctx), key=task)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Look up the verb of that name; None if there is none."""
        return _tidy_help(super().get_command(ctx, cmd_name), ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, of which old names are replaced first."""
        _tidy_help(self, ctx)
        if ctx.parent is None:
            args, met = aliases.rename(args)
            if not ctx.resilient_parsing:  # as completion does
                aliases.print_notes(met)
        return super().parse_args(ctx, args)


def _tidy_help(command: Any, ctx: Any) -> Any:
    """Leave out the type beside a flag or an argument, and join the lines of a paragraph.

    Typer breaks them as the source does. Arguments are named in capitals, as the values of options are.
    """
    if command is None:
        return None
    for parameter in command.get_params(ctx):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif parameter.param_type_name == "argument":
            parameter.metavar = parameter.metavar or parameter.name.upper()
            parameter.display_type_rich = lambda ctx: None  # noqa: ARG005  (Typer gives it by name)
    paragraphs = cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    return command


app = typer.Typer(
    name="avsbg", cls=VerbGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich"
)


def _print_error(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), text))


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"avsbg {__version__}")
        raise typer.Exit


@app.callback()
def _verbs(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Audio-visual segmentation networks, from a PyTorch checkpoint to an NVIDIA edge device."""


def load_verbs(verb: str = "") -> None:
    """Import the modules of a verb, or all where it is none: a verb need not wait for the options of the others."""
    module = verb.replace("-", "_")
    for name in OTHERS.get(verb, (module,) if module in VERBS else VERBS):
        import_module(f"{__name__}.{name}")


def main() -> None:
    """Entry point: run a verb; a user's mistake becomes one paragraph on stderr and exit code 1."""
    tolerate_closed_pipes()
    # At the end, cycles of objects need not be looked for: after an export that takes seconds.
    atexit.register(gc.freeze)
    load_verbs(*sys.argv[1:2])
    try:
        app()
    except AvsbgError as error:
        _print_error(str(error))
        sys.exit(1)
    except PermissionError as error:  # wherever a path is looked at that this user may not
        if error.filename is None:
            raise
        _print_error(f"{error.filename}: permission denied. Ask for access, or name another place.")
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was kept", file=sys.stderr)
        sys.exit(130)
