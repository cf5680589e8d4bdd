"""The rows of the operator's benchmark as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from avsbg.benchmarks.report.console import results_console
from avsbg.benchmarks.results.operator_rows import RESULTS, ClipRow, MachineRow, OperatorRow, Row, read_rows

SIDES = (56, 28, 14, 7)  # of the four stages' maps


def print_rows(rows: Sequence[Row]) -> None:
    """One table per number of threads, then the ratio of four products to five."""
    console = results_console()
    for threads in sorted({row.threads for row in rows if isinstance(row, OperatorRow)}):
        table = Table(title=f"Mean correlation, {threads} thread{'s' if threads > 1 else ''}", box=box.SIMPLE_HEAD)
        table.add_column("positions")
        table.add_column("contender")
        for heading in (
            "p50 ms",
            "p90",
            "p99",
            "GFLOP/s\np50",
            "best",
            "of sgemm\nmedian",
            "best",
            "times the\nvolume",
            "peak\nMiB",
        ):
            table.add_column(heading, justify="right", no_wrap=True)
        previous = None
        for row in rows:
            if not isinstance(row, OperatorRow) or row.threads != threads:
                continue
            if previous not in (None, row.side):
                table.add_section()
            previous = row.side
            table.add_row(*_cells(row))
        console.print(table)
    for row in rows:
        if isinstance(row, ClipRow):
            ratio = row.four_over_five
            console.print(
                f"T = 5 at {row.side} x {row.side}, {row.threads} threads: four products take "
                f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] of the time of five"
            )


def _cells(row: OperatorRow) -> list[str]:
    label = f"{row.contender} ({row.path})" if row.path else row.contender
    return [
        "" if row.kind == "sgemm" else f"{row.side} x {row.side}",
        label,
        *(f"{1e3 * row.seconds[key]:.3f}" for key in ("p50", "p90", "p99")),
        *(f"{row.gflops[key]:.1f}" for key in ("p50", "best")),
        *(f"{row.share_of_sgemm[key]:.1%}" for key in ("median", "best")),
        *(f"{row.speedup[held]['median']:.2f}" if row.speedup else "" for held in ("torch", "onnxruntime")),
        f"{row.peak_memory / 2**20:.1f}" if row.peak_memory is not None else "",
    ]


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as the table of docs/operator-cpu.md."""
    lines = [
        "| threads | positions | contender | p50 ms | p90 ms | GFLOP/s | of sgemm | times torch | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not isinstance(row, OperatorRow) or row.kind == "sgemm" or not row.speedup:
            continue
        name = f"**{row.contender}** ({row.path})" if row.path else row.contender
        share, times = row.share_of_sgemm, row.speedup["torch"]["median"]
        memory = "-" if row.peak_memory is None else f"{row.peak_memory / 2**20:.1f}"
        lines.append(
            f"| {row.threads} | {row.side} x {row.side} | {name} | {1e3 * row.seconds['p50']:.3f} "
            f"| {1e3 * row.seconds['p90']:.3f} | {row.gflops['p50']:.0f} "
            f"| {share['median']:.0%} [{share['low']:.0%}, {share['high']:.0%}] | {times:.2f} | {memory} |"
        )
    return "\n".join(lines)


def render(path: Path) -> str:
    """Committed rows as the measured part of docs/operator-cpu.md."""
    rows = read_rows(path)
    machine = rows[0]
    assert isinstance(machine, MachineRow)
    environment = machine.environment
    clips = [row for row in rows if isinstance(row, ClipRow) and row.side == max(SIDES)]
    ratios = " and ".join(
        "{median:.2f} [{low:.2f}, {high:.2f}] of the time of five on ".format(**clip.four_over_five)
        + f"{clip.threads} thread{'s' if clip.threads > 1 else ''}"
        for clip in clips
    )
    load = environment.load_average[0]
    busy = (
        "Other programs were running, so the ratios within a round say more than the milliseconds do, and several "
        "threads suffer more than one."
    )
    return "\n".join(
        [
            f"{environment.processor}, {environment.cores.physical} cores; load average {load:.1f} at the start, "
            f"nothing dropped.{' ' + busy if load > 0.5 else ''}",
            "",
            markdown_table(rows),
            "",
            "A clip of five frames takes four products, since the second mean of the last pair serves the last frame. "
            f"At {max(SIDES)} x {max(SIDES)} four products take {ratios}.",
        ]
    )


if __name__ == "__main__":
    print(render(RESULTS))
