"""Directories of results: rows with their picture, and reports; each complete or not there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from avsbg.atomic import atomic_directory
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import PROFILE, ROWS, Measurement, write_rows


def check_replaceable(directory: Path, holds: str, kind: str, *, force: bool) -> None:
    """Raise a `BenchmarkError` if a directory exists and may not be replaced, or lacks the file `holds` of its kind."""
    if directory.exists() and not force:
        raise BenchmarkError(
            f"{directory} exists already.", "Choose another directory, or replace it with --overwrite."
        )
    if directory.exists() and not (directory / holds).is_file():
        raise BenchmarkError(f"{directory} holds no {kind}, so it is not replaced.", "Choose another directory.")


def results_directory(wanted: Path | None, *, force: bool = False) -> Path:
    """The directory for results: the one that is wanted, checked, or a new one under `out/`, named after the time."""
    if wanted is None:
        return Path("out") / f"bench-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"
    check_replaceable(wanted, ROWS, "results", force=force)
    return wanted


def write_results(
    directory: Path, rows: Sequence[Measurement], profiles: Sequence[Measurement] = (), *, replace: bool = False
) -> None:
    """Write rows, profiles and picture; `directory` appears when all are complete."""
    from avsbg.benchmarks.report.plots import save_latency

    with atomic_directory(directory, replace=replace) as temporary:
        write_rows(temporary / ROWS, rows)
        if profiles:
            write_rows(temporary / PROFILE, profiles)
        save_latency(rows, temporary / "latency.png", temporary / "latency.svg")
