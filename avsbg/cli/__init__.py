"""The `avsbg` command. Each verb is one short module; heavy imports stay inside the verbs."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

from avsbg import __version__
from avsbg.cli.output import tolerate_closed_pipes
from avsbg.errors import AvsbgError

# The tasks that the help groups verbs by, in this order.
MAKE, RUN, MEASURE, TRAIN, CHECK = "Make", "Run", "Measure", "Train", "Check"
# The verbs' modules, in the order of the help.
VERBS = (
    *("export", "convert", "build", "run", "visualize", "bench", "bench_stream", "compare", "report"),
    *("train", "evaluate", "data", "verify", "inspect", "doctor"),
)

app = typer.Typer(
    name="avsbg", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"avsbg {__version__}")
        raise typer.Exit


@app.callback()
def _verbs(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version, and end.")
    ] = False,
) -> None:
    """Audio-visual segmentation networks, from a PyTorch checkpoint to an NVIDIA edge device."""


def main() -> None:
    """Entry point: run a verb; a user's mistake becomes one paragraph on stderr and exit code 1."""
    tolerate_closed_pipes()
    try:
        app()
    except AvsbgError as error:
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was kept", file=sys.stderr)
        sys.exit(130)


for module in VERBS:
    import_module(f"{__name__}.{module}")  # a verb's module adds it to `app`
