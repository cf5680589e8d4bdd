"""Plots: the picture beside the rows of `avsbg bench`, and those of the report's page.

The page's are SVG that takes its colours from the page, so that it is legible in light and in dark.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avsbg.atomic import atomic_file
from avsbg.benchmarks.measure.profile import PARTS
from avsbg.benchmarks.report.labels import network_title, precision, way_title
from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.results.trust import accuracy_problems


@dataclass(frozen=True)
class Palette:
    """Colours of text and axes, of grids, and of what is a result and what is not."""

    ink: str
    grid: str
    good: str
    bad: str


WIDE, NARROW = 9.2, 4.6  # inches
_FILE = Palette("black", "#b0b0b0", "#1f6f8b", "#9a9a9a")
# Colours that stand for the page's own: matplotlib draws these, the page shows its variables.
_DRAWN = Palette("#010203", "#040506", "#070809", "#0a0b0c")
_SHOWN = Palette("var(--ink)", "var(--line)", "var(--accent)", "var(--muted)")
_PARTS = ("#7a6ff0", "#3987e5", "#1baf7a", "#eda100", "#e34948", "#d55181", "#199e70", "#8a8a86")
_STYLE = {
    "svg.fonttype": "none",  # text stays text, which can be searched
    "svg.hashsalt": "avsbg",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _DRAWN.ink,
    "axes.edgecolor": _DRAWN.grid,
    "axes.labelcolor": _DRAWN.ink,
    "xtick.color": _DRAWN.ink,
    "ytick.color": _DRAWN.ink,
    "grid.color": _DRAWN.grid,
}


def save_latency(rows: Sequence[Measurement], *paths: Path) -> None:
    """Draw a run's latency distributions, a line each in the rows' order, and save them by the suffix of each path."""
    figure = Figure(figsize=(9, 1.6 + 0.62 * len(rows)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _draw_latency(axes, rows, [row.label for row in rows], _FILE)
    first = rows[0]
    clip, processor = first.case, first.environment.processor if first.environment else "?"
    axes.set_title(
        f"{clip['scope']}, {processor}, {first.ran.backend.get('threads', '?')} threads, "
        f"clips of {clip['frames']} x {clip['height']} x {clip['width']}",
        fontsize=9,
        loc="left",
    )
    with rc_context({"svg.fonttype": "none"}):
        for path in paths:
            with atomic_file(path) as temporary:
                figure.savefig(temporary)


def latency(rows: Sequence[Measurement], *, width: float) -> str:
    """Every sample of every row with median and quartiles; unstable rows are grey."""
    with rc_context(_STYLE):
        figure, axes = _make_axes(0.62 * len(rows) + 0.9, width)
        names = [f"{network_title(r.ran.variant)}\n{way_title(r)}, {precision(r)}" for r in rows]
        _draw_latency(axes, rows, _fold(names, width))
        return _to_svg(figure, width, f"Latency of {len(rows)} rows, every sample, with median and quartiles")


def _draw_latency(axes: Axes, rows: Sequence[Measurement], names: Sequence[str], palette: Palette = _DRAWN) -> None:
    rng = np.random.default_rng(0)
    for position, row in enumerate(rows):
        milliseconds = 1e3 * np.asarray(row["latency"].samples)
        colour = palette.good if row.is_stable else palette.bad
        jitter = position + rng.uniform(-0.22, 0.22, len(milliseconds))
        axes.scatter(milliseconds, jitter, s=12, alpha=0.55, color=colour, linewidths=0, zorder=2)
        low, middle, high = np.percentile(milliseconds, (25, 50, 75))
        axes.hlines(position, low, high, color=palette.ink, linewidth=2, zorder=3)
        axes.plot(middle, position, marker="|", markersize=16, markeredgewidth=2, color=palette.ink, zorder=3)
        note = f"{middle:.4g} ms" + ("" if row.is_stable else " ~ unstable")
        axes.annotate(note, (middle, position - 0.33), ha="left", va="bottom", fontsize=8)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.set_xlim(left=0)
    axes.set_xlabel("ms per clip: every sample, median and quartiles")
    axes.grid(axis="x", color=palette.grid, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def part_bars(profiles: Sequence[Measurement], *, width: float) -> str:
    """Shares of the network's parts, one bar for each profiled row."""
    with rc_context(_STYLE):
        figure, axes = _make_axes(0.5 * len(profiles) + 1.2, width)
        names = [*PARTS, *sorted({name for row in profiles for name in row["time"].parts} - set(PARTS))]
        left = np.zeros(len(profiles))
        totals = np.array([row["time"].number for row in profiles])
        for name, colour in zip(names, _PARTS, strict=False):
            share = 100 * np.array([row["time"].parts.get(name, 0.0) for row in profiles]) / totals
            if share.any():
                axes.barh(range(len(share)), share, left=left, height=0.62, color=colour, label=name)
                left += share
        labels = [f"{network_title(row.ran.variant)}\n{row.label.partition(':')[2]}" for row in profiles]
        axes.set_yticks(range(len(labels)), _fold(labels, width))
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the profiled time")
        axes.legend(
            ncols=4 if width == WIDE else 2, loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False, fontsize=9
        )
        return _to_svg(figure, width, "Share of each part of the networks in the profiled time")


def roofline(rows: Sequence[Measurement], *, width: float) -> str:
    """Measured peaks, the networks as they ran, and the correlation operator's intensity."""
    peaks = {name: peak / 1e9 for name, peak in rows[0].run.peaks.items()}
    bandwidth = (rows[0].run.copy_rate or 0.0) / 1e9
    with rc_context(_STYLE):
        figure, axes = _make_axes(4.2, width)
        intensity = np.logspace(-0.5, 4.2, 100)
        for name, peak in peaks.items():
            axes.loglog(intensity, np.minimum(peak, bandwidth * intensity), color=_DRAWN.ink, linewidth=1.5)
            axes.annotate(
                f"{name} matrix product, {peak:.0f} GFLOP/s", (1.3e4, peak), ha="right", va="bottom", fontsize=9
            )
        for name, flop, traffic in operator_work():
            axes.axvline(flop / traffic, color=_DRAWN.bad, linestyle="--", linewidth=1)
            axes.annotate(name, (flop / traffic, 1.3), rotation=90, ha="right", va="bottom", fontsize=8)
        for row in rows:
            operations = row.value("operations")
            if operations and not accuracy_problems(row):
                point = operations / network_traffic(row), operations / row["latency"].summary.p50 / 1e9
                filling = _DRAWN.good if row.is_stable else "none"
                axes.plot(*point, marker="o", markersize=7, color=_DRAWN.good, markerfacecolor=filling)
        axes.set_xlabel("operations per byte of compulsory traffic")
        axes.set_ylabel("GFLOP/s")
        axes.set_ylim(1, 3 * max(peaks.values(), default=100))
        axes.grid(which="major")
        return _to_svg(
            figure, width, "Roofline: measured peaks of the processor, the networks, and the correlation operator"
        )


def trade(points: Sequence[tuple[str, float, float]], *, width: float) -> str:
    """Accuracy against latency; points are name, milliseconds and mIoU."""
    with rc_context(_STYLE):
        figure, axes = _make_axes(3.6, width)
        for name, milliseconds, score in points:
            axes.plot(milliseconds, score, marker="o", markersize=8, color=_DRAWN.good)
            axes.annotate(name, (milliseconds, score), xytext=(6, 4), textcoords="offset points", fontsize=9)
        axes.set_xlim(left=0)
        axes.set_xlabel("ms per clip")
        axes.set_ylabel("mIoU")
        axes.grid()
        return _to_svg(figure, width, "Accuracy against latency")


def operator_work() -> list[tuple[str, int, int]]:
    """The operator at stage 0 in fp32: name, operations, bytes; without and with a stored volume."""
    from avsbg.benchmarks.static.roofline import Work

    work = Work(side=56)
    compulsory = 2 * work.compulsory_bytes  # counted there for fp16
    return [
        ("operator, volume stored", work.flop, compulsory + 2 * work.volume_bytes),
        ("operator, ours", work.flop, compulsory),
    ]


def network_traffic(row: Measurement) -> float:
    """Bytes of the weights in fp32 once, of the frames, and of two outputs in fp32."""
    pixels: int = row.case["frames"] * row.case["height"] * row.case["width"]
    return 4 * row["needed_parameters"].number + pixels * 3 + 8 * pixels


def _fold(labels: Sequence[str], width: float) -> list[str]:
    """Labels in lines that leave most of a narrow plot to the plot."""
    if width == WIDE:
        return list(labels)
    return ["\n".join(textwrap.fill(line, 20) for line in label.splitlines()) for label in labels]


def _make_axes(height: float, width: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height if width == WIDE else 1.3 * height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _to_svg(figure: Figure, width: float, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    for name in ("ink", "grid", "good", "bad"):
        text = text.replace(getattr(_DRAWN, name), getattr(_SHOWN, name))
    # Two plots of one page must not share the names of their clip paths and markers.
    prefix = re.sub(r"[^a-z]", "", title.lower())[:16] + ("" if width == WIDE else "-narrow")
    text = re.sub(r'(id="|url\(#|href="#)', rf"\1{prefix}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
