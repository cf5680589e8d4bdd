"""Trust in a paired ratio: whether the pairs of a run agree, even if the times themselves are unstable.

A shared machine slows both halves of a pair alike, so a ratio can stand where neither time does. What can be held
against it is in its pairs alone, and is read from them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.results.stability import LIMITS, find_accuracy_problems
from avsbg.benchmarks.results.statistics import Interval, drift, median_interval, pair_ratios

Trust = Literal["firm", "rough", "contradictory"]


@dataclass(frozen=True)
class TrustedRatio:
    """A ratio with its interval, how far it can be trusted, and why no further.

    `firm`: the interval is narrow and the ratio stays. `rough`: the interval holds, but is wide, or the ratio drifts.
    `contradictory`: nothing can be said, since the two halves of the pairs exclude each other, there are too few pairs
    for an interval, or one of the two computes something else.
    """

    interval: Interval
    trust: Trust
    reasons: tuple[str, ...] = ()


def judge_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> TrustedRatio:
    """Judge the ratio of pairs in the order of their rounds. Raises as `pair_ratios`.

    The interval is the sign test's, so it excludes 1 exactly where that test over the rounds rejects "as fast".
    """
    ratios = pair_ratios(numerator, denominator)
    interval = median_interval(ratios)
    if interval.width is None:
        return TrustedRatio(interval, "contradictory", (f"{len(ratios)} pairs are too few for an interval",))
    halves = ratios[: len(ratios) // 2], ratios[len(ratios) // 2 :]
    (low, before, high), (low_after, after, high_after) = (_range(half) for half in halves)
    moved = after / before - 1
    if len(halves[0]) >= LIMITS.half and abs(moved) > LIMITS.ratio_drift and (low > high_after or low_after > high):
        reason = f"the second half of the pairs is {moved:+.1%} off the first, and their ranges exclude each other"
        return TrustedRatio(interval, "contradictory", (reason,))
    reasons = []
    if interval.width > LIMITS.interval:
        reasons.append(f"the ratio's interval is {interval.width:.1%} wide, above {LIMITS.interval:.1%}")
    if len(ratios) >= 4 * LIMITS.half and abs(moved := drift(ratios)) > LIMITS.ratio_drift:
        reasons.append(f"the ratio's last quarter is {moved:+.1%} off the first, beyond {LIMITS.ratio_drift:.1%}")
    return TrustedRatio(interval, "rough" if reasons else "firm", tuple(reasons))


def _range(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The interval around the median of one half, or all of it where it is too short for one."""
    found = median_interval(ratios)
    low, high = (min(ratios), max(ratios)) if found.low is None or found.high is None else (found.low, found.high)
    return low, found.value, high


def ratio_to(row: Measurement, reference: Measurement) -> TrustedRatio:
    """The ratio of a row's latency to that of another of its run, judged by their pairs and by their outputs."""
    judged = judge_ratio(row["latency"].samples, reference["latency"].samples)
    wrong = [problem for one in (row, reference) for problem in accuracy_problems(one)]
    return TrustedRatio(judged.interval, "contradictory", tuple(wrong)) if wrong else judged


def accuracy_problems(row: Measurement) -> tuple[str, ...]:
    """The reasons why the row does not compute what it should; empty where it does."""
    return find_accuracy_problems(row.value("logit_difference"), row.value("miou"))
