"""`avsbg bench compare`: two runs of `avsbg bench` compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from avsbg.cli.bench import bench
from avsbg.cli.output import write_json


@bench.command()
def compare(
    first: Annotated[
        Path, Argument(metavar="A", help="The directory of a run of `avsbg bench run`, or its rows.jsonl.")
    ],
    second: Annotated[Path, Argument(metavar="B", help="The run to compare with A.")],
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Also write the comparisons as JSON.")
    ] = None,
) -> None:
    """Compare two runs: for each row, is B faster than A, slower, or can it not be told?

    Rows are matched by name. The two runs did not take turns, so a change of the machine between them is part of the
    difference. The answer is "cannot tell" if a row is unstable, or if machine or workload differ.
    """
    from dataclasses import asdict

    from avsbg.benchmarks.report.tables import Cell, Columns, make_table, results_console, to_console
    from avsbg.benchmarks.results.compare import Comparison, compare_rows
    from avsbg.benchmarks.results.schema import read_rows

    found = compare_rows(read_rows(first, "latency"), read_rows(second, "latency"))

    def interval(row: Comparison) -> str:
        return "" if row.ratio is None else f"{row.ratio:.3f} [{row.low:.3f}, {row.high:.3f}]"

    columns: Columns[Comparison] = [
        ("row", lambda row: row.label),
        ("comparison", lambda row: Cell(row.comparison, row.comparison)),
        ("time of B over A", interval),
        ("why", lambda row: row.reason),
    ]
    results_console().print(to_console(make_table(found, columns)))
    if json_file is not None:
        write_json(json_file, [asdict(row) for row in found])
