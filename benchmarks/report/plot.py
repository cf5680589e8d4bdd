"""Rows as a picture: every sample of every contender, with its quartiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from avsbg.atomic import atomic_file
from avsbg.benchmarks.results.rows import Row

_STABLE, _UNSTABLE = "#1f6f8b", "#9a9a9a"


def plot_latency(rows: Sequence[Row], *paths: Path) -> None:
    """Draw the latency distributions, one line each in the rows' order, and save them to each path.

    Args:
        rows: of one run.
        paths: the format goes by the suffix, e.g. `.png` or `.svg`.
    """
    figure = Figure(figsize=(9, 1.6 + 0.62 * len(rows)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    rng = np.random.default_rng(0)
    for position, row in enumerate(rows):
        milliseconds = 1e3 * np.asarray(row.latency.samples) / row.workload.clips
        colour = _STABLE if row.stable else _UNSTABLE
        jitter = position + rng.uniform(-0.22, 0.22, len(milliseconds))
        axes.scatter(milliseconds, jitter, s=9, alpha=0.55, color=colour, linewidths=0, zorder=2)
        low, middle, high = np.percentile(milliseconds, (25, 50, 75))
        axes.hlines(position, low, high, color="black", linewidth=2, zorder=3)
        axes.plot(middle, position, marker="|", markersize=16, markeredgewidth=2, color="black", zorder=3)
        note = f"{middle:.4g} ms" + ("" if row.stable else ", unstable")
        axes.annotate(note, (middle, position - 0.33), ha="left", va="bottom", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.set_xlim(left=0)
    axes.set_xlabel("ms per clip: every sample, median and quartiles")
    first = rows[0]
    axes.set_title(
        f"{first.workload.scope}, {first.environment.processor}, {first.backend.get('threads', '?')} threads, "
        f"clips of {first.workload.frames} x {first.workload.height} x {first.workload.width}",
        fontsize=9,
        loc="left",
    )
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    with rc_context({"svg.fonttype": "none"}):  # text stays text, which can be searched
        for path in paths:
            with atomic_file(path) as temporary:
                figure.savefig(temporary)
