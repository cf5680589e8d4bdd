"""The ladder of the whole network's speed on a processor: each step's gain, and how far it is from the machine's peak.

`python -m avsbg.benchmarks.report.speed_table ROWS` prints it. The first row is the network as published.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.labels import network_title, precision, way_title
from avsbg.benchmarks.report.table7 import UNSTABLE, machine_line, unstable_rows
from avsbg.benchmarks.results.rows import Row, read_rows
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.errors import AvsbgError

# How many times as fast as published: the aims of the project.
AIMS = {"fp32": 1.4, "a reduced precision": 3.0}


def render(path: Path) -> str:
    """The committed rows of docs/speed.md."""
    return ladder(read_rows(path), f"benchmarks/results/{path.name}")


def ladder(rows: Sequence[Row], source: str) -> str:
    """The steps as a Markdown table, in the order of the run, and what of the aims is reached.

    A row that is not stable shows no time, and a gain over or to such a row is not shown.

    Args:
        rows: of one run, the reference first.
        source: the file that holds them, as the text names it.

    Raises:
        BenchmarkError: a row is of another run than the first.
    """
    first = rows[0]
    for row in rows:
        if row.run != first.run or first.label != row.run.reference:
            raise BenchmarkError(f"the row {row.label} is not of the run whose reference is {first.label}.")
    head = f"[{first.ratio.confidence:.0%} interval]"
    lines = [
        f"| {network_title(first.variant)} | precision | ms per clip<br>p50 / p90 | as published: 1<br>{head} "
        f"| the step before: 1<br>{head} | GFLOP | bound, ms | share of the bound | masks' mean IoU |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(row, rows[index - 1] if index else None, first) for index, row in enumerate(rows)),
    ]
    peaks = ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in (first.run.peak_gflops or {}).items())
    lines += [
        "",
        "Speeds are ratios of medians over pairs: 2 is twice as fast. The bound is the time of the row's products at "
        "the processor's peak in that precision, measured with a large matrix product after the samples: "
        f"{peaks or 'not measured'}. For int8 it is that of a network whose every product is in int8.",
        "",
        *_reached(rows),
        "",
        *unstable_rows(rows),
        *machine_line(rows, source),
    ]
    return "\n".join(lines)


def _line(row: Row, before: Row | None, first: Row) -> str:
    kind = precision(row)
    peak = (row.run.peak_gflops or {}).get(kind)
    time = speed = gain = bound = reached = ""
    if not row.stable:
        time = speed = gain = UNSTABLE
    else:
        time = f"{1e3 * row.latency.per_clip.p50:.1f} / {1e3 * row.latency.per_clip.p90:.1f}"
        speed = _speed(first, row) if first.stable else UNSTABLE
        if before is not None:
            gain = _speed(before, row) if before.stable else UNSTABLE
    if peak and row.flops:
        seconds = row.flops.total / peak / 1e9
        bound = f"{1e3 * seconds:.0f}"
        reached = f"{seconds / row.latency.per_clip.p50:.0%}" if row.stable else UNSTABLE
    cells = (
        way_title(row),
        kind if row.backend.get("rest") is None else f"{kind}, the rest {row.backend['rest']}",
        time,
        speed,
        gain,
        f"{row.flops.total / 1e9:.1f}" if row.flops else "",
        bound,
        reached,
        "" if row.miou is None else f"{row.miou:.4f}",
    )
    return f"| {' | '.join(cells)} |"


def _speed(slow: Row, fast: Row) -> str:
    if slow is fast:
        return "1"
    ratio = paired_ratio(slow.latency.samples, fast.latency.samples)
    return f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _reached(rows: Sequence[Row]) -> list[str]:
    """For each aim the fastest stable row that counts for it."""
    lines = []
    for name, aim in AIMS.items():
        ran = [row for row in rows if row.stable and (precision(row) == "fp32") == (name == "fp32")]
        if not ran or not rows[0].stable:
            lines.append(f"* {name}: the aim is {aim:g}x; no stable row says.")
            continue
        best = min(ran, key=lambda row: row.ratio.median)
        ratio = paired_ratio(rows[0].latency.samples, best.latency.samples)
        verdict = "reached" if ratio.low >= aim else "not reached" if ratio.high < aim else "cannot be told"
        lines.append(f"* {name}: {ratio.median:.2f}x by {best.label}; the aim of {aim:g}x is {verdict}.")
    return lines


if __name__ == "__main__":
    try:
        print(render(Path(sys.argv[1])))
    except (AvsbgError, IndexError) as error:
        sys.exit(f"error: {error}; usage: python -m avsbg.benchmarks.report.speed_table ROWS")
