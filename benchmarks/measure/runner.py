"""The comparison: cases counted, their memory measured apart, their calls timed in turn, rows made."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import default_threads, describe_environment
from avsbg.benchmarks.machine.sensors import throttling
from avsbg.benchmarks.measure.cases import BenchmarkCase
from avsbg.benchmarks.measure.flops import count_flops, merged_flops
from avsbg.benchmarks.measure.memory import measure_memory
from avsbg.benchmarks.measure.sampling import PAUSE, sample
from avsbg.benchmarks.measure.workloads import Workload
from avsbg.benchmarks.results.rows import (
    BundleRow,
    ExecutionRow,
    FlopsRow,
    LatencyRow,
    LimitsRow,
    MemoryRow,
    ParametersRow,
    RatioRow,
    Row,
    RunRow,
    SummaryRow,
)
from avsbg.benchmarks.results.stability import LIMITS, find_problems
from avsbg.benchmarks.results.statistics import drift, paired_ratio, summarise
from avsbg.model import VariantError
from avsbg.progress import Progress
from avsbg.runtime.bundle import sha256
from avsbg.runtime.bundle.manifest import MANIFEST


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        warmup: rounds that are dropped.
        samples: rounds that are kept, at the least.
        seconds: rounds go on until this much time has passed, all cases together.
        patience: rounds that may follow while a row varies or drifts beyond its limits; none of them is dropped.
        reference: label of the row that the others are divided by; None for the first.
        memory: whether peak memory is measured.
    """

    warmup: int = 3
    samples: int = 30
    seconds: float = 3.0
    patience: int = 0
    reference: str | None = None
    memory: bool = True

    def __post_init__(self) -> None:
        if self.samples < 2 or self.warmup < 1 or self.seconds < 0 or self.patience < 0:
            raise BenchmarkError(
                f"cannot take {self.samples} samples over {self.seconds:g} s after {self.warmup} rounds of warm-up.",
                "Take at least 2 samples after at least 1 round, over 0 s or more.",
            )


def compare(cases: Sequence[BenchmarkCase], workload: Workload, settings: Settings, progress: Progress) -> list[Row]:
    """Measure the cases against each other; one row each, in their order.

    Args:
        cases: at least one.
        workload: what each call computes.
        settings: how much is measured.
        progress: called between the calls that are timed, never during one.

    Raises:
        BenchmarkError: a bundle does not fit the workload, there is no such reference, or a measurement failed.
        BackendError: a backend does not run what was asked for.
        MediaError: the video cannot be read.
    """
    labels = [case.label for case in cases]
    reference = _reference(labels, settings.reference)
    for case in cases:
        workload.check(case.bundle)
        case.create()  # a backend that refuses what it is asked for does so here, before minutes of work
    workloads = {case.label: workload.describe(case.bundle) for case in cases}
    environment = describe_environment()
    started = datetime.now(timezone.utc).replace(microsecond=0)
    flops = dict(zip(labels, _count(cases, progress), strict=True))
    memory = dict.fromkeys(labels) | (_memory(cases, workload, progress) if settings.memory else {})
    timed = sample(
        cases,
        workload,
        warmup=settings.warmup,
        samples=settings.samples,
        minimum_seconds=settings.seconds,
        patience=settings.patience,
        progress=progress,
        threads=next((int(case.options["threads"]) for case in cases if "threads" in case.options), default_threads()),
    )
    run = RunRow(
        started=started,
        command=("avsbg", *sys.argv[1:]),
        contenders=tuple(labels),
        reference=reference,
        warmup=settings.warmup,
        patience=settings.patience,
        pause=PAUSE,
        others=timed.others,
        before=timed.before,
        after=timed.after,
        peak_gflops=timed.peak_gflops or None,
        copy_gb_s=timed.copy_gb_s,
    )
    base = timed.cases[reference].seconds
    disturbed = throttling(timed.before, timed.after)
    rows = []
    for case in cases:
        label, manifest = case.label, case.bundle.manifest
        sampled = timed.cases[label]
        rows.append(
            Row(
                label=label,
                bundle=_bundle_row(case),
                variant=ran_as(case),
                backend=sampled.described,
                workload=workloads[label],
                parameters=ParametersRow(**manifest.parameters.model_dump()),
                flops=flops[label],
                latency=_latency(sampled.seconds, workloads[label].clips),
                ratio=RatioRow(reference=reference, **asdict(paired_ratio(sampled.seconds, base))),
                memory=memory[label],
                logit_difference=sampled.logit_difference,
                miou=sampled.miou,
                execution=_execution(case, sampled.described),
                energy=sampled.energy,
                problems=(
                    *find_problems(
                        sampled.seconds,
                        others=timed.others,
                        logit_difference=sampled.logit_difference,
                        miou=sampled.miou,
                    ),
                    *disturbed,
                ),
                limits=LimitsRow(**asdict(LIMITS)),
                run=run,
                environment=environment,
            )
        )
    return rows


def _count(cases: Sequence[BenchmarkCase], progress: Progress) -> Iterator[FlopsRow | None]:
    """Operations of each case; None where the network cannot be rebuilt here (no PyTorch, unknown variant)."""
    counted: dict[object, FlopsRow] = {}
    for number, case in enumerate(cases, start=1):
        clip = case.bundle.manifest.clip
        shape = {"frames": clip.frames, "height": clip.height, "width": clip.width}
        try:
            variant, merges = case.variant, case.merges
            key = (variant, *shape.values(), merges)
            if key not in counted:
                count = merged_flops(count_flops(variant, **shape), merges, frames=clip.frames)
                counted[key] = FlopsRow(**asdict(count))
            row: FlopsRow | None = counted[key]
        except (VariantError, ModuleNotFoundError):
            row = None
        progress("counting operations", number, len(cases))
        yield row


def _memory(cases: Sequence[BenchmarkCase], workload: Workload, progress: Progress) -> dict[str, MemoryRow | None]:
    measured: dict[str, MemoryRow | None] = {}
    for number, case in enumerate(cases, start=1):
        measured[case.label] = measure_memory(case, workload)
        progress("peak memory, one process each", number, len(cases))
    return measured


def _reference(labels: Sequence[str], wanted: str | None) -> str:
    if not labels:
        raise BenchmarkError("there is nothing to compare.", "Name at least one bundle and one backend.")
    if wanted is not None and wanted not in labels:
        raise BenchmarkError(f"there is no case {wanted!r} to refer to.", f"There are: {', '.join(labels)}.")
    return wanted or labels[0]


def ran_as(case: BenchmarkCase) -> dict[str, str | bool]:
    """The variant of a case, with the implementation of the operator that runs."""
    operator = case.options.get("operator") if case.backend == "torch" else None
    return case.bundle.manifest.variant | ({"form": str(operator)} if operator else {})


def _execution(case: BenchmarkCase, described: Mapping[str, Any]) -> ExecutionRow:
    """What was asked for and what ran, from what the backend says of itself."""
    realised = described.get("realised")
    if realised is None and described.get("precision"):
        realised = {"source": "graph", "precision": described["precision"]}
    _, _, target = case.label.partition(":")
    return ExecutionRow(
        target=target or None,
        requested=case.options.get("precision"),
        realised=realised,
        engine_sha256=described.get("engine_sha256"),
        plugin_sha256=described.get("plugin_sha256"),
        cuda_graph=described.get("cuda_graph"),
        transfers=described.get("transfers"),
    )


def _bundle_row(case: BenchmarkCase) -> BundleRow:
    manifest = case.bundle.manifest
    files = {file for graph in manifest.graphs.values() for file in graph.files}
    return BundleRow(
        name=manifest.name,
        manifest_sha256=sha256(case.bundle.path / MANIFEST),
        onnx_sha256={file: manifest.files[file].sha256 for file in sorted(files)},
        weights=manifest.weights.model_dump(mode="json"),
    )


def _latency(samples: Sequence[float], clips: int) -> LatencyRow:
    summary = summarise([sample / clips for sample in samples])
    moved = drift(samples) if len(samples) >= 4 else None
    return LatencyRow(samples=tuple(samples), per_clip=SummaryRow.model_validate(asdict(summary)), drift=moved)
