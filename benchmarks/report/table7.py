"""The paper's Table 7 with measured figures beside the published ones, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.labels import network_title, precision, way_title
from avsbg.benchmarks.report.paper import DEVICE, paper_figures
from avsbg.benchmarks.results.rows import Row, read_rows

UNSTABLE = "unstable"


def render(path: Path) -> str:
    """The committed rows of Table 7 as the README shows them."""
    return table(read_rows(path), f"benchmarks/results/{path.name}")


def table(rows: Sequence[Row], source: str) -> str:
    """Rows as a Markdown table, ending in a line that says how to repeat it.

    A row that is not stable shows what is independent of system load (parameters, operations, memory) and no
    time; what is wrong with it is named below the table.

    Args:
        rows: of one run.
        source: the file that holds them, as the text names it.

    Raises:
        BenchmarkError: a row is of another run than the first, or the first is not the reference of the others.
    """
    first = rows[0]
    for row in rows:
        if row.run != first.run or first.label != row.run.reference:
            raise BenchmarkError(
                f"the row {row.label} is not of the run whose reference is the first row, {first.label}.",
                "A table holds the rows of one run, its reference first.",
            )
    lines = [
        f"| network | run by | precision | parameters, M<br>published / needed | GFLOP | ms per clip<br>p50 / p90 | "
        f"time to the first row<br>[{first.ratio.confidence:.0%} interval] | peak MiB | paper, {DEVICE}<br>M / ms |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(row, first) for row in rows),
    ]
    lines += ["", *unstable_rows(rows), *machine_line(rows, source)]
    return "\n".join(lines)


def machine_line(rows: Sequence[Row], source: str) -> list[str]:
    """On what rows of one run were measured, and how to repeat it."""
    first = rows[0]
    machine, clip = first.environment, first.workload
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items() if name in _ENGINE_PACKAGES)
    return [
        f"{machine.processor}, {first.backend['threads']} threads, {packages}; "
        f"{clip.clips} clip of {clip.frames} frames of {clip.height} x {clip.width} a call; "
        f"{first.latency.per_clip.n} interleaved samples a row, none dropped; "
        f"commit {str(machine.commit)[:12]}. Raw samples: [`{source}`]({source}), made by",
        "",
        f"    {' '.join(first.run.command)}",
    ]


_ENGINE_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")


def _line(row: Row, first: Row) -> str:
    paper = paper_figures(row.variant)
    summary, ratio = row.latency.per_clip, row.ratio
    time, times = UNSTABLE, UNSTABLE
    if row.stable:
        time = f"{1e3 * summary.p50:.1f} / {1e3 * summary.p90:.1f}"
        if first.stable:
            times = "1" if row is first else f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
    cells = (
        network_title(row.variant),
        way_title(row),
        precision(row),
        f"{row.parameters.published / 1e6:.2f} / {row.parameters.inference / 1e6:.2f}",
        f"{row.flops.total / 1e9:.1f}" if row.flops else "",
        time,
        times,
        f"{row.memory.peak / 2**20:.0f}" if row.memory else "",
        f"{paper.parameters:.2f} / {paper.latency:.2f}" if paper else "",
    )
    return f"| {' | '.join(cells)} |"


def unstable_rows(rows: Sequence[Row]) -> list[str]:
    """What is wrong with the rows that are no result, in the words of their problems; nothing where all are stable."""
    unstable = [row for row in rows if not row.stable]
    if not unstable:
        return []
    return [
        f"**{len(unstable)} of {len(rows)} rows are unstable**: their times are no result and are not shown. "
        "Parameters, operations and memory do not depend on it.",
        "",
        *(f"* {network_title(row.variant)}, {way_title(row)}: {'; '.join(row.problems)}." for row in unstable),
        "",
    ]
