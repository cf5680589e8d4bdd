"""Benchmarks beside `avsbg bench`: `python -m avsbg.benchmarks COMMAND`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from avsbg.errors import AvsbgError

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def main() -> None:
    """Choose a command."""


@app.command()
def counts(
    update: Annotated[bool, typer.Option("--update", help="Make what is counted now the committed counts.")] = False,
    callgrind: Annotated[
        bool, typer.Option("--callgrind/--no-callgrind", help="Count the CPU operator's instructions (needs valgrind).")
    ] = True,
    file: Annotated[Path | None, typer.Option(help="The file of counts, in place of the committed one.")] = None,
) -> None:
    """Compare operations, nodes, bytes and instructions with the committed counts."""
    from avsbg.benchmarks.static.counts import COUNTS, check_counts

    check_counts(file or COUNTS, update=update, callgrind=callgrind)


if __name__ == "__main__":
    try:
        app()
    except AvsbgError as error:
        sys.exit(f"error: {error}")
