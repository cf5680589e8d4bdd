"""`avsbg compare`: two runs of `avsbg bench` held together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbg.cli import app


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A directory of `avsbg bench`, or a file of rows.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another; its rows are judged against A's.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the verdicts as JSON.")
    ] = None,
) -> None:
    """Say for each row of two runs whether B is faster, slower, or cannot be told from A.

    Rows are matched by their labels. The two runs were not sampled in turn, so
    what changed on the machine between them is part of the difference. An
    unstable row, another machine or another workload: cannot tell.
    """
    import json

    from rich import box
    from rich.table import Table
    from rich.text import Text

    from avsbg.atomic import atomic_file
    from avsbg.benchmarks.report.console import results_console
    from avsbg.benchmarks.results.compare import compare_files
    from avsbg.benchmarks.results.rows import ROWS, read_rows

    before, after = (read_rows(path / ROWS if path.is_dir() else path) for path in (first, second))
    found = compare_files(before, after)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("row", "verdict", "time of B over A", "why"):
        table.add_column(heading, overflow="fold")
    styles = {"faster": "green", "slower": "red", "cannot tell": "dim"}
    for row in found:
        interval = "" if row.ratio is None else f"{row.ratio:.3f} [{row.low:.3f}, {row.high:.3f}]"
        table.add_row(Text(row.label), Text(row.verdict, style=styles[row.verdict]), interval, Text(row.reason))
    results_console().print(table)
    if json_file is not None:
        with atomic_file(json_file) as temporary:
            temporary.write_text(json.dumps([row.as_dict() for row in found], indent=2) + "\n", encoding="utf-8")
