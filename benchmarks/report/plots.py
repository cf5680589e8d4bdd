"""The plots of a report, as SVG that takes its colours from the page, so that it is legible in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avsbg.benchmarks.measure.profile import PARTS
from avsbg.benchmarks.report.content import Run
from avsbg.benchmarks.report.labels import network_title, precision, way_title
from avsbg.benchmarks.results.rows import Row

# Colours that stand for the page's own: matplotlib draws the left, the page shows the right.
_INK, _GRID, _GOOD, _BAD = "#010203", "#040506", "#070809", "#0a0b0c"
_PAGE = {_INK: "var(--ink)", _GRID: "var(--line)", _GOOD: "var(--accent)", _BAD: "var(--muted)"}
_STAGES = ("#7a6ff0", "#3987e5", "#1baf7a", "#eda100", "#e34948", "#d55181", "#199e70", "#8a8a86")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "avsbg",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
}


def latency(run: Run) -> str:
    """Every sample of every row with median and quartiles; unstable rows are grey."""
    with rc_context(_STYLE):
        figure, axes = _axes(0.62 * len(run.rows) + 0.9)
        rng = np.random.default_rng(0)
        for position, row in enumerate(run.rows):
            values = 1e3 * np.asarray(row.latency.samples) / row.workload.clips
            colour = _GOOD if row.stable else _BAD
            axes.scatter(
                values, position + rng.uniform(-0.2, 0.2, len(values)), s=14, alpha=0.6, color=colour, linewidths=0
            )
            low, middle, high = np.percentile(values, (25, 50, 75))
            axes.hlines(position, low, high, color=_INK, linewidth=2)
            axes.plot(middle, position, marker="|", markersize=15, markeredgewidth=2, color=_INK)
        axes.set_yticks(range(len(run.rows)), [_name(row) for row in run.rows])
        axes.set_ylim(len(run.rows) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("ms per clip")
        axes.grid(axis="x")
        return _svg(figure, f"Latency of {len(run.rows)} rows, every sample, with median and quartiles")


def stage_bars(run: Run) -> str:
    """Shares of the stages, one bar for each profiled row."""
    with rc_context(_STYLE):
        figure, axes = _axes(0.5 * len(run.profiles) + 1.2)
        names = [*PARTS, *sorted({name for row in run.profiles for name in row.stages} - set(PARTS))]
        left = np.zeros(len(run.profiles))
        totals = np.array([sum(row.stages.values()) for row in run.profiles])
        for name, colour in zip(names, _STAGES, strict=False):
            share = 100 * np.array([row.stages.get(name, 0.0) for row in run.profiles]) / totals
            if share.any():
                axes.barh(range(len(share)), share, left=left, height=0.62, color=colour, label=name)
                left += share
        labels = [f"{network_title(row.variant)}\n{row.label.partition(':')[2]}" for row in run.profiles]
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the profiled time")
        axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False, fontsize=9)
        return _svg(figure, "Share of each stage of the networks in the profiled time")


def roofline(run: Run) -> str:
    """Measured peaks, the networks as they ran, and the correlation operator's intensity."""
    peaks, bandwidth = run.first.run.peak_gflops or {}, run.first.run.copy_gb_s or 0.0
    with rc_context(_STYLE):
        figure, axes = _axes(4.2)
        intensity = np.logspace(-0.5, 4.2, 100)
        for name, peak in peaks.items():
            axes.loglog(intensity, np.minimum(peak, bandwidth * intensity), color=_INK, linewidth=1.5)
            axes.annotate(
                f"{name} matrix product, {peak:.0f} GFLOP/s", (1.3e4, peak), ha="right", va="bottom", fontsize=9
            )
        for name, flop, traffic in operator_work():
            axes.axvline(flop / traffic, color=_BAD, linestyle="--", linewidth=1)
            axes.annotate(name, (flop / traffic, 1.3), rotation=90, ha="right", va="bottom", fontsize=8)
        for row in run.rows:
            if row.flops and row.stable:
                point = row.flops.total / network_traffic(row), row.flops.total / row.latency.per_clip.p50 / 1e9
                axes.plot(*point, marker="o", markersize=7, color=_GOOD)
        axes.set_xlabel("operations per byte of compulsory traffic")
        axes.set_ylabel("GFLOP/s")
        axes.set_ylim(1, 3 * max(peaks.values(), default=100))
        axes.grid(which="major")
        return _svg(figure, "Roofline: measured peaks of the processor, the networks, and the correlation operator")


def trade(points: Sequence[tuple[str, float, float]]) -> str:
    """Accuracy against latency; points are name, milliseconds and mIoU."""
    with rc_context(_STYLE):
        figure, axes = _axes(3.6)
        for name, milliseconds, score in points:
            axes.plot(milliseconds, score, marker="o", markersize=8, color=_GOOD)
            axes.annotate(name, (milliseconds, score), xytext=(6, 4), textcoords="offset points", fontsize=9)
        axes.set_xlim(left=0)
        axes.set_xlabel("ms per clip")
        axes.set_ylabel("mIoU")
        axes.grid()
        return _svg(figure, "Accuracy against latency")


def operator_work() -> list[tuple[str, int, int]]:
    """The operator at stage 0 in fp32: name, operations, bytes; without and with a stored volume."""
    from avsbg.benchmarks.static.roofline import Work

    work = Work(side=56)
    compulsory = 2 * work.compulsory_bytes  # counted there for fp16
    return [
        ("operator, volume stored", work.flop, compulsory + 2 * work.volume_bytes),
        ("operator, ours", work.flop, compulsory),
    ]


def network_traffic(row: Row) -> int:
    """Weights in fp32 once, frames in, two outputs in fp32."""
    pixels = row.workload.frames * row.workload.height * row.workload.width
    return 4 * row.parameters.inference + pixels * 3 + 8 * pixels


def _name(row: Row) -> str:
    return f"{network_title(row.variant)}\n{way_title(row)}, {precision(row)}"


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9.2, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    for drawn, shown in _PAGE.items():
        text = text.replace(drawn, shown)
    # Two plots of one page must not share the names of their clip paths and markers.
    prefix = re.sub(r"[^a-z]", "", title.lower())[:16]
    text = re.sub(r'(id="|url\(#|href="#)', rf"\1{prefix}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
