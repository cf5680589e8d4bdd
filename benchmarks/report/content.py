"""The content of a report: rows of files, each with the section that shows its kind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report import gpu
from avsbg.benchmarks.report.classes import read_class_scores
from avsbg.benchmarks.results.schema import PROFILE, Measurement, read_rows

STREAMS = ("stream-rate", "stream-pairs", "stream-difference", "stream-soak")


@dataclass(frozen=True)
class RunRows:
    """The latencies of one run, with the profiles beside them."""

    source: str
    rows: list[Measurement]
    profiles: list[Measurement]

    @property
    def first(self) -> Measurement:
        return self.rows[0]

    @property
    def title(self) -> str:
        """The machine and what was measured on it."""
        row = self.first
        clips, processor = row.case["clips"], row.environment.processor if row.environment else "?"
        plural = "s" if clips > 1 else ""
        described = row.ran.backend
        device = described["gpu"] if "gpu" in described else f"{described.get('threads', '?')} threads"
        return f"{processor}, {device}, {row.case['scope']}, {clips} clip{plural} a call"


@dataclass(frozen=True)
class GpuRows:
    """The rows of scripts/on-gpu.sh in one file, but for latencies, which are a `RunRows`."""

    source: str
    rows: list[Measurement]

    @property
    def title(self) -> str:
        """The GPU."""
        return gpu.machine_title(self.rows[0])


@dataclass
class Report:
    """All that a page shows."""

    runs: list[RunRows]
    gpus: list[GpuRows] = field(default_factory=list)
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    streaming: list[Measurement] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    unshown: list[tuple[str, str]] = field(default_factory=list)  # a file, and its rows that no section knows

    @property
    def rows(self) -> list[Measurement]:
        return [row for run in self.runs for row in run.rows]

    @property
    def timed(self) -> list[Measurement]:
        """Every row with times of its own: of networks, and of the operator on a GPU."""
        return [*self.rows, *(row for found in self.gpus for row in found.rows if row.kind == "gpu-operator")]

    @property
    def unstable(self) -> list[Measurement]:
        return [row for row in self.timed if not row.is_stable]


def gather(
    paths: Sequence[Path], *, accuracy: Path | None = None, streaming: Path | None = None, classes: Sequence[Path] = ()
) -> Report:
    """Read result directories (or files of rows), and what is known of accuracy, of classes, and of streaming.

    A file may hold several kinds of rows. A `BenchmarkError` if no section knows any row of a file, or as `read_rows`.
    """
    scores = [read_class_scores(path) for path in classes]
    streams = read_rows(streaming, *STREAMS) if streaming else []
    report = Report([], accuracy=_read_objects(accuracy), streaming=streams, classes=scores)
    for path in paths:
        _sort(report, path)
    return report


def _sort(report: Report, path: Path) -> None:
    """Add the rows of a file to the sections that know their kinds."""
    beside = (path if path.is_dir() else path.parent) / PROFILE
    rows = read_rows(path)
    profiles = [row for row in rows if row.kind == "profile"]
    profiles += read_rows(beside, "profile") if beside.is_file() and beside != path else []
    latencies: dict[object, list[Measurement]] = {}
    for row in rows:
        if row.kind == "latency":
            latencies.setdefault((row.run.started, row.run.command), []).append(row)
    runs = [RunRows(path.name, found, [] if number else profiles) for number, found in enumerate(latencies.values())]
    measured = [row for row in rows if row.kind in gpu.KINDS]
    streams = [row for row in rows if row.kind in STREAMS]
    # A profile is shown beside the latencies that it explains.
    known = {"latency", *gpu.KINDS, *STREAMS} | ({"profile"} if runs else set())
    others = Counter(row.kind for row in rows if row.kind not in known)
    told = ", ".join(f"{count} of the kind {kind}" for kind, count in others.items())
    if not runs and not measured and not streams:
        raise BenchmarkError(
            f"{path}: no section of the report shows its rows: {told}.",
            f"Give it rows of latencies, of streams, or of scripts/on-gpu.sh ({', '.join(gpu.KINDS)}).",
        )
    report.runs += runs
    report.gpus += [GpuRows(path.name, measured)] if measured else []
    report.streaming += streams
    report.unshown += [(path.name, told)] if told else []


def _read_objects(path: Path | None) -> list[dict[str, Any]]:
    """JSON Lines of another tool; what a line has beyond what is shown is left alone."""
    if path is None:
        return []
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read as JSON lines: {error}.") from error
    return [row for row in found if isinstance(row, dict)]
