"""Studies and generators for the project's own pages and files, run from the checkout: `python -m tools.NAME`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from avsbg.errors import AvsbgError


def run(main: Callable[..., None]) -> None:
    """Run a function as a command; an error that users can mend is a sentence, not a traceback."""
    try:
        typer.run(main)
    except AvsbgError as error:
        sys.exit(f"error: {error}")
