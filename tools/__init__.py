"""Studies and generators for the project's own pages and files, run from the checkout: `python -m tools.NAME`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from avsbg.errors import AvsbgError

Main = TypeVar("Main", bound=Callable[..., None])
Output = Annotated[Path, typer.Option("-o", "--output", help="The file of rows to write.")]


def command(main: Main) -> Main:
    """Run the last function of a module where that is the program; an error that users can mend is a sentence."""
    if main.__module__ == "__main__":
        try:
            typer.run(main)
        except AvsbgError as error:
            sys.exit(f"error: {error}")
    return main
