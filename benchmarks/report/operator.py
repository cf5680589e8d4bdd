"""Tables of the correlation operator on a processor."""

from __future__ import annotations

from collections.abc import Sequence

from avsbg.benchmarks.report.tables import Columns, Table, make_table, number, with_interval
from avsbg.benchmarks.results.schema import Measurement


def operator_tables(rows: Sequence[Measurement]) -> list[Table]:
    """The operator's benchmark for a terminal, a table for each number of threads."""
    columns: Columns[Measurement] = [
        ("case", lambda row: f"{row.label} ({row.case['path']})" if row.case["path"] else row.label),
        ("positions", lambda row: number(positions(row) if row.case["pairs"] else "")),
        ("p50 ms", lambda row: number(f"{1e3 * row['p50'].number:.3f}")),
        ("p90", lambda row: number(f"{1e3 * row['p90'].number:.3f}")),
        ("p99", lambda row: number(f"{1e3 * row['p99'].number:.3f}")),
        ("GFLOP/s\np50", lambda row: number(f"{rate(row, 'p50'):.1f}")),
        ("best", lambda row: number(f"{rate(row, 'best'):.1f}")),
        ("of sgemm\nmedian", lambda row: number(f"{row['share_of_sgemm'].number:.1%}")),
        ("best", lambda row: number(f"{row['best_share_of_sgemm'].number:.1%}")),
        ("times\ntorch", lambda row: number(_speedup(row, "torch"))),
        ("times\nonnxruntime", lambda row: number(_speedup(row, "onnxruntime"))),
        ("peak\nMiB", lambda row: number(mebibytes(row, ""))),
    ]
    operators = [row for row in rows if row.kind == "operator"]
    return [
        make_table(
            [row for row in operators if row.case["threads"] == threads],
            columns,
            f"Mean correlation, {threads} thread{'s' if threads > 1 else ''}",
        )
        for threads in sorted({row.case["threads"] for row in operators})
    ]


def describe_clip(row: Measurement) -> str:
    """The ratio of four products, which a clip of five frames takes, to five as a line."""
    return (
        f"T = 5 at {positions(row)}, {thread_count(row)}: four products take {with_interval(row['four_over_five'])} "
        "of the time of five"
    )


def positions(row: Measurement) -> str:
    """The size of the maps."""
    return f"{row.case['side']} x {row.case['side']}"


def thread_count(row: Measurement) -> str:
    """The number of threads, in words."""
    return f"{row.case['threads']} thread{'s' if row.case['threads'] > 1 else ''}"


def rate(row: Measurement, percentile: str) -> float:
    """1e9 operations per second."""
    return row["operations"].number / row[percentile].number / 1e9


def _speedup(row: Measurement, other: str) -> str:
    value = row.value(f"speedup over {other}")
    return "" if value is None else f"{value:.2f}"


def mebibytes(row: Measurement, otherwise: str) -> str:
    """The peak memory in MiB."""
    memory = row.value("peak_memory")
    return otherwise if memory is None else f"{memory / 2**20:.1f}"
