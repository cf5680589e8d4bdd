"""Tables of collections: throughput of each engine, and what hours of video take on a number of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from avsbg.benchmarks.report.tables import Columns, markdown, markdown_of, number, with_interval
from avsbg.benchmarks.results.schema import Measurement

NODES = (1, 10, 100)
HOURS = 1000  # of video
_LINK = 1.25e9  # bytes per second of 10 Gbit/s
_TITLES = {
    "one process": "`avsbg run`, one process",
    "local": "`avsbg batch --engine local`",
    "ray": "`avsbg batch --engine ray`",
}


def throughput_table(rows: Sequence[Measurement]) -> str:
    """Seconds of video per second by engine, with the ratio to one process, as Markdown."""
    columns: Columns[Measurement] = [
        ("", lambda row: _TITLES[row.case["engine"]]),
        ("workers", lambda row: number(row.case["workers"])),
        ("threads of each", lambda row: number(row.case["threads"])),
        ("s of video per s", lambda row: number(f"{_rate(row):.1f}")),
        ("throughput, one process: 1", lambda row: with_interval(row["ratio"], ".2f")),
    ]
    first = rows[0]
    assert first.environment is not None
    others = "; ".join(f"{row.label}: {', '.join(row.problems)}" for row in rows if row.problems)
    return (
        f"{markdown(rows, columns)}\n\n"
        f"{first.ran.network}, {first.environment.processor}, {len(first.environment.cores)} cores; "
        f"{first.case['videos']} videos, {first.case['video_seconds']} s together; whole commands in turn, "
        f"{len(first['duration'].samples)} rounds." + (f" Not stable: {others}." if others else "")
    )


def cost_table(rows: Sequence[Measurement]) -> str:
    """The projected time of hours of video on nodes such as the one that was measured, and what limits them."""
    one = next(row for row in rows if row.case["engine"] == "one process")
    ray = next(row for row in rows if row.case["engine"] == "ray")
    assert ray.environment is not None
    rate = _rate(ray)
    # Bytes per second on a node: rows of earlier versions do not have those of the outputs.
    flows = {"reads": ray.case["video_bytes"], "writes": ray.case.get("output_bytes")}
    flows = {name: rate * size / ray.case["video_seconds"] for name, size in flows.items() if size is not None}
    cells = [
        [
            str(n),
            f"{_short(HOURS / (rate * n))} h",
            f"{_short(HOURS / rate)} h",
            *(f"{_short(n * flow / 1e6)} MB/s" for flow in flows.values()),
        ]
        for n in NODES
    ]
    steps = {step: one.case["video_seconds"] / one[step].number for step in ("inference", "decode", "overlay")}
    slowest, second = sorted(steps, key=steps.__getitem__)[:2]
    titles = ["nodes", f"{HOURS} h of video take", "hours of nodes", *(f"storage {name}" for name in flows)]
    names = {"inference": "the network", "decode": "the decoder", "overlay": "the encoder of overlays"}
    return (
        f"{markdown_of(titles, cells)}\n\n"
        f"A node is what was measured: {len(ray.environment.cores)} cores, {rate:.1f} s of video per second over Ray. "
        f"Alone, the network would do {steps['inference']:.1f}, the decoder {steps['decode']:.0f} and the encoder of "
        f"overlays {steps['overlay']:.0f}; in one process they share the cores and did {_rate(one):.1f}, with its "
        f"start. Most of the time goes into {names[slowest]}, until it is {steps[second] / steps[slowest]:.1f} "
        f"times as fast, and then into {names[second]}. Storage limits a node where it {_least(flows)}, and a link of "
        f"10 Gbit/s, which carries as much either way, is full at {_LINK / max(flows.values()):,.0f} nodes."
        + ("" if "writes" in flows else " What is written was not counted.")
    )


def _least(flows: Mapping[str, float]) -> str:
    """The rates at which storage limits a node, in words."""
    return " or ".join(f"{name} less than {_short(flow / 1e6)} MB/s" for name, flow in flows.items())


def _rate(row: Measurement) -> float:
    return float(row.case["video_seconds"]) / row["duration"].summary.p50


def _short(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
