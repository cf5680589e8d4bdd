"""The rows of the streaming benchmark as lines for a terminal and as the measured part of docs/streaming.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsbg.benchmarks.report.labels import network_title
from avsbg.benchmarks.results.streaming_rows import DifferenceRow, PaceRow, PairsRow, SoakRow, StreamingRow, read_rows

_MIB = 2**20


def render(path: Path) -> str:
    """Committed rows as docs/streaming.md shows them."""
    rows = read_rows(path)
    environment = rows[0].run.environment
    load = max(row.others for row in rows if isinstance(row, PaceRow | PairsRow))
    parts = [
        f"{environment.processor}, {environment.cores.physical} cores. Other programs used up to {load:.0%} of the "
        "processor meanwhile; nothing is dropped from the samples."
    ]
    parts += [_pairs(row) for row in rows if isinstance(row, PairsRow)]
    if paces := [row for row in rows if isinstance(row, PaceRow)]:
        parts.append(_paces(paces))
    parts += [_difference(row) for row in rows if isinstance(row, DifferenceRow)]
    parts += [_soak(row) for row in rows if isinstance(row, SoakRow)]
    return "\n\n".join(parts)


def console_lines(rows: Sequence[StreamingRow]) -> list[str]:
    """One line, or a few, per row."""
    lines = []
    for row in rows:
        if isinstance(row, PairsRow):
            lines.append(_pairs(row))
        elif isinstance(row, PaceRow):
            lines.append(" ".join(_pace_cells(row)))
        elif isinstance(row, DifferenceRow):
            lines.append(_difference(row))
        else:
            lines.append(_soak(row))
    return lines


def _title(row: StreamingRow) -> str:
    height, width = row.run.size
    forms = {"waveform": "waveform", "log_mel": "log-mel", "audio_embedding": "audio embeddings"}
    form = forms.get(row.run.audio, row.run.audio)
    return f"{network_title(row.run.variant)}, {height} x {width}, {form}, `{row.run.target}`"


def _pairs(row: PairsRow) -> str:
    ratio, bound = row.ratio, 0.25
    verdict = "within" if ratio.high <= bound else "not shown to be within" if ratio.median <= bound else "above"
    doubts = f" These samples are not stable ({'; '.join(row.problems)})." if row.problems else ""
    return (
        f"{_title(row)}: a new frame costs {1e3 * row.stream_summary.p50:.0f} ms in a stream and "
        f"{1e3 * row.clip_summary.p50:.0f} ms by running the clip of {row.run.frames_per_clip} again (medians of "
        f"{row.clip_summary.n} pairs). In pairs a stream takes {ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] "
        f"of clip mode's time, {verdict} a quarter.{doubts}"
    )


def _pace_cells(row: PaceRow) -> list[str]:
    latency = [f"{1e3 * value:.0f}" for value in (row.latency.p50, row.latency.p90, row.latency.p95, row.latency.p99)]
    return [
        "full speed" if row.rate is None else f"{row.rate:g}",
        f"{row.masks / row.seconds:.2f}",
        *latency,
        f"{1e3 * row.jitter:.0f}",
        f"{row.missed} of {row.offered}",
        f"{row.cpu:.2f}",
        f"{(row.memory.peak - row.memory.imported) / _MIB:.0f}",
    ]


def _paces(rows: Sequence[PaceRow]) -> str:
    head = ["frames/s", "masks/s", "p50 ms", "p90", "p95", "p99", "jitter ms", "missed", "cores busy", "peak MiB"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_pace_cells(row))} |" for row in rows]
    return f"{_title(rows[0])}, exact masks:\n\n" + "\n".join(lines)


def _difference(row: DifferenceRow) -> str:
    seed = row.run.bundle.weights.get("seed")
    weights = (
        "trained weights" if seed is None else "random weights, so it shows the size of the effect and no accuracy"
    )
    return (
        f'Without latency (`latency="zero"`), on {row.frames} frames of {row.input}: probabilities differ from the '
        f"exact ones by {row.mean:.2g} on average and {row.largest:.2g} at most, and {row.flipped:.2%} of the pixels "
        f"change sides ({weights})."
    )


def _soak(row: SoakRow) -> str:
    sound = "" if row.run.audio == "audio_embedding" else f", {row.incomplete} with sound missing"
    return (
        f"A stream of {row.stream_seconds / 3600:.2g} h ({row.frames} frames, {_title(row)}) sent through in "
        f"{row.seconds / 60:.1f} minutes: {row.masks} masks, {row.lost} lost, {row.dropped} dropped{sound}; "
        f"resident memory {min(row.resident) / _MIB:.0f} to {max(row.resident) / _MIB:.0f} MiB, "
        f"{row.growth / _MIB:+.1f} MiB from the second quarter to the last."
    )
