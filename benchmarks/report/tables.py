"""Tables: one list of columns, shown as Markdown, in a terminal, or on the report's page.

A column is a title and a function from a row to its cell. A line break in a title or in a cell is one in every form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

from avsbg.benchmarks.results.schema import Metric
from avsbg.benchmarks.results.statistics import Interval

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as ConsoleTable

Row = TypeVar("Row")
# Mark -> its colour in a terminal.
_STYLES = {"faster": "green", "slower": "red", "cannot tell": "dim"}


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `detail` is a line in small print.

    `mark` is `number`, `rough` (a number to be taken with care), `unstable`, one of `_STYLES`, or empty.
    """

    text: str
    mark: str = ""
    detail: str = ""


Columns = Sequence[tuple[str, Callable[[Row], object]]]


@dataclass(frozen=True)
class Table:
    """Titles and rows of cells, with a sentence that says what is shown."""

    titles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    @property
    def has_numbers(self) -> tuple[bool, ...]:
        """Whether each column holds numbers, by its first cell."""
        return tuple(cell.mark in ("number", "rough", "unstable") for cell in self.rows[0]) if self.rows else ()


def make_table(rows: Iterable[Row], columns: Columns[Row], caption: str = "") -> Table:
    """A table with a line for each row; what a column returns that is no `Cell` is shown as text, None as nothing."""
    lines = tuple(tuple(_cell(function(row)) for _, function in columns) for row in rows)
    return Table(tuple(title for title, _ in columns), lines, caption)


def _cell(value: object) -> Cell:
    return value if isinstance(value, Cell) else Cell("" if value is None else str(value))


def number(value: object, detail: str = "") -> Cell:
    """A cell that is aligned to the right; empty where there is no value."""
    return Cell("" if value is None else str(value), "number", detail)


def with_interval(found: Metric | Interval | None, form: str = ".3f") -> str:
    """An estimate with its interval, as `0.500 [0.490, 0.510]`; empty where there is none."""
    if found is None or found.value is None:
        return ""
    interval = "" if found.low is None else f" [{found.low:{form}}, {found.high:{form}}]"
    return f"{found.value:{form}}{interval}"


def to_markdown(table: Table, *, details: bool = False) -> str:
    """The table in Markdown, without its caption; `details` shows the small print too."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), '<br>') for cell in cells)} |"

    def text(cell: Cell) -> str:
        return f"{cell.text}\n{cell.detail}" if details and cell.detail else cell.text

    titles = line(table.titles).replace("|  |", "| |")
    return "\n".join([titles, "|---" * len(table.titles) + "|", *(line(map(text, row)) for row in table.rows)])


def markdown(rows: Iterable[Row], columns: Columns[Row]) -> str:
    """The rows as a table in Markdown."""
    return to_markdown(make_table(rows, columns))


def markdown_of(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows of cells below their titles, in Markdown."""
    return markdown(rows, [(title, itemgetter(index)) for index, title in enumerate(titles)])


def to_console(table: Table) -> ConsoleTable:
    """The table for a terminal; the first column may be folded, details stand on a line of their own in red."""
    from rich import box
    from rich.table import Table as ConsoleTable
    from rich.text import Text

    shown = ConsoleTable(title=table.caption or None, box=box.SIMPLE_HEAD, title_justify="left")
    numbers = table.has_numbers
    for index, title in enumerate(table.titles):
        right = index > 0 and bool(numbers) and numbers[index]
        shown.add_column(
            title, justify="right" if right else "left", no_wrap=right, overflow="fold", min_width=None if index else 20
        )
    for row in table.rows:
        dim = any(cell.mark == "unstable" for cell in row)
        cells = [
            Text(cell.text, style=_STYLES.get(cell.mark, "")).append(f"\n{cell.detail}" if cell.detail else "", "red")
            for cell in row
        ]
        shown.add_row(*cells, style="dim" if dim else None)
    return shown


def results_console() -> Console:
    """A console on standard output; wide where that is a file, which has no width of its own."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)
