"""The comparison: cases counted, their memory measured apart, their calls timed in turn, rows made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import default_threads, describe_command, describe_environment
from avsbg.benchmarks.machine.sensors import throttling
from avsbg.benchmarks.measure.cases import BenchmarkCase, describe_bundle
from avsbg.benchmarks.measure.flops import count_flops, merged_flops
from avsbg.benchmarks.measure.memory import measure_memory
from avsbg.benchmarks.measure.resume import check_resumable, check_same, join_rows
from avsbg.benchmarks.measure.sampling import PAUSE, CaseSamples, Settings, sample
from avsbg.benchmarks.measure.workloads import Workload
from avsbg.benchmarks.results.schema import Measurement, Metric, Ran, Run
from avsbg.benchmarks.results.stability import LIMITS, find_problems
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.model import VariantError
from avsbg.progress import Progress


def compare(
    cases: Sequence[BenchmarkCase],
    workload: Workload,
    settings: Settings,
    progress: Progress,
    *,
    earlier: Sequence[Measurement] = (),
) -> list[Measurement]:
    """Measure the cases against each other; one row each, in their order.

    The rounds are added to those of `earlier`, rows of the same cases on the same machine, whose memory is not measured
    again. A `BenchmarkError` if they are not, a bundle does not fit the workload, there is no such reference, or a
    measurement failed; errors of backends and media pass through.
    """
    labels = [case.label for case in cases]
    reference = _reference(labels, settings.reference)
    for case in cases:
        workload.check(case.bundle)
        case.create()  # a backend that refuses what it is asked for does so here, before minutes of work
    workloads = {case.label: workload.describe(case.bundle) for case in cases}
    environment, before = describe_environment(), {row.label: row for row in earlier}
    if earlier:
        check_resumable(earlier, labels, workloads, environment)
    started = datetime.now(timezone.utc).replace(microsecond=0)
    flops = dict(zip(labels, _count(cases, progress), strict=True))
    measures_memory = settings.memory and not earlier
    memory = _memory(cases, workload, progress) if measures_memory else {label: {} for label in labels}
    threads = next((int(case.options["threads"]) for case in cases if "threads" in case.options), default_threads())

    def make_row(case: BenchmarkCase, sampled: CaseSamples, ratio: Metric, run: Run) -> Measurement:
        label, parameters = case.label, case.bundle.manifest.parameters
        clips = workloads[label]["clips"]
        metrics = {
            "latency": Metric(unit="s", samples=tuple(seconds / clips for seconds in sampled.seconds)),
            "processor_time": Metric(unit="s", samples=tuple(seconds / clips for seconds in sampled.processor)),
            "ratio": ratio,
            "published_parameters": Metric(value=parameters.published),
            "needed_parameters": Metric(value=parameters.inference),
            **flops[label],
            **memory[label],
            **sampled.metrics,
        }
        return Measurement(
            kind="latency",
            label=label,
            case=workloads[label],
            metrics=metrics,
            ran=_describe_case(case, sampled.described),
            run=run,
            environment=environment,
        )

    def check(case: BenchmarkCase, described: dict[str, Any]) -> None:
        """Find out before anything is timed that a row could not be written or read."""
        try:
            trial = make_row(case, CaseSamples([1.0], [1.0], described, {}), Metric(value=1.0), Run())
            Measurement.model_validate_json(trial.model_dump_json())
            if earlier:
                check_same(before[case.label], trial.ran)
        except (ValidationError, PydanticSerializationError) as error:
            raise BenchmarkError(f"a row of {case.label} could not be written: {error}.") from error

    timed, run = sample(cases, workload, settings, progress, threads=threads, check=check)
    recorded = {"warmup": settings.warmup, "patience": settings.patience, "pause": PAUSE, "limits": asdict(LIMITS)}
    recorded |= {"interval": settings.interval, "budget": settings.budget}
    told = {"started": started, "command": describe_command(), "settings": {"reference": reference, **recorded}}
    run = run.model_copy(update=told)
    rows = [make_row(case, timed[case.label], Metric(value=1.0), run) for case in cases]
    if earlier:
        rows = [join_rows(before[row.label], row) for row in rows]
    base = next(row for row in rows if row.label == reference)["latency"].samples
    return [_finish(row, base) for row in rows]


def _finish(row: Measurement, base: Sequence[float]) -> Measurement:
    """The row with its ratio to the samples of the reference, and why it is unstable."""
    ratio = Metric.of(paired_ratio(row["latency"].samples, base))
    row = row.model_copy(update={"metrics": row.metrics | {"ratio": ratio}})
    return row.model_copy(update={"problems": _problems(row)})


def _problems(row: Measurement) -> tuple[str, ...]:
    """List why a row is unstable."""
    difference, miou = row.value("logit_difference"), row.value("miou")
    found = find_problems(row["latency"].samples, others=row.run.others or 0.0, logit_difference=difference, miou=miou)
    assert row.run.before is not None and row.run.after is not None
    return (*found, *throttling(row.run.before, row.run.after))


def _count(cases: Sequence[BenchmarkCase], progress: Progress) -> Iterator[dict[str, Metric]]:
    """Operations of each case; nothing where the network cannot be rebuilt here (no PyTorch, unknown variant)."""
    counted: dict[object, dict[str, Metric]] = {}
    for number, case in enumerate(cases, start=1):
        clip = case.bundle.manifest.clip
        shape = {"frames": clip.frames, "height": clip.height, "width": clip.width}
        try:
            variant, merges = case.variant, case.merges
            key = (variant, *shape.values(), merges)
            if key not in counted:
                operations = merged_flops(count_flops(variant, **shape), merges, frames=clip.frames)
                counted[key] = {"operations": operations}
            row = counted[key]
        except (VariantError, ModuleNotFoundError):
            row = {}
        progress("counting operations", number, len(cases))
        yield row


def _memory(cases: Sequence[BenchmarkCase], workload: Workload, progress: Progress) -> dict[str, dict[str, Metric]]:
    measured: dict[str, dict[str, Metric]] = {}
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


def ran_as(case: BenchmarkCase) -> dict[str, str | bool | int]:
    """The variant of a case, with the implementation of the operator that runs."""
    return case.bundle.manifest.variant | ({"form": case.form} if case.form else {})


def _describe_case(case: BenchmarkCase, described: Mapping[str, Any]) -> Ran:
    """The network and the backend that ran, with the precision asked for and the one read back."""
    realised = described.get("realised")
    if realised is None and described.get("precision"):
        realised = {"source": "graph", "precision": described["precision"]}
    manifest, built = case.bundle.manifest, {}
    if (engine := manifest.engines.get(str(described.get("engine")))) is not None:
        built = {engine.file: manifest.files[engine.file].sha256}
        built |= {"plugin": engine.plugin.sha256} if engine.plugin is not None else {}
    return describe_bundle(
        case.bundle,
        variant=ran_as(case),
        files=describe_bundle(case.bundle).files | built,
        backend=dict(described),
        requested=case.options.get("precision"),
        realised=realised,
    )
