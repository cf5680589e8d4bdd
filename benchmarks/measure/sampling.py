"""Opening contenders side by side in one process, holding each against PyTorch, and timing them in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rich.progress import Progress, TaskID

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.energy import measure_energy
from avsbg.benchmarks.machine.environment import OtherLoad
from avsbg.benchmarks.machine.sensors import EnergyMeter, find_meter, find_nvml, read_state
from avsbg.benchmarks.measure.cases import BenchmarkCase
from avsbg.benchmarks.measure.hardware_peak import copy_rate, matrix_peaks
from avsbg.benchmarks.measure.phases import PhaseSamples
from avsbg.benchmarks.measure.progress import advance, step
from avsbg.benchmarks.measure.timing import interleave
from avsbg.benchmarks.measure.workloads import Workload
from avsbg.benchmarks.results.rows import EnergyRow, MachineStateRow, Phase, PhaseRow
from avsbg.benchmarks.results.stability import find_problems
from avsbg.runtime.backends import Backend
from avsbg.runtime.verify import verify

# An engine's threads spin for some milliseconds after a call; see `interleave`.
PAUSE = 0.05


@dataclass(frozen=True)
class Samples:
    """What sampling found, by label.

    Attributes:
        seconds: of each call, in the order of the rounds.
        described: what ran, as the backend says.
        logit_difference: see the function of that name. miou: likewise, of what computes in a reduced precision.
        phases: of the calls, where a backend's device tells.
        energy: per clip, where the machine has a meter.
        others: the share of all cores that other processes used meanwhile.
        before: the machine after the warm-up. after: and after the last sample.
        peak_gflops: see `peak.matrix_peaks`. copy_gb_s: see `peak.copy_rate`.
    """

    seconds: dict[str, list[float]]
    described: dict[str, dict[str, Any]]
    logit_difference: dict[str, float | None]
    miou: dict[str, float | None]
    phases: dict[str, dict[Phase, PhaseRow] | None]
    energy: dict[str, EnergyRow | None]
    others: float
    before: MachineStateRow
    after: MachineStateRow
    peak_gflops: dict[str, float]
    copy_gb_s: float


def sample(
    contenders: Sequence[BenchmarkCase],
    workload: Workload,
    *,
    warmup: int,
    samples: int,
    minimum_seconds: float,
    progress: Progress,
    threads: int,
    patience: int = 0,
) -> Samples:
    """Open every contender, hold it against its bundle's vectors, and time all of them in turn.

    Args:
        contenders: with different labels.
        workload: what each call computes.
        warmup: rounds that are dropped, at least 1.
        samples: rounds that are kept, at the least.
        minimum_seconds: rounds go on until this much time has passed.
        progress: redrawn between calls.
        threads: with which the machine's peak is measured afterwards.
        patience: rounds that may follow while some row varies or drifts beyond its limits.

    Raises:
        BackendError: a backend cannot do what was asked for.
    """
    described, differences, calls, phases = {}, {}, {}, {}
    mious: dict[str, float | None] = {}
    nvml = find_nvml()
    with ExitStack() as stack:
        with step(progress, "loading", len(contenders)) as task:
            for contender in contenders:
                backend = stack.enter_context(contender.create())
                differences[contender.label] = logit_difference(backend, workload.clips)
                calls[contender.label] = workload.prepare(backend)
                described[contender.label] = backend.describe()
                precision = str(described[contender.label].get("precision") or "fp32")
                mious[contender.label] = mask_agreement(backend, workload.clips, precision)
                # The end-to-end scope runs a backend several times a call.
                phases[contender.label] = PhaseSamples(backend if workload.scope == "model" else None)
                advance(progress, task)
        with step(progress, "sampling in turn, rounds", warmup + samples) as task:
            rounds = _Rounds(
                progress, task, warmup, samples, phases=list(phases.values()), read=lambda: read_state(nvml=nvml)
            )
            seconds = interleave(
                calls,
                warmup=warmup,
                samples=samples,
                minimum_seconds=minimum_seconds,
                pause=PAUSE,
                after_round=rounds.after_round,
                more=lambda times: _wants_more(times, samples + patience),
            )
        others, after = rounds.others(), read_state(nvml=nvml)
        clips = {c.label: workload.describe(c.bundle).clips for c in contenders}
        energy = _energy(calls, clips, find_meter(nvml=nvml), progress)
        return Samples(
            seconds,
            described,
            differences,
            mious,
            {label: collected.rows() for label, collected in phases.items()},
            energy,
            others,
            rounds.before,
            after,
            matrix_peaks(threads),
            copy_rate(),
        )


def _wants_more(times: Mapping[str, Sequence[float]], at_most: int) -> bool:
    """Whether a row is unstable for its own samples' sake, and fewer than `at_most` were taken."""
    taken = len(next(iter(times.values())))
    return taken < at_most and any(find_problems(row, others=0.0, logit_difference=None) for row in times.values())


def _energy(
    calls: Mapping[str, Callable[[], object]], clips: Mapping[str, int], meter: EnergyMeter | None, progress: Progress
) -> dict[str, EnergyRow | None]:
    if meter is None:
        return dict.fromkeys(calls)
    measured: dict[str, EnergyRow | None] = {}
    with step(progress, "energy, one by one", len(calls)) as task:
        for label, call in calls.items():
            measured[label] = measure_energy(call, meter, clips=clips[label])
            advance(progress, task)
    return measured


def logit_difference(backend: Backend, clips: int) -> float | None:
    """The largest difference of a logit from PyTorch's on the bundle's vectors of so many clips; None without any.

    Raises:
        BenchmarkError: a logit is not a number.
    """
    found = [
        comparison.largest_absolute
        for vectors in backend.bundle.vectors()
        if vectors.record.clips == clips
        for comparison in verify.compare(backend, vectors)
        if comparison.output == "logits"
    ]
    if any(math.isnan(difference) for difference in found):
        raise BenchmarkError(
            f"the backend {backend.name} and PyTorch do not both return numbers for {backend.bundle.path}.",
            "See `avsbg verify`; the speed of such a network means nothing.",
        )
    return max(found, default=None)


def mask_agreement(backend: Backend, clips: int, precision: str) -> float | None:
    """The mean IoU of the masks with PyTorch's, which is the gate of a precision that is meant to differ.

    None for fp32, which is held to its logits, and without test vectors of so many clips.
    """
    vectors = [one for one in backend.bundle.vectors() if one.record.clips == clips]
    if precision == "fp32" or not vectors:
        return None
    return verify.judge(backend, vectors, precision=precision).miou


class _Rounds:
    """Shows the rounds, collects their phases, and watches the machine from the end of the warm-up on."""

    def __init__(
        self,
        progress: Progress,
        task: TaskID,
        warmup: int,
        samples: int,
        *,
        phases: Sequence[PhaseSamples],
        read: Callable[[], MachineStateRow],
    ) -> None:
        self._progress, self._task = progress, task
        self._warmup, self._total = warmup, warmup + samples
        self._phases, self._read = phases, read
        self._load = OtherLoad()
        self._started = time.perf_counter()
        self.before = read()

    def after_round(self, done: int) -> None:
        if done == self._warmup:
            if not self._progress.console.is_terminal:
                left = (self._total - done) * (time.perf_counter() - self._started) / done
                self._progress.console.print(f"the warm-up is done, the samples take about {left:.0f} s")
            self.before = self._read()
            self._load = OtherLoad()
        elif done > self._warmup:
            for collected in self._phases:
                collected.collect()
        self._progress.update(self._task, completed=done, total=max(done, self._total), refresh=True)

    def others(self) -> float:
        return self._load.share()
