"""Two files of rows held together: is a row faster, slower, or can it not be told?

The rows of two files were not sampled in turn, so their samples are no pairs, and what changed between the runs (the
machine, its load, its clocks) is part of the difference. The interval is a bootstrap over both sets of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from avsbg.benchmarks.results.rows import Row

Verdict = Literal["faster", "slower", "cannot tell"]


@dataclass(frozen=True)
class Comparison:
    """A label in two files.

    Attributes:
        label: of both rows.
        verdict: on the second against the first.
        ratio: median time of the second over the first's; None where a row is unstable or missing.
        low: of its interval. high: likewise.
        reason: why nothing can be told; empty where it can.
    """

    label: str
    verdict: Verdict
    ratio: float | None
    low: float | None
    high: float | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_files(first: Sequence[Row], second: Sequence[Row], *, confidence: float = 0.95) -> list[Comparison]:
    """A verdict for each label of either file, in the order of the first."""
    before, after = ({row.label: row for row in rows} for rows in (first, second))
    labels = [*before, *(label for label in after if label not in before)]
    return [_judge(label, before.get(label), after.get(label), confidence) for label in labels]


def _judge(label: str, first: Row | None, second: Row | None, confidence: float) -> Comparison:
    if first is None or second is None:
        return _unknown(label, f"only in the {'second' if first is None else 'first'} file")
    for which, row in (("first", first), ("second", second)):
        if not row.stable:
            return _unknown(label, f"unstable in the {which} file: {'; '.join(row.problems)}")
    if first.workload != second.workload:
        return _unknown(label, "the two rows do not compute the same")
    if first.environment.processor != second.environment.processor:
        return _unknown(label, f"measured on {first.environment.processor} and on {second.environment.processor}")
    ratio, low, high = median_ratio(second.latency.samples, first.latency.samples, confidence=confidence)
    verdict: Verdict = "faster" if high < 1 else "slower" if low > 1 else "cannot tell"
    reason = f"the interval [{low:.3f}, {high:.3f}] contains 1" if verdict == "cannot tell" else ""
    return Comparison(label, verdict, ratio, low, high, reason)


def _unknown(label: str, reason: str) -> Comparison:
    return Comparison(label, "cannot tell", None, None, None, reason)


def median_ratio(
    numerator: Sequence[float], denominator: Sequence[float], *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """The ratio of two medians of unpaired samples, with a percentile-bootstrap interval over both."""
    import numpy as np
    from scipy.stats import bootstrap

    def ratio(a: Any, b: Any, axis: int = -1) -> Any:
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    samples = (np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64))
    interval = bootstrap(
        samples,
        ratio,
        confidence_level=confidence,
        n_resamples=2000,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(ratio(samples[0], samples[1])), float(interval.low), float(interval.high)
