"""What a report says, gathered from rows: tables of plain text, which the HTML page and the Markdown page both show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.profile import PARTS, part_title
from avsbg.benchmarks.report.estimates import Estimate, estimates
from avsbg.benchmarks.report.labels import network_title, precision, way_title
from avsbg.benchmarks.report.paper import DEVICE, paper_figures
from avsbg.benchmarks.results.profile_rows import PROFILE, ProfileRow, read_profiles
from avsbg.benchmarks.results.rows import ROWS, Row, read_rows

UNSTABLE = "unstable"


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `mark` is `number`, `unstable` or empty, `detail` a second line in small print."""

    text: str
    mark: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Headings and rows of cells, with a sentence on what it shows."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Run:
    """The rows of one file, with the profiles beside it."""

    source: str
    rows: list[Row]
    profiles: list[ProfileRow]

    @property
    def first(self) -> Row:
        return self.rows[0]

    @property
    def title(self) -> str:
        """The machine and what was measured on it."""
        row = self.first
        clips = f"{row.workload.clips} clip{'s' if row.workload.clips > 1 else ''} a call"
        return f"{row.environment.processor}, {row.backend.get('threads', '?')} threads, {row.workload.scope}, {clips}"


@dataclass
class Report:
    """All that a page shows."""

    runs: list[Run]
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    streaming: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        return [row for run in self.runs for row in run.rows]

    @property
    def stable(self) -> int:
        return sum(row.stable for row in self.rows)

    def estimates(self) -> list[Estimate]:
        """Bounds for devices that were not measured, one for each network, device and precision."""
        return estimates(self.rows)


def gather(paths: Sequence[Path], *, accuracy: Path | None = None, streaming: Path | None = None) -> Report:
    """Read result directories (or files of rows), and what is known of accuracy and streaming.

    Raises:
        BenchmarkError: a file cannot be read, or holds no rows.
    """
    runs = []
    for path in paths:
        file = path / ROWS if path.is_dir() else path
        runs.append(
            Run(file.name if path.is_file() else path.name, read_rows(file), read_profiles(file.parent / PROFILE))
        )
    return Report(runs, _objects(accuracy), _objects(streaming))


def _objects(path: Path | None) -> list[dict[str, Any]]:
    """JSON Lines of another tool; what a line has beyond what is shown is left alone."""
    if path is None:
        return []
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read as JSON lines: {error}.") from error
    return [row for row in found if isinstance(row, dict)]


def table7(run: Run) -> Table:
    """The paper's Table 7, measured; a row that is unstable has no time."""
    first, rows = run.first, []
    for row in run.rows:
        paper = paper_figures(row.variant)
        rows.append(
            (
                Cell(network_title(row.variant), detail=way_title(row)),
                Cell(precision(row)),
                _time(row),
                _ratio(row, first),
                Cell(f"{row.parameters.published / 1e6:.2f}", "number", f"{row.parameters.inference / 1e6:.2f} needed"),
                Cell(f"{row.flops.total / 1e9:.1f}" if row.flops else "", "number"),
                Cell(f"{row.memory.peak / 2**20:.0f}" if row.memory else "", "number"),
                Cell(
                    f"{paper.latency:.2f} ms" if paper else "", "number", f"{paper.parameters:.2f} M" if paper else ""
                ),
            )
        )
    return Table(
        f"Milliseconds per clip, median and 90th percentile; time relative to the first row with its "
        f"{first.ratio.confidence:.0%} interval. The last column is the paper's, on its {DEVICE}.",
        ("network, run by", "precision", "p50 / p90 ms", "of the first", "parameters M", "GFLOP", "peak MiB", "paper"),
        tuple(rows),
    )


def _time(row: Row) -> Cell:
    if not row.stable:
        return Cell(UNSTABLE, "unstable", "not a result")
    summary = row.latency.per_clip
    return Cell(f"{1e3 * summary.p50:.1f} / {1e3 * summary.p90:.1f}", "number", f"{1 / summary.p50:.2f} clips/s")


def _ratio(row: Row, first: Row) -> Cell:
    if not row.stable or not first.stable:
        return Cell(UNSTABLE, "unstable")
    if row is first:
        return Cell("1", "number", "reference")
    ratio = row.ratio
    return Cell(f"{ratio.median:.3f}", "number", f"{ratio.low:.3f} to {ratio.high:.3f}")


def distributions(run: Run) -> Table:
    """Every stable row's percentiles."""
    rows = []
    for row in run.rows:
        summary = row.latency.per_clip
        figures = (summary.p50, summary.p90, summary.p95, summary.p99)
        cells = (
            [Cell(f"{1e3 * value:.1f}", "number") for value in figures]
            if row.stable
            else [Cell(UNSTABLE, "unstable")] * 4
        )
        drift = "" if row.latency.drift is None else f"{row.latency.drift:+.1%}"
        rows.append(
            (
                Cell(network_title(row.variant), detail=f"{way_title(row)}, {precision(row)}"),
                *cells,
                Cell(f"{summary.variation:.1%}", "number"),
                Cell(drift, "number"),
                Cell(str(summary.n), "number"),
            )
        )
    return Table("Milliseconds per clip.", ("row", "p50", "p90", "p95", "p99", "CV", "drift", "samples"), tuple(rows))


def memory(run: Run) -> Table:
    """Peak memory of each row, in a process of its own."""
    rows = []
    for row in run.rows:
        if row.memory:
            sizes = (row.memory.peak, row.memory.loaded, row.memory.load_peak)
            cells = [Cell(f"{size / 2**20:.0f}", "number") for size in sizes]
            rows.append((Cell(network_title(row.variant), detail=f"{way_title(row)}, {precision(row)}"), *cells))
    return Table(
        "MiB, interpreter and libraries included.", ("row", "peak", "loaded", "peak while loading"), tuple(rows)
    )


def stages(run: Run) -> Table:
    """Share of each stage in a profiled run, and the rate that its operations run at."""
    names = [name for name in PARTS if any(name in row.stages for row in run.profiles)]
    rows = []
    for profile in run.profiles:
        total = sum(profile.stages.values())
        flops = _stage_flops(run, profile.label)
        cells = []
        for name in names:
            seconds = profile.stages.get(name, 0.0)
            rate = f"{flops[name] / seconds / 1e9:.0f} GFLOP/s" if seconds and name in flops else ""
            cells.append(Cell(f"{seconds / total:.1%}" if seconds else "", "number", rate))
        rows.append((_profile_title(profile), *cells))
    return Table(
        "Share of the profiled time. Profiling slows a run down: proportions, not latency.",
        ("row", *names),
        tuple(rows),
    )


def _profile_title(profile: ProfileRow) -> Cell:
    target = profile.label.partition(":")[2] or profile.label
    return Cell(network_title(profile.variant), detail=f"{target}; {profile.source}")


def _stage_flops(run: Run, label: str) -> dict[str, int]:
    row = next((row for row in run.rows if row.label == label), None)
    return {part_title(part): count for part, count in row.flops.parts.items()} if row and row.flops else {}


def bound(run: Run) -> Table:
    """How far each row is from what the processor's own matrix product reaches, measured in the same run."""
    peaks, rows = run.first.run.peak_gflops or {}, []
    for row in run.rows:
        peak = peaks.get(precision(row))
        if row.flops and peak:
            least = row.flops.total / peak / 1e9
            rows.append(
                (
                    Cell(network_title(row.variant), detail=f"{way_title(row)}, {precision(row)}"),
                    Cell(f"{row.flops.total / 1e9:.1f} / {peak:.0f}", "number", "GFLOP / GFLOP/s"),
                    Cell(f"{1e3 * least:.0f}", "number"),
                    _time(row),
                    Cell(
                        f"{row.latency.per_clip.p50 / least:.2f}" if row.stable else UNSTABLE,
                        "number" if row.stable else "unstable",
                    ),
                )
            )
    return Table(
        "The bound is the network's operations over the rate of a large matrix product in the same precision, "
        "measured after the samples on the same threads; for int8, that of a network whose every product is in int8.",
        ("row", "work over peak", "bound ms", "measured ms", "times the bound"),
        tuple(rows),
    )


def estimate_table(found: Sequence[Estimate]) -> Table:
    """Bounds for devices that were not at hand, with their arithmetic."""
    return Table(
        "ESTIMATES, not measurements: the larger of work over the published peak and compulsory traffic over the "
        "published bandwidth. No engine beats them, and a real one will be slower.",
        ("network", "device", "precision", "bound ms", "by", "arithmetic"),
        tuple(
            (
                Cell(e.network),
                Cell(e.device),
                Cell(e.precision),
                Cell(f"{1e3 * e.seconds:.2f}", "number"),
                Cell(e.by),
                Cell(e.arithmetic),
            )
            for e in found
        ),
    )


def free_table(rows: Sequence[dict[str, Any]], caption: str) -> Table:
    """Rows of another tool: those of their fields that are plain values."""
    names: list[str] = []
    for row in rows:
        names += [name for name, value in row.items() if name not in names and isinstance(value, (str, int, float))]
    names = [name for name in names if "sha256" not in name][:10]
    cells = tuple(tuple(_plain(row.get(name)) for name in names) for row in rows)
    return Table(caption, tuple(name.replace("_", " ") for name in names), cells)


def _plain(value: object) -> Cell:
    if isinstance(value, bool) or value is None:
        return Cell("" if value is None else str(value).lower())
    if isinstance(value, (int, float)):
        return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), "number")
    return Cell(str(value) if isinstance(value, str) else "")
