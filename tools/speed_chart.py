"""The README's speed chart, from the committed rows: `python -m tools.speed_chart` draws it again."""

from __future__ import annotations

from pathlib import Path

from avsbg.atomic import atomic_file
from avsbg.benchmarks.report.labels import precision, way_title
from avsbg.benchmarks.results.schema import Measurement, read_rows

ROOT = Path(__file__).parents[1]
CHART = ROOT / "docs/media/speed.svg"
Bar = tuple[str, float, float]  # its name, the median in milliseconds, and how much faster than the first, in pairs


def ladder_bars(path: Path) -> list[Bar]:
    """Each step of the ladder of docs/speed.md that is a result: the time of a clip, the slowest first."""
    rows = [row for row in read_rows(path, "latency") if row.is_stable]
    bars = [(_title(row), _median(row, "latency"), 1 / float(row["ratio"].number)) for row in rows]
    return sorted(bars, key=lambda bar: -bar[1])


def stream_bars(path: Path) -> list[Bar]:
    """The time of a new frame of AVS-BG with PVT-v2-b5: by its clip computed again, and in a stream."""
    row = next(row for row in read_rows(path) if row.kind == "stream-pairs" and row.case["height"] == 224)
    stream = ("stream", _median(row, "stream"), 1 / float(row["ratio"].number))
    return [("clip of 5 frames again", _median(row, "clip"), 1.0), stream]


def _title(row: Measurement) -> str:
    rest = row.ran.backend.get("rest")
    return f"{way_title(row)}, {precision(row)}{f', the rest {rest}' if rest else ''}"


def _median(row: Measurement, metric: str) -> float:
    return 1e3 * float(row[metric].summary.p50)


def processor(path: Path) -> str:
    """The processor that rows were measured on, in words."""
    environment = next(row.environment for row in read_rows(path) if row.environment is not None)
    return f"{environment.processor.replace('(R)', '')}, {len(environment.cores)} cores"


def draw(ladder: list[Bar], stream: list[Bar], processors: tuple[str, str], path: Path) -> None:
    """Draw both as horizontal bars, into an SVG file whose bytes depend on the arguments alone."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "avsbg", "svg.fonttype": "none", "font.family": "sans-serif"})
    from matplotlib import pyplot

    heights = [len(ladder), len(stream)]
    figure, axes = pyplot.subplots(2, 1, figsize=(8, 0.36 * sum(heights) + 2.1), height_ratios=heights, sharex=True)
    titles = ("A clip of 5 frames, AVS-BG with PVT-v2-b5", "A new frame of a stream of it, ONNX Runtime, fp32")
    for axis, bars, title, machine in zip(axes, (ladder, stream), titles, processors, strict=True):
        drawn = axis.barh([bar[0] for bar in bars], [bar[1] for bar in bars], color="#546e7a")
        drawn[0].set_color("#b0bec5")  # what the others are compared with
        labels = [f"{value:.0f} ms" + f", {speed:.2f}x" * (speed != 1) for _, value, speed in bars]
        axis.bar_label(drawn, labels, padding=3)
        axis.set_title(f"{title}\n{machine}", loc="left", fontsize=11)
        axis.invert_yaxis()
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(bottom=False, labelbottom=False, left=False)
        axis.margins(x=0.22)
    figure.tight_layout()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)


def main() -> None:
    """Draw the chart of the committed rows."""
    results = ROOT / "benchmarks/results"
    speed, streaming = results / "speed.jsonl", results / "streaming.jsonl"
    draw(ladder_bars(speed), stream_bars(streaming), (processor(speed), processor(streaming)), CHART)
    print(CHART.relative_to(ROOT))


if __name__ == "__main__":
    main()
