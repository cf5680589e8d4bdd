"""Tables of the correlation operator on a processor."""

from __future__ import annotations

from collections.abc import Sequence

from avsbg.benchmarks.report.tables import Columns, Table, make_table, markdown, number, with_interval
from avsbg.benchmarks.results.schema import Measurement

# The side of the largest map, which the first stage has.
_LARGEST = 56


def operator_text(rows: Sequence[Measurement]) -> str:
    """The operator's benchmark as the measured part of docs/operator-cpu.md."""
    environment = rows[0].environment
    assert environment is not None
    compared = [row for row in rows if row.kind == "operator" and "speedup over torch" in row.metrics]
    columns: Columns[Measurement] = [
        ("threads", lambda row: row.case["threads"]),
        ("positions", _positions),
        ("case", lambda row: f"**{row.label}** ({row.case['path']})" if row.case["path"] else row.label),
        ("p50 ms", lambda row: f"{1e3 * row['p50'].number:.3f}"),
        ("p90 ms", lambda row: f"{1e3 * row['p90'].number:.3f}"),
        ("GFLOP/s", lambda row: f"{_rate(row, 'p50'):.0f}"),
        ("of sgemm", lambda row: with_interval(row["share_of_sgemm"], ".0%")),
        ("times torch", lambda row: f"{row['speedup over torch'].number:.2f}"),
        ("peak MiB", lambda row: _mebibytes(row, "-")),
    ]
    ratios = " and ".join(
        f"{with_interval(row['four_over_five'], '.2f')} of the time of five on {_threads(row)}"
        for row in rows
        if row.kind == "operator-clip" and row.case["side"] == _LARGEST
    )
    load = environment.load_average[0]
    busy = (
        " Other programs were running, so the ratios within a round say more than the milliseconds do, and several "
        "threads suffer more than one."
    )
    return "\n\n".join(
        [
            f"{environment.processor}, {environment.physical_cores} cores; load average {load:.1f} at the start, "
            f"nothing dropped.{busy if load > 0.5 else ''}",
            markdown(compared, columns),
            "A clip of five frames takes four products, since the second mean of the last pair serves the last frame. "
            f"At {_LARGEST} x {_LARGEST} four products take {ratios}.",
        ]
    )


def operator_tables(rows: Sequence[Measurement]) -> list[Table]:
    """The operator's benchmark for a terminal, a table for each number of threads."""
    columns: Columns[Measurement] = [
        ("case", lambda row: f"{row.label} ({row.case['path']})" if row.case["path"] else row.label),
        ("positions", lambda row: number(_positions(row) if row.case["pairs"] else "")),
        ("p50 ms", lambda row: number(f"{1e3 * row['p50'].number:.3f}")),
        ("p90", lambda row: number(f"{1e3 * row['p90'].number:.3f}")),
        ("p99", lambda row: number(f"{1e3 * row['p99'].number:.3f}")),
        ("GFLOP/s\np50", lambda row: number(f"{_rate(row, 'p50'):.1f}")),
        ("best", lambda row: number(f"{_rate(row, 'best'):.1f}")),
        ("of sgemm\nmedian", lambda row: number(f"{row['share_of_sgemm'].number:.1%}")),
        ("best", lambda row: number(f"{row['best_share_of_sgemm'].number:.1%}")),
        ("times\ntorch", lambda row: number(_speedup(row, "torch"))),
        ("times\nonnxruntime", lambda row: number(_speedup(row, "onnxruntime"))),
        ("peak\nMiB", lambda row: number(_mebibytes(row, ""))),
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
        f"T = 5 at {_positions(row)}, {_threads(row)}: four products take {with_interval(row['four_over_five'])} "
        "of the time of five"
    )


def _positions(row: Measurement) -> str:
    return f"{row.case['side']} x {row.case['side']}"


def _threads(row: Measurement) -> str:
    return f"{row.case['threads']} thread{'s' if row.case['threads'] > 1 else ''}"


def _rate(row: Measurement, percentile: str) -> float:
    """1e9 operations per second."""
    return row["operations"].number / row[percentile].number / 1e9


def _speedup(row: Measurement, other: str) -> str:
    value = row.value(f"speedup over {other}")
    return "" if value is None else f"{value:.2f}"


def _mebibytes(row: Measurement, otherwise: str) -> str:
    memory = row.value("peak_memory")
    return otherwise if memory is None else f"{memory / 2**20:.1f}"
