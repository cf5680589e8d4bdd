"""Committed rows that are older than the sources they depend on: `python -m tools.stale_rows`.

A row names the commit that was measured. What it depends on is told by its kind and its network; if any of that changed
since, the row is listed with the last commit that did; also if its commit is not in the history, so that nothing can
repeat it. Neither is an error, since a change need not touch a figure, unless `--strict` makes the latter one.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.tables import markdown_of
from avsbg.benchmarks.results.schema import Measurement, read_rows
from avsbg.model import NETWORKS
from tools import command

_GRAPHS = (
    "export/graphs.py",
    "export/exporter.py",
    "export/translation.py",
    "export/operators.py",
    "export/merges.py",
    "export/optimise.py",
    "export/editor.py",
)
_ENGINES = ("export/engine", "export/plugin_graph.py", "export/precision", "runtime/native/tensorrt")
_TIMED = ("benchmarks/measure/runner.py", "benchmarks/measure/sampling.py", "benchmarks/measure/workloads.py")
_BACKENDS = ("runtime/backends", "runtime/native/onnxruntime")
# Kind of rows -> files and folders that decide on their figures, beside the network's own file and its operators.
SOURCES: dict[str, tuple[str, ...]] = {
    "latency": (*_GRAPHS, *_BACKENDS, *_TIMED),
    "profile": (*_GRAPHS, *_BACKENDS, "benchmarks/measure/profile.py"),
    "operator": (
        "runtime/native/onnxruntime",
        "benchmarks/measure/operator.py",
        "benchmarks/measure/operator_cases.py",
    ),
    "operator-clip": ("runtime/native/onnxruntime", "benchmarks/measure/operator.py"),
    "operator-copies": (*_GRAPHS, "export/plugin_graph.py", "tools/operator_copies.py"),
    "stream-rate": (*_GRAPHS, *_BACKENDS, "runtime/streaming", "benchmarks/measure/streaming.py"),
    "stream-pairs": (*_GRAPHS, *_BACKENDS, "runtime/streaming", "benchmarks/measure/streaming.py"),
    "stream-difference": (*_GRAPHS, *_BACKENDS, "runtime/streaming", "benchmarks/measure/streaming.py"),
    "stream-profile": (*_GRAPHS, *_BACKENDS, "benchmarks/measure/profile.py", "tools/stream_profile.py"),
    "spinning": (*_GRAPHS, "tools/spinning.py"),
    "stream-soak": (*_BACKENDS, "runtime/streaming", "runtime/media", "benchmarks/measure/streaming.py"),
    "phase-batches": (*_GRAPHS, *_BACKENDS, "runtime/streaming", "tools/phase_batches.py"),
    "start-up": ("avsbg/cli", "avsbg/api.py", "runtime/bundle", *_BACKENDS, "runtime/segment", "tools/start_up.py"),
    "run-soak": (*_BACKENDS, "runtime/streaming", "runtime/media", "runtime/segment", "tools/soak.py"),
    "native-runtime": ("runtime/native/avsbg_run", "runtime/native/libavsbg", "tools/native_runtime.py"),
    "mask-rate": (*_BACKENDS, "runtime/streaming", "runtime/segment", "tools/mask_rates.py"),
    "front-end": ("runtime/media", "tools/decoding.py"),
    "precision": (*_GRAPHS, "export/precision", "benchmarks/measure/precision.py"),
    "accuracy": (*_GRAPHS, "export/precision", *_BACKENDS, "model/training/metrics.py", "model/trained"),
    "interval-coverage": ("benchmarks/results/trust.py", "benchmarks/results/statistics.py"),
    "ablation": ("model/training", "tools/ablations.py"),
    "engine": (*_GRAPHS, *_ENGINES),
    "engine-failure": (*_GRAPHS, *_ENGINES),
    "activation-memory": (*_GRAPHS, "export/precision", "tools/activation_memory.py"),
    **dict.fromkeys(
        ("gpu-counter", "gpu-failure", "gpu-operator", "gpu-rate", "gpu-stage"), ("runtime/native/cuda", "scripts/gpu")
    ),
    **dict.fromkeys(("gpu-verify", "gpu-power"), (*_GRAPHS, *_ENGINES, "runtime/native/cuda", "scripts/on-gpu.sh")),
    "served-streams": (*_GRAPHS, *_BACKENDS, "runtime/streaming", "tools/serving.py"),
    "collection": ("runtime/segment", "tools/serving.py"),
    "collection-speed": (
        *(*_BACKENDS, "runtime/media", "runtime/segment", "runtime/cluster"),
        "benchmarks/measure/collection.py",
    ),
}
_SHARED = ("model/operators.py", "model/encoders.py")


@dataclass(frozen=True)
class Age:
    """The state of rows of one file and commit: the commits since that touched what they depend on, the last first."""

    file: str
    kind: str
    network: str
    commit: str
    rows: int
    since: tuple[str, ...]  # `HASH DATE`
    is_lost: bool  # whether the commit is not in the history

    @property
    def state(self) -> str:
        """In words."""
        if self.commit == "unknown":
            return "names no commit"
        if self.is_lost:
            return "its commit is not in the history"
        return f"{len(self.since)} commits since, the last {self.since[0]}" if self.since else "current"


def sources_of(row: Measurement) -> tuple[str, ...]:
    """The files and folders that a row depends on."""
    record = NETWORKS.get(str(row.ran.variant.get("network"))) or next(
        (one for name, one in NETWORKS.items() if row.ran.network.startswith(f"{name}-")), None
    )
    module = None if record is None else record.module
    own = () if module is None else (module.partition(":")[0].removeprefix("avsbg.").replace(".", "/") + ".py",)
    return (*SOURCES[row.kind], *own, *(_SHARED if own else ()))


def find_ages(root: Path, files: Iterable[Path]) -> list[Age]:
    """The age of all rows of files, by file, kind, network and commit. A `BenchmarkError` outside a whole checkout."""
    if _git(root, "rev-parse", "--is-shallow-repository") != "false":
        raise BenchmarkError(f"{root} has no history to look at.", "Run this in a clone that is not shallow.")
    found = []
    for file in files:
        rows = read_rows(file)
        groups = Counter((row.kind, row.ran.network, row.commit, sources_of(row)) for row in rows)
        for (kind, network, commit, sources), count in groups.items():
            known = commit.removesuffix("-dirty")
            is_lost = commit != "unknown" and _git(root, "merge-base", "--is-ancestor", known, "HEAD") is None
            since = "" if is_lost or commit == "unknown" else _log(root, known, sources)
            found.append(Age(file.name, kind, network, commit, count, tuple(since.splitlines()), is_lost))
    return found


def _log(root: Path, commit: str, sources: tuple[str, ...]) -> str:
    return _git(root, "log", "--format=%h %as", f"{commit}..HEAD", "--", *sources) or ""


def _git(root: Path, *arguments: str) -> str | None:
    """The output of git; None where it fails."""
    ran = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else None


@command
def main(
    root: Annotated[Path, typer.Option(help="The checkout.")] = Path(),
    strict: Annotated[bool, typer.Option("--strict", help="Fail where a row's commit is not in the history.")] = False,
) -> None:
    """List committed rows that are older than their sources, or of a commit that nobody has."""
    files = sorted((root / "benchmarks/results").glob("*.jsonl"))
    ages = find_ages(root, files)
    titles = ("rows", "kind", "network", "number", "commit", "state")
    lines = [(age.file, age.kind, age.network, age.rows, age.commit, age.state) for age in ages]
    typer.echo(markdown_of(titles, [line for line in lines if line[-1] != "current"]))
    current = sum(age.rows for age in ages if age.state == "current")
    typer.echo(f"{current} of {sum(age.rows for age in ages)} rows are as new as what they depend on")
    if strict and (lost := [age for age in ages if age.is_lost]):
        names = ", ".join(sorted({f"{age.file} ({age.commit})" for age in lost}))
        raise BenchmarkError(f"rows name commits that are not in the history: {names}.", "Measure them again.")
