"""The comparison itself: contenders counted, their memory measured apart, their calls timed in turn, rows made."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from rich.progress import Progress

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import default_threads, describe_environment
from avsbg.benchmarks.machine.sensors import throttling
from avsbg.benchmarks.measure.cases import BenchmarkCase
from avsbg.benchmarks.measure.flops import count_flops, merged_flops
from avsbg.benchmarks.measure.memory import measure_memory
from avsbg.benchmarks.measure.phases import phase_notes
from avsbg.benchmarks.measure.progress import advance, step
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
    Phase,
    PhaseRow,
    RatioRow,
    Row,
    RunRow,
    SummaryRow,
)
from avsbg.benchmarks.results.stability import LIMITS, find_problems
from avsbg.benchmarks.results.statistics import drift, paired_ratio, summarise
from avsbg.model import VariantError
from avsbg.runtime.bundle import sha256
from avsbg.runtime.bundle.manifest import MANIFEST


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        warmup: rounds that are dropped.
        samples: rounds that are kept, at the least.
        seconds: rounds go on until this much time has passed, all contenders together.
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


def compare(
    contenders: Sequence[BenchmarkCase], workload: Workload, settings: Settings, progress: Progress
) -> list[Row]:
    """Measure the contenders against each other; one row each, in their order.

    Args:
        contenders: at least one.
        workload: what each call computes.
        settings: how much is measured.
        progress: shows how far it is. It is redrawn between calls only, never during one.

    Raises:
        BenchmarkError: a bundle does not fit the workload, there is no such reference, or a measurement failed.
        BackendError: a backend does not run what was asked for.
        MediaError: the video cannot be read.
    """
    labels = [contender.label for contender in contenders]
    reference = _reference(labels, settings.reference)
    for contender in contenders:
        workload.check(contender.bundle)
        contender.create()  # a backend that refuses what it is asked for does so here, before minutes of work
    workloads = {contender.label: workload.describe(contender.bundle) for contender in contenders}
    environment = describe_environment()
    started = datetime.now(timezone.utc).replace(microsecond=0)
    flops = dict(zip(labels, _count(contenders, progress), strict=True))
    memory = dict.fromkeys(labels) | (_memory(contenders, workload, progress) if settings.memory else {})
    timed = sample(
        contenders,
        workload,
        warmup=settings.warmup,
        samples=settings.samples,
        minimum_seconds=settings.seconds,
        patience=settings.patience,
        progress=progress,
        threads=next((int(c.options["threads"]) for c in contenders if "threads" in c.options), default_threads()),
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
    disturbed = throttling(timed.before, timed.after)
    rows = []
    for contender in contenders:
        label, manifest = contender.label, contender.bundle.manifest
        seconds, difference = timed.seconds[label], timed.logit_difference[label]
        rows.append(
            Row(
                label=label,
                bundle=_bundle_row(contender),
                variant=ran_as(contender),
                backend=timed.described[label],
                workload=workloads[label],
                parameters=ParametersRow(**manifest.parameters.model_dump()),
                flops=flops[label],
                latency=_latency(seconds, workloads[label].clips),
                ratio=RatioRow(reference=reference, **asdict(paired_ratio(seconds, timed.seconds[reference]))),
                memory=memory[label],
                logit_difference=difference,
                miou=timed.miou[label],
                execution=_execution(contender, timed.described[label], timed.phases[label]),
                energy=timed.energy[label],
                problems=(
                    *find_problems(seconds, others=timed.others, logit_difference=difference, miou=timed.miou[label]),
                    *disturbed,
                ),
                notes=phase_notes(timed.phases[label]),
                limits=LimitsRow(**asdict(LIMITS)),
                run=run,
                environment=environment,
            )
        )
    return rows


def _count(contenders: Sequence[BenchmarkCase], progress: Progress) -> Iterator[FlopsRow | None]:
    """Operations of each contender; None where the network cannot be rebuilt here (no PyTorch, unknown variant)."""
    counted: dict[object, FlopsRow] = {}
    with step(progress, "counting operations", len(contenders)) as task:
        for contender in contenders:
            clip = contender.bundle.manifest.clip
            shape = {"frames": clip.frames, "height": clip.height, "width": clip.width}
            try:
                variant = contender.variant
                merges = contender.merges
                key = (variant, *shape.values(), merges)
                if key not in counted:
                    count = merged_flops(count_flops(variant, **shape), merges, frames=clip.frames)
                    counted[key] = FlopsRow(**asdict(count))
                row: FlopsRow | None = counted[key]
            except (VariantError, ModuleNotFoundError):
                row = None
            advance(progress, task)
            yield row


def _memory(contenders: Sequence[BenchmarkCase], workload: Workload, progress: Progress) -> dict[str, MemoryRow | None]:
    measured: dict[str, MemoryRow | None] = {}
    with step(progress, "peak memory, one process each", len(contenders)) as task:
        for contender in contenders:
            measured[contender.label] = measure_memory(contender, workload)
            advance(progress, task)
    return measured


def _reference(labels: Sequence[str], wanted: str | None) -> str:
    if not labels:
        raise BenchmarkError("there is nothing to compare.", "Name at least one bundle and one backend.")
    if wanted is not None and wanted not in labels:
        raise BenchmarkError(f"there is no contender {wanted!r} to refer to.", f"There are: {', '.join(labels)}.")
    return wanted or labels[0]


def ran_as(contender: BenchmarkCase) -> dict[str, str | bool]:
    """The variant of a contender, with the form that it computes in."""
    form = contender.options.get("operator") if contender.backend == "torch" else None
    return contender.bundle.manifest.variant | ({"form": form} if form else {})


def _execution(
    contender: BenchmarkCase, described: Mapping[str, Any], phases: dict[Phase, PhaseRow] | None
) -> ExecutionRow:
    """What was asked for and what ran, from what the backend says of itself."""
    realised = described.get("realised")
    if realised is None and described.get("precision"):
        realised = {"source": "graph", "precision": described["precision"]}
    _, _, target = contender.label.partition(":")
    return ExecutionRow(
        target=target or None,
        requested=contender.options.get("precision"),
        realised=realised,
        engine_sha256=described.get("engine_sha256"),
        plugin_sha256=described.get("plugin_sha256"),
        cuda_graph=described.get("cuda_graph"),
        transfers=described.get("transfers"),
        phases=phases,
    )


def _bundle_row(contender: BenchmarkCase) -> BundleRow:
    manifest = contender.bundle.manifest
    files = {file for graph in manifest.graphs.values() for file in graph.files}
    return BundleRow(
        name=manifest.name,
        manifest_sha256=sha256(contender.bundle.path / MANIFEST),
        onnx_sha256={file: manifest.files[file].sha256 for file in sorted(files)},
        weights=manifest.weights.model_dump(mode="json"),
    )


def _latency(samples: Sequence[float], clips: int) -> LatencyRow:
    summary = summarise([sample / clips for sample in samples])
    moved = drift(samples) if len(samples) >= 4 else None
    return LatencyRow(samples=tuple(samples), per_clip=SummaryRow.model_validate(asdict(summary)), drift=moved)
