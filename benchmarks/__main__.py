"""Benchmarks beside `avsbg bench`: `python -m avsbg.benchmarks COMMAND`."""

from __future__ import annotations

import os
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


@app.command()
def operator(  # noqa: PLR0917  (each is an option by name)
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON Lines file, not the committed one.")
    ] = None,
    side: Annotated[list[int] | None, typer.Option(help="Map size, repeatable; by default the four stages'.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Thread count, repeatable; by default 1 and 2.")] = None,
    samples: Annotated[int, typer.Option(min=2, help="Samples of each case.")] = 30,
    pause: Annotated[float, typer.Option(min=0, help="Seconds of rest before each call.")] = 0.1,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, in a process per case.")] = True,
) -> None:
    """Time the correlation operator against other ways to compute it, on the CPU."""
    from rich.console import Console

    from avsbg.benchmarks.measure.operator import RESULTS, SIDES, run
    from avsbg.benchmarks.report.static import describe_clip, operator_tables
    from avsbg.benchmarks.report.tables import results_console, to_console
    from avsbg.benchmarks.results.schema import write_rows

    console = Console(stderr=True)
    if cores := [name for name in ("OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS") if os.environ.get(name)]:
        console.print(f"[yellow]{', '.join(cores)} is set: sgemm may not run this processor's fastest kernel.[/]")
    with console.status("") as status:
        rows = run(side or SIDES, threads or (1, 2), samples=samples, pause=pause, memory=memory, report=status.update)
    write_rows(output or RESULTS, rows)
    for shown in operator_tables(rows):
        results_console().print(to_console(shown))
    for row in rows:
        if row.kind == "operator-clip":
            results_console().print(describe_clip(row))
    console.print(f"written to {output or RESULTS}")


@app.command()
def tables(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where a table is not that of its rows.")
    ] = False,
    page: Annotated[list[str] | None, typer.Option(help="Only this page, as docs/engines.md.")] = None,
    root: Annotated[Path, typer.Option(help="The checkout.")] = Path(),
) -> None:
    """Rewrite the tables of README and docs from the committed rows."""
    from avsbg.benchmarks.report.docs import update_pages

    update_pages(root, check=check, only=page or ())


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="Of its markers in the page, as speed or ablations.")],
    rows: Annotated[Path, typer.Argument(help="A file of rows.")],
) -> None:
    """Print a table of README or docs, made from other rows."""
    from avsbg.benchmarks.report.docs import make_table_of

    typer.echo(make_table_of(name, rows))


if __name__ == "__main__":
    try:
        app()
    except AvsbgError as error:
        sys.exit(f"error: {error}")
