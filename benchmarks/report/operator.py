"""Tables of the correlation operator on a processor."""

from __future__ import annotations

from collections.abc import Sequence

from avsbg.benchmarks.report.tables import Columns, markdown, with_interval
from avsbg.benchmarks.results.schema import Measurement

# The side of the largest map, which the first stage has.
_LARGEST = 56


def operator_text(rows: Sequence[Measurement]) -> str:
    """The operator's benchmark in Markdown, as the measured part of docs/operator-cpu.md."""
    environment = rows[0].environment
    assert environment is not None
    compared = [row for row in rows if row.kind == "operator" and "speedup over torch" in row.metrics]
    columns: Columns[Measurement] = [
        ("threads", lambda row: row.case["threads"]),
        ("positions", lambda row: f"{row.case['side']} x {row.case['side']}"),
        ("case", lambda row: f"**{row.label}** ({row.case['path']})" if row.case["path"] else row.label),
        ("p50 ms", lambda row: f"{1e3 * row['p50'].number:.3f}"),
        ("p90 ms", lambda row: f"{1e3 * row['p90'].number:.3f}"),
        ("GFLOP/s", lambda row: f"{row['operations'].number / row['p50'].number / 1e9:.0f}"),
        ("of sgemm", lambda row: with_interval(row["share_of_sgemm"], ".0%")),
        ("times torch", lambda row: f"{row['speedup over torch'].number:.2f}"),
        ("peak MiB", _mebibytes),
    ]
    load = environment.load_average[0]
    busy = (
        " Other programs were running, so the ratios within a round say more than the milliseconds do, and several "
        "threads suffer more than one."
    )
    parts = [
        f"{environment.processor}, {environment.physical_cores} cores; load average {load:.1f} at the start, "
        f"nothing dropped.{busy if load > 0.5 else ''}",
        markdown(compared, columns),
    ]
    ratios = [
        f"{with_interval(row['four_over_five'], '.2f')} of the time of five on "
        f"{row.case['threads']} thread{'s' if row.case['threads'] > 1 else ''}"
        for row in rows
        if row.kind == "operator-clip" and row.case["side"] == _LARGEST
    ]
    if ratios:
        parts.append(
            "A clip of five frames takes four products, since the second mean of the last pair serves the last frame. "
            f"At {_LARGEST} x {_LARGEST} four products take {' and '.join(ratios)}."
        )
    return "\n\n".join(parts)


def _mebibytes(row: Measurement) -> str:
    memory = row.value("peak_memory")
    return "-" if memory is None else f"{memory / 2**20:.1f}"
