"""`avsbg bench report`: rows of benchmarks as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from avsbg.cli.bench import bench
from avsbg.cli.options import Overwrite


@bench.command()
def report(  # noqa: PLR0917  (each is an option by name)
    rows: Annotated[
        list[Path], Argument(metavar="ROWS", help="Directories of `avsbg bench run`, or rows.jsonl files.")
    ],
    output: Annotated[Path, Option("-o", "--output", metavar="DIR", help="The directory to create.")],
    scores: Annotated[
        Path | None, Option(metavar="FILE", help="Scores as JSON Lines; those with the name of a row are plotted.")
    ] = None,
    class_scores: Annotated[
        list[Path] | None, Option(metavar="FILE", help="Scores of classes, from `avsbg eval --json`. May be repeated.")
    ] = None,
    streaming: Annotated[Path | None, Option(metavar="FILE", help="Rows of `avsbg bench stream`.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a page of rows: report.html, one file that needs no network, and report.md.

    It shows Table 7 beside the paper's figures, latency distributions, time by part of the network, the distance to the
    machine's peak rate, memory, bounds for devices that were not measured, the environment, and how to repeat each row;
    of scripts/on-gpu.sh also the operator's times, rates and counters. A file may hold several kinds of rows.
    A row whose times are unstable is marked, and shows its ratio if the pairs agree.
    """
    from avsbg.benchmarks.report.content import gather
    from avsbg.benchmarks.report.page import HTML, MARKDOWN, write_report

    gathered = gather(rows, accuracy=scores, streaming=streaming, classes=class_scores or ())
    write_report(gathered, output, replace=overwrite)
    total = len(gathered.timed)
    typer.echo(f"{output}: {HTML}, {MARKDOWN}; {total - len(gathered.unstable)} of {total} rows have stable times")
    for file, others in gathered.unshown:
        typer.echo(f"not shown, since no section knows their kinds: {file}: {others}")
