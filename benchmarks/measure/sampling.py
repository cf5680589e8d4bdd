"""Samples of cases that are opened side by side in one process, held against PyTorch, and timed in turn.

In turn, so that a disturbance of the machine meets them all.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import OtherLoad
from avsbg.benchmarks.machine.sensors import EnergyMeter, find_meter, find_nvml, measure_energy, read_state
from avsbg.benchmarks.measure.cases import BenchmarkCase
from avsbg.benchmarks.measure.hardware_peak import measure_copy_rate, measure_matrix_rates
from avsbg.benchmarks.measure.workloads import Workload
from avsbg.benchmarks.results.schema import MachineState, Metric, Run
from avsbg.benchmarks.results.stability import find_problems
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.progress import Progress
from avsbg.runtime.backends import Backend
from avsbg.runtime.verify import verify

# An engine's threads spin for some milliseconds after a call; see `interleave`.
PAUSE = 0.05


@dataclass(frozen=True)
class CaseSamples:
    """Samples of one case: seconds of each round's call, the backend's description, and further metrics.

    These are `logit_difference` and `miou` (see `mask_agreement`) where they are known, and the energy where the
    machine has a meter.
    """

    seconds: list[float]
    processor: list[float]  # seconds that all threads of this process computed meanwhile
    described: dict[str, Any]
    metrics: dict[str, Metric]


@dataclass(frozen=True)
class Settings:
    """The extent of a measurement."""

    warmup: int = 3  # rounds that are dropped
    samples: int = 30  # rounds that are kept, at the least
    seconds: float = 3.0  # rounds go on until this much time has passed, all cases together
    patience: int = 0  # rounds that may follow while a row varies or drifts beyond its limits; none is dropped
    interval: float | None = None  # rounds go on until each ratio's interval is no wider, in shares of the ratio
    budget: float = 0.0  # seconds of sampling that these may take; what was begun is finished
    reference: str | None = None  # label of the row that the others are divided by; None for the first
    memory: bool = True  # whether peak memory is measured

    def __post_init__(self) -> None:
        beyond = {
            "the least time": self.seconds,
            "the number of extra rounds": self.patience,
            "the budget": self.budget,
            "the width of an interval": self.interval or 0,
        }
        for name, value in beyond.items():
            if not (value >= 0 and math.isfinite(value)):
                raise BenchmarkError(f"{name} is {value:g}.", "It is a number from 0 on.")
        if self.samples < 2 or self.warmup < 1:
            raise BenchmarkError(
                f"cannot take {self.samples} samples over {self.seconds:g} s after {self.warmup} rounds of warm-up.",
                "Take at least 2 samples after at least 1 round, over 0 s or more.",
            )


def interleave(
    callables: Mapping[str, Callable[[], object]],
    *,
    warmup: int,
    samples: int,
    minimum_seconds: float = 0.0,
    pause: float = 0.0,
    after_round: Callable[[int], object] | None = None,
    more: Callable[[Mapping[str, Sequence[float]]], bool] | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, list[float]]:
    """Time each callable once per round, in an order that rotates from round to round.

    The i-th samples of all callables come from the same round: they are pairs, and may be compared as such
    (`statistics.paired_ratio`). The garbage collector is off while sampling.

    Args:
        callables: name -> what to time; it must have finished its work (or synchronised its device) on return.
        warmup: rounds whose times are dropped; `samples` rounds are kept, at the least.
        minimum_seconds: sampling goes on until this much time has passed, in whole rounds.
        pause: seconds of rest before each call. The worker threads of an engine spin for a while after its work is
            done, and would take the processor from the next one.
        more: asked after each round beyond `samples` and `minimum_seconds`, with all times so far, whether another
            follows; nothing that was sampled is dropped.
        after_round: called outside the timed parts with the number of rounds done so far, warm-up included.

    Returns:
        Seconds per call by name, in the order of the rounds; all lists have the same length.
    """
    if not callables or samples < 1:
        raise ValueError(f"nothing to time: {len(callables)} callables, {samples} samples")
    names = list(callables)
    times: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(warmup):
            for name in names:
                callables[name]()
            if after_round:
                after_round(done + 1)
        started = clock()
        rounds = 0
        while rounds < samples or (clock() - started) * 1e-9 < minimum_seconds or (more is not None and more(times)):
            shift = rounds % len(names)
            for name in names[shift:] + names[:shift]:
                if pause:
                    time.sleep(pause)
                begin = clock()
                callables[name]()
                times[name].append((clock() - begin) * 1e-9)
            rounds += 1
            if after_round:
                after_round(warmup + rounds)
    finally:
        if collecting:
            gc.enable()
    return times


def sample(
    cases: Sequence[BenchmarkCase],
    workload: Workload,
    settings: Settings,
    progress: Progress,
    *,
    threads: int,
    check: Callable[[BenchmarkCase, dict[str, Any]], object] = lambda *_: None,
) -> tuple[dict[str, CaseSamples], Run]:
    """Open every case, hold it against its bundle's vectors, and time all of them in turn.

    Each case with what its backend says of itself is given to `check`, before anything is timed.

    Returns the samples of each case, by label, and the machine meanwhile, with its peak on so many threads afterwards.
    """
    described, calls = {}, {}
    processor: dict[str, list[float]] = {}
    reference = settings.reference or cases[0].label
    metrics: dict[str, dict[str, Metric]] = {}
    nvml = find_nvml()
    with ExitStack() as stack:
        for number, case in enumerate(cases):
            progress("loading", number, len(cases))
            backend = stack.enter_context(case.create())
            difference = logit_difference(backend, workload.clips)
            calls[case.label] = count_processor_time(workload.prepare(backend), processor.setdefault(case.label, []))
            described[case.label] = backend.describe()
            check(case, described[case.label])
            precision = str(described[case.label].get("precision") or "fp32")
            accuracy = {"logit_difference": difference, "miou": mask_agreement(backend, workload.clips, precision)}
            metrics[case.label] = {name: Metric(value=value) for name, value in accuracy.items() if value is not None}
        progress("loading", len(cases), len(cases))
        rounds = _Rounds(progress, settings.warmup, settings.samples, read=lambda: read_state(nvml=nvml))
        seconds = interleave(
            calls,
            warmup=settings.warmup,
            samples=settings.samples,
            minimum_seconds=settings.seconds,
            pause=PAUSE,
            after_round=rounds.after_round,
            more=lambda times: _wants_more(times, settings, reference, rounds.elapsed()),
        )
        others, after = rounds.load.share(), read_state(nvml=nvml)
        clips = {case.label: workload.describe(case.bundle)["clips"] for case in cases}
        energy = _measure_energies(calls, clips, find_meter(nvml=nvml), progress)
    sampled = {
        label: CaseSamples(
            seconds[label],
            processor[label][settings.warmup : settings.warmup + len(seconds[label])],
            described[label],
            metrics[label] | energy[label],
        )
        for label in calls
    }
    peaks, copy_rate = measure_matrix_rates(threads), measure_copy_rate()
    return sampled, Run(others=others, before=rounds.before, after=after, peaks=peaks, copy_rate=copy_rate)


def count_processor_time(call: Callable[[], object], counted: list[float]) -> Callable[[], object]:
    """Wrap the call so that each one appends its processor time to `counted`."""

    def counting() -> object:
        begin = time.process_time()
        result = call()
        counted.append(time.process_time() - begin)
        return result

    return counting


def _wants_more(times: Mapping[str, Sequence[float]], settings: Settings, reference: str, elapsed: float) -> bool:
    """Whether another round follows `elapsed` seconds of them: within patience or budget, for what is not settled yet.

    Patience is for rows that are unstable for their own samples' sake, the budget for ratios with wide intervals.
    """
    taken = len(times[reference])
    if taken < settings.samples + settings.patience and any(find_problems(row, others=0.0) for row in times.values()):
        return True
    if settings.interval is None or elapsed * (taken + 1) / taken > settings.budget:
        return False
    widths = [paired_ratio(row, times[reference]).width for label, row in times.items() if label != reference]
    return any(width is None or width > settings.interval for width in widths)


def _measure_energies(
    calls: Mapping[str, Callable[[], object]], clips: Mapping[str, int], meter: EnergyMeter | None, progress: Progress
) -> dict[str, dict[str, Metric]]:
    measured: dict[str, dict[str, Metric]] = {label: {} for label in calls}
    if meter is not None:
        for number, (label, call) in enumerate(calls.items(), start=1):
            measured[label] = measure_energy(call, meter, clips=clips[label])
            progress("energy, one by one", number, len(calls))
    return measured


def logit_difference(backend: Backend, clips: int) -> float | None:
    """The largest difference of a logit to PyTorch's on vectors of so many clips, None without any; NaN is an error."""
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
    """The mean IoU of the masks with PyTorch's, the accuracy threshold of a precision that is meant to differ.

    None for fp32, which is held to its logits, and without test vectors of so many clips.
    """
    vectors = [one for one in backend.bundle.vectors() if one.record.clips == clips]
    if precision == "fp32" or not vectors:
        return None
    return verify.verify_backend(backend, vectors, precision=precision).miou


class _Rounds:
    """Shows the rounds, and watches the machine from the end of the warm-up on."""

    def __init__(self, progress: Progress, warmup: int, samples: int, *, read: Callable[[], MachineState]) -> None:
        self._progress, self._warmup, self._samples, self._read = progress, warmup, samples, read
        self._started = time.perf_counter()
        self._title = ""
        self.load, self.before = OtherLoad(), read()

    def elapsed(self) -> float:
        """Seconds since the end of the warm-up."""
        return time.perf_counter() - self._started

    def after_round(self, done: int) -> None:
        if done < self._warmup:
            self._progress("warming up, rounds", done, self._warmup)
            return
        if done == self._warmup:
            self._progress("warming up, rounds", done, self._warmup)
            left = self._samples * (time.perf_counter() - self._started) / done
            self._title = f"sampling in turn for about {left:.0f} s, rounds"
            self.before, self.load, self._started = self._read(), OtherLoad(), time.perf_counter()
        self._progress(self._title, done - self._warmup, max(done - self._warmup, self._samples))
