"""Interleaved timing: every contender is sampled in turn, so that a disturbance of the machine meets them all."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence


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
        warmup: rounds whose times are dropped.
        samples: rounds whose times are kept, at the least.
        minimum_seconds: sampling goes on until this much time has passed, in whole rounds.
        pause: seconds of rest before each call. The worker threads of an engine spin for a while after its work is
            done, and would take the processor from the next one.
        more: asked after each round beyond `samples` and `minimum_seconds`, with all times so far, whether another
            follows; nothing that was sampled is dropped.
        after_round: called outside the timed parts with the number of rounds done so far, warm-up included.
        clock: nanoseconds of a clock that never goes back.

    Returns:
        Seconds per call by name, in the order of the rounds; all lists have the same length.

    Raises:
        ValueError: there is nothing to time, or `samples` is less than 1.
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
