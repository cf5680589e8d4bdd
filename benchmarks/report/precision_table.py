"""What each precision costs, as the tables of docs/precision.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.labels import network_title
from avsbg.benchmarks.results.precision_rows import IntervalRow, PrecisionRow, read_rows
from avsbg.runtime.bundle.precision import PRECISIONS


def render(path: Path) -> str:
    """The committed rows.

    Raises:
        BenchmarkError: the file holds no valid rows, or one that was measured with changes that no commit holds.
    """
    rows = read_rows(path)
    for row in rows:
        if str(row.environment.commit).endswith("-dirty"):
            raise BenchmarkError(
                f"{path} has a row of {row.bundle.name} in {row.precision} that was measured with uncommitted changes.",
                "Commit, and measure it again.",
            )
    return table(rows)


def table(rows: Sequence[PrecisionRow]) -> str:
    """Rows as Markdown: agreement with float32 first, then scores where a data set has annotations."""
    order = list(PRECISIONS)
    ordered = sorted(rows, key=lambda row: (*_network(row), row.data.kind != "vectors", order.index(row.precision)))
    return "\n".join([*_agreement(ordered), *_scores(ordered), *_notes(ordered)])


def _agreement(rows: Sequence[PrecisionRow]) -> list[str]:
    lines = [
        "| network, weights | clips | precision | MB | logit error | largest | mIoU with fp32 | worst clip | flipped | "
        "gate | in a higher type |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        found = row.agreement
        products, higher = sum(row.graph.products.values()), sum(row.graph.higher.values())
        cells = (
            ", ".join(_network(row)),
            f"{found.clips}, {row.data.name}",
            precision_title(row),
            f"{row.graph.bytes / 1e6:.1f}",
            f"{found.logit_error:.2g}",
            f"{found.largest:.2g}",
            f"{found.miou:.4f}",
            f"{found.worst_miou:.4f}",
            f"{found.flipped:.3%}",
            f"{found.least_miou:g}: {'holds' if found.passed else '**fails**'}",
            f"{higher} of {products}" if higher else "none",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _scores(rows: Sequence[PrecisionRow]) -> list[str]:
    scored = [(row, row.scores) for row in rows if row.scores is not None]
    if not scored:
        return []
    lines = [
        "",
        "Against the annotations, the mean over clips (bootstrap interval over the clips):",
        "",
        "| network, weights | clips | precision | mIoU | its change | F-score | its change |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, scores in scored:
        cells = (
            ", ".join(_network(row)),
            f"{row.data.clips}, {row.data.name}",
            precision_title(row),
            _interval(scores.miou),
            _interval(scores.miou_change, sign="+"),
            _interval(scores.f_score),
            _interval(scores.f_score_change, sign="+"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _notes(rows: Sequence[PrecisionRow]) -> list[str]:
    if not rows:
        return []
    commits = sorted({str(row.environment.commit)[:12] for row in rows})
    versions = sorted({f"onnxruntime {row.environment.packages.get('onnxruntime')}" for row in rows})
    calibrated = [(row, row.graph.calibration) for row in rows if row.graph.calibration is not None]
    sources = sorted(
        {
            f"{row.precision} of {_network(row)[0]} on {record['clips']} clips ({record['source']})"
            for row, record in calibrated
        }
    )
    return [
        "",
        f"{', '.join(versions)} on the processor; commit {', '.join(commits)}."
        + (f" Calibrated: {'; '.join(sources)}." if sources else ""),
    ]


def precision_title(row: PrecisionRow) -> str:
    """The precision, with what has to be known of how it was run."""
    return f"{row.precision} (emulated)" if row.emulated else row.precision


def _network(row: PrecisionRow) -> tuple[str, str]:
    seed = row.bundle.weights.get("seed")
    weights = "trained" if seed is None else f"random (seed {seed})"
    size = f"{row.height} x {row.width}"
    return f"{network_title(row.variant)}, {size}", weights


def _interval(found: IntervalRow | None, sign: str = "") -> str:
    if found is None:
        return ""
    mean = f"{found.mean:{sign}.4f}"
    return mean if found.low is None else f"{mean} [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"
