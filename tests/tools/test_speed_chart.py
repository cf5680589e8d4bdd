"""The README's speed chart shows the committed rows."""

from __future__ import annotations

from fixtures import ROOT
from tools.speed_chart import CHART, ladder_bars, stream_bars

RESULTS = ROOT / "benchmarks/results"


def test_the_chart_shows_every_bar_of_the_committed_rows() -> None:
    text = CHART.read_text(encoding="utf-8")
    bars = [*ladder_bars(RESULTS / "speed.jsonl"), *stream_bars(RESULTS / "streaming.jsonl")]
    assert len(bars) > 8 and len({name for name, *_ in bars}) == len(bars)
    for name, milliseconds, speed in bars:
        label = f"{milliseconds:.0f} ms" + f", {speed:.2f}x" * (speed != 1)
        assert f">{name}<" in text and f">{label}<" in text, f"python -m tools.speed_chart: {name} {label}"
