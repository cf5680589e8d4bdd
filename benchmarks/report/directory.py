"""The directory of results: rows and their picture, complete or not there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from avsbg.atomic import atomic_directory
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.plot import plot_latency
from avsbg.benchmarks.results.profile_rows import PROFILE, ProfileRow, write_profiles
from avsbg.benchmarks.results.rows import ROWS, Row, write_rows


def results_directory(wanted: Path | None, *, force: bool = False) -> Path:
    """Where results will go; to be called before anything is measured.

    Args:
        wanted: the directory; None for a new one under `out/`, named after the time.
        force: whether results that are there already may be replaced.

    Raises:
        BenchmarkError: it exists and may not be replaced, or holds something other than results.
    """
    if wanted is None:
        return Path("out") / f"bench-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"
    if wanted.exists():
        if not force:
            raise BenchmarkError(f"{wanted} exists already.", "Choose another directory, or replace it with --force.")
        if not (wanted / ROWS).is_file():
            raise BenchmarkError(f"{wanted} holds no results, so it is not replaced.", "Choose another directory.")
    return wanted


def write_results(
    directory: Path, rows: Sequence[Row], profiles: Sequence[ProfileRow] = (), *, replace: bool = False
) -> None:
    """Write rows, profiles and picture; `directory` appears when all are complete."""
    with atomic_directory(directory, replace=replace) as temporary:
        write_rows(temporary / ROWS, rows)
        if profiles:
            write_profiles(temporary / PROFILE, profiles)
        plot_latency(rows, temporary / "latency.png", temporary / "latency.svg")
