"""Engines side by side: what their builder said of their memory, layers and size, as rows and as a table.

    avsbg build BUNDLE ...                                  # as many engines as are to be compared
    python -m tools.engines BUNDLE ... -o benchmarks/results/engines.jsonl

The rows hold what the bundles' manifests hold. Nothing here is measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.report.tables import Columns, markdown
from avsbg.benchmarks.results.schema import Measurement, write_rows
from avsbg.benchmarks.static.engines import engine_rows
from avsbg.runtime.bundle import Bundle
from tools import Output, command


def engine_table(rows: Sequence[Measurement]) -> str:
    """Engines side by side, by what their builder reported, as Markdown; MB are 10^6 bytes."""

    def capabilities(row: Measurement) -> list[int]:
        return list(row.case["device"]["compute_capabilities"])

    def order(row: Measurement) -> tuple[Any, ...]:
        case = row.case
        streams = case["options"].get("max_aux_streams", -1)
        return row.ran.network, case["clips"], precision(row), case["operator"], capabilities(row), streams

    def precision(row: Measurement) -> str:
        rest = row.case.get("rest")
        return row.case["precision"] if rest is None else f"{row.case['precision']}, the rest {rest}"

    def megabytes(row: Measurement, metric: str) -> str:
        size = row.value(metric)
        return "not reported" if size is None else f"{size / 1e6:.1f}"

    columns: Columns[Measurement] = [
        ("network", lambda row: row.ran.network),
        ("clips", lambda row: row.case["clips"]),
        ("precision", precision),
        ("operator", lambda row: row.case["operator"]),
        ("for", lambda row: ", ".join(f"{number / 10:.1f}" for number in capabilities(row))),
        ("further streams", lambda row: row.case["options"].get("max_aux_streams", "its choice")),
        ("engine MB", lambda row: megabytes(row, "engine_bytes")),
        ("layers", lambda row: row["layers"].number),
        ("activation MB", lambda row: megabytes(row, "activation_memory")),
        ("weights MB", lambda row: megabytes(row, "weights_memory")),
        ("build s", lambda row: f"{row['build'].number:.0f}"),
    ]
    return markdown(sorted(rows, key=order), columns)


@command
def main(bundles: Annotated[list[Path], typer.Argument(help="Bundles with engines.")], output: Output) -> None:
    """Write the engines of bundles as rows, and print them as a table."""
    environment = describe_environment()
    rows = [row for path in bundles for row in engine_rows(Bundle.open(path), environment)]
    write_rows(output, rows)
    typer.echo(engine_table(rows))
