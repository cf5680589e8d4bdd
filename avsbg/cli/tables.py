"""Tables as commands print them."""

from __future__ import annotations

from collections.abc import Iterable


def print_table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for index, header in enumerate(headers):
        table.add_column(header, no_wrap=True, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)
