"""Tables and sentences of streams."""

from __future__ import annotations

from collections.abc import Sequence

from avsbg.benchmarks.report.labels import network_title
from avsbg.benchmarks.report.tables import Columns, Table, make_table, number, with_interval
from avsbg.benchmarks.results.schema import Measurement

_MIB = 2**20
_AUDIO = {"log_mel": "log-mel", "audio_embedding": "audio embeddings"}


def rate_table(rows: Sequence[Measurement]) -> Table:
    """Latency, misses, load and memory at each rate of frames."""

    def percentile(row: Measurement, name: str) -> str:
        return f"{1e3 * getattr(row['latency'].summary, name):.0f}"

    def memory(row: Measurement) -> str:
        return f"{(row['peak_memory'].number - row['imported_memory'].number) / _MIB:.0f}"

    columns: Columns[Measurement] = [
        ("frames/s", lambda row: "full speed" if row.case["rate"] is None else f"{row.case['rate']:g}"),
        ("masks/s", lambda row: number(f"{row['masks'].number / row['duration'].number:.2f}")),
        ("p50 ms", lambda row: number(percentile(row, "p50"))),
        ("p90", lambda row: number(percentile(row, "p90"))),
        ("p95", lambda row: number(percentile(row, "p95"))),
        ("p99", lambda row: number(percentile(row, "p99"))),
        ("jitter ms", lambda row: number(f"{1e3 * row['jitter'].number:.0f}")),
        ("missed", lambda row: number(f"{row['missed'].number} of {row['offered'].number}")),
        ("cores busy", lambda row: number(f"{row['busy_cores'].number:.2f}")),
        ("peak MiB", lambda row: number(memory(row))),
    ]
    return make_table(rows, columns)


def pairs_table(rows: Sequence[Measurement]) -> Table:
    """Clip mode and streaming in pairs; a time is marked where its samples are not stable."""

    def milliseconds(row: Measurement, name: str) -> str:
        doubt = " ~" if any(problem.startswith(f"{name}:") for problem in row.problems) else ""
        return f"{1e3 * row[name].summary.p50:.0f}{doubt}"

    columns: Columns[Measurement] = [
        ("stream", stream_title),
        ("new frame in a stream, ms", lambda row: number(milliseconds(row, "stream"))),
        ("its clip again, ms", lambda row: number(milliseconds(row, "clip"))),
        ("frame to clip [95% interval]", lambda row: with_interval(row["ratio"])),
        ("rate per frame, clip mode: 1", lambda row: number(f"{1 / (row.case['frames'] * row['ratio'].number):.2f}")),
    ]
    return make_table(rows, columns)


def describe_stream(row: Measurement) -> str:
    """A row of `avsbg bench stream` as a line or a sentence."""
    if row.kind == "stream-rate":
        return " ".join(cell.text for cell in rate_table([row]).rows[0])
    if row.kind == "stream-pairs":
        return _compare_with_clips(row)
    return _describe_difference(row) if row.kind == "stream-difference" else _describe_soak(row)


def stream_title(row: Measurement) -> str:
    """The network of a stream, its sizes and its target."""
    case = row.case
    audio = _AUDIO.get(case["audio"], case["audio"])
    return f"{network_title(row.ran.variant)}, {case['height']} x {case['width']}, {audio}, `{case['target']}`"


def _compare_with_clips(row: Measurement) -> str:
    ratio, bound = row["ratio"], 0.25
    stream, clip = row["stream"].summary, row["clip"].summary
    outcome = (
        "within"
        if ratio.high is not None and ratio.high <= bound
        else "not shown to be within"
        if ratio.number <= bound
        else "above"
    )
    doubts = f" These samples are not stable ({'; '.join(row.problems)})." if row.problems else ""
    return (
        f"{stream_title(row)}: a new frame costs {1e3 * stream.p50:.0f} ms in a stream and "
        f"{1e3 * clip.p50:.0f} ms by running the clip of {row.case['frames']} again (medians of {clip.n} pairs). In "
        f"pairs a stream takes {with_interval(ratio)} of clip mode's time, {outcome} a quarter, and "
        f"reaches {1 / (row.case['frames'] * ratio.number):.2f} of its rate per frame.{doubts}"
    )


def _describe_difference(row: Measurement) -> str:
    trained = row.ran.weights.get("seed") is None
    weights = "trained weights" if trained else "random weights, so it shows the size of the effect and no accuracy"
    return (
        f'{network_title(row.ran.variant)} without latency (`latency="zero"`), on {row["frames"].number} frames of '
        f"{row.case['input']}: probabilities differ from the exact ones by {row['mean'].number:.2g} on average and "
        f"{row['largest'].number:.2g} at most, "
        f"and {row['flipped'].number:.2%} of the pixels change sides ({weights})."
    )


def _describe_soak(row: Measurement) -> str:
    incomplete = row["incomplete"].number
    sound = "" if row.case["audio"] == "audio_embedding" else f", {incomplete} with sound missing"
    resident = row["resident"].samples
    return (
        f"A stream of {row['span'].number / 3600:.2g} h ({row['frames'].number} frames, {stream_title(row)}) sent "
        f"through in {row['duration'].number / 60:.1f} minutes: {row['masks'].number} masks, {row['lost'].number} "
        f"lost, {row['dropped'].number} dropped{sound}; resident memory {min(resident) / _MIB:.0f} to "
        f"{max(resident) / _MIB:.0f} MiB, {row['growth'].number / _MIB:+.1f} MiB from the second quarter to the last."
    )
