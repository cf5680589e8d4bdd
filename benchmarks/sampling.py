"""Opening contenders side by side in one process, holding each against PyTorch, and timing them in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rich.progress import Progress, TaskID

from avsbg.benchmarks.contenders import Contender
from avsbg.benchmarks.environment import OtherLoad
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.progress import advance, step
from avsbg.benchmarks.timing import interleave
from avsbg.benchmarks.workloads import Workload
from avsbg.runtime import verify
from avsbg.runtime.backends import Backend

# An engine's threads spin for some milliseconds after a call; see `interleave`.
PAUSE = 0.05


@dataclass(frozen=True)
class Samples:
    """What sampling found, by label.

    Attributes:
        seconds: of each call, in the order of the rounds.
        described: what ran, as the backend says.
        logit_difference: see the function of that name.
        others: the share of all cores that other processes used meanwhile.
    """

    seconds: dict[str, list[float]]
    described: dict[str, dict[str, Any]]
    logit_difference: dict[str, float | None]
    others: float


def sample(
    contenders: Sequence[Contender],
    workload: Workload,
    *,
    warmup: int,
    samples: int,
    minimum_seconds: float,
    progress: Progress,
) -> Samples:
    """Open every contender, hold it against its bundle's vectors, and time all of them in turn.

    Args:
        contenders: with different labels.
        workload: what each call computes.
        warmup: rounds that are dropped, at least 1.
        samples: rounds that are kept, at the least.
        minimum_seconds: rounds go on until this much time has passed.
        progress: redrawn between calls.

    Raises:
        BackendError: a backend cannot do what was asked for.
    """
    described, differences, calls = {}, {}, {}
    with ExitStack() as stack:
        with step(progress, "loading", len(contenders)) as task:
            for contender in contenders:
                backend = stack.enter_context(contender.create())
                differences[contender.label] = logit_difference(backend, workload.clips)
                calls[contender.label] = workload.prepare(backend)
                described[contender.label] = backend.describe()
                advance(progress, task)
        with step(progress, "sampling in turn, rounds", warmup + samples) as task:
            rounds = _Rounds(progress, task, warmup, samples)
            seconds = interleave(
                calls,
                warmup=warmup,
                samples=samples,
                minimum_seconds=minimum_seconds,
                pause=PAUSE,
                after_round=rounds.after_round,
            )
        return Samples(seconds, described, differences, rounds.others())


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


class _Rounds:
    """Shows the rounds, and meters the load of others from the end of the warm-up on."""

    def __init__(self, progress: Progress, task: TaskID, warmup: int, samples: int) -> None:
        self._progress, self._task = progress, task
        self._warmup, self._total = warmup, warmup + samples
        self._load = OtherLoad()

    def after_round(self, done: int) -> None:
        if done == self._warmup:
            self._load = OtherLoad()
        self._progress.update(self._task, completed=done, total=max(done, self._total), refresh=True)

    def others(self) -> float:
        return self._load.share()
