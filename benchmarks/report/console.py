"""Rows as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from avsbg.benchmarks.report import paper
from avsbg.benchmarks.results.rows import Row


def results_console() -> Console:
    """A console on standard output; wide where that is a file, which has no width of its own."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def latency_table(rows: Sequence[Row]) -> Table:
    """Milliseconds per clip, and the ratio to the reference; unstable rows are marked."""
    first = rows[0]
    table = _table(f"Latency per clip, ms ({first.workload.scope}, {first.latency.per_clip.n} samples each)")
    for heading in ("p50", "p90", "p99", "CV", "drift", f"ratio to * [{first.ratio.confidence:.0%} interval]"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        summary, ratio = row.latency.per_clip, row.ratio
        figures = [
            *(f"{1e3 * value:.2f}" for value in (summary.p50, summary.p90, summary.p99)),
            f"{summary.variation:.1%}",
            "-" if row.latency.drift is None else f"{row.latency.drift:+.1%}",
            f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        ]
        name = Text(f"{row.label} *" if row.label == ratio.reference else row.label)
        if row.problems:
            name.append(f"\nunstable: {'; '.join(row.problems)}", style="red")
        table.add_row(name, *figures, style=None if row.stable else "dim")
    return table


def cost_table(rows: Sequence[Row]) -> Table:
    """What each contender holds and computes, and what the paper says of its network."""
    table = _table("Network and memory")
    for heading in (
        "parameters M\npublished",
        "needed\nhere",
        "GFLOP\na clip",
        "peak\nMiB",
        "loaded\nMiB",
        "logits off\nPyTorch",
        f"paper, {paper.DEVICE}\nM / ms",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        figures = paper.paper_figures(row.variant)
        table.add_row(
            Text(row.label),
            f"{row.parameters.published / 1e6:.2f}",
            f"{row.parameters.inference / 1e6:.2f}",
            f"{row.flops.total / 1e9:.1f}" if row.flops else "-",
            f"{row.memory.peak / 2**20:.0f}" if row.memory else "-",
            f"{row.memory.loaded / 2**20:.0f}" if row.memory else "-",
            "-" if row.logit_difference is None else f"{row.logit_difference:.1e}",
            f"{figures.parameters:.2f} / {figures.latency:.2f}" if figures else "-",
        )
    return table


def _table(title: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("contender", overflow="fold", min_width=20)
    return table
