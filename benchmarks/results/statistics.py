"""Statistics of samples: percentiles, and medians, means and ratios with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Of every confidence interval.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Percentiles of `n` samples, in the samples' unit. `variation` is the coefficient of variation, dimensionless."""

    n: int
    minimum: float
    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    variation: float


def summarise(samples: Sequence[float]) -> Summary:
    """Percentiles with linear interpolation; no sample is dropped. A `ValueError` if there are none."""
    if not samples:
        raise ValueError("no samples to summarise")
    values = np.asarray(samples, dtype=np.float64)
    p50, p90, p95, p99 = (float(p) for p in np.percentile(values, (50, 90, 95, 99)))
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Summary(len(values), float(values.min()), p50, p90, p95, p99, mean, spread / mean if mean else 0.0)


def drift(samples: Sequence[float], *, windows: int = 4) -> float:
    """The distance of the last window of a series from the first, relative to the first: 0.1 is 10 % slower.

    Medians of equal windows in the samples' order are compared; a `ValueError` if there are fewer samples than windows.
    """
    if len(samples) < windows:
        raise ValueError(f"{len(samples)} samples cannot be cut into {windows} windows")
    length = len(samples) // windows
    return float(np.median(samples[-length:]) / np.median(samples[:length])) - 1.0


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, which too few samples have not: two of a mean, six of a median."""

    value: float
    low: float | None
    high: float | None

    @property
    def width(self) -> float | None:
        """The width of the interval in shares of the estimate; None without an interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / abs(self.value)


def median_interval(values: Sequence[float]) -> Interval:
    """The median with the interval of the sign test: the medians that the test does not reject.

    Its ends are samples, the k-th smallest and the k-th largest, with the largest k whose coverage is the confidence at
    the least. It assumes that samples are independent with one median, and nothing of their distribution, so that
    single disturbances of any size leave it valid. A `ValueError` if there are no samples.
    """
    from scipy.stats import binom

    if not values:
        raise ValueError("no samples to take the median of")
    ordered, n = sorted(values), len(values)
    dropped = int(binom.ppf((1 - CONFIDENCE) / 2, n, 0.5)) - 1  # at each end
    value = float(np.median(ordered))
    return Interval(value, None, None) if dropped < 0 else Interval(value, ordered[dropped], ordered[n - 1 - dropped])


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Interval:
    """The median over pairs, two at least, of numerator / denominator, with its `median_interval`."""
    return median_interval(pair_ratios(numerator, denominator))


def pair_ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """The ratio of each pair; a `ValueError` if there are fewer than two, or samples without a partner."""
    if len(numerator) != len(denominator) or len(numerator) < 2:
        lengths = f"{len(numerator)} and {len(denominator)}"
        raise ValueError(f"paired samples need equal lengths of at least 2, not {lengths}")
    return [above / below for above, below in zip(numerator, denominator, strict=True)]


def unpaired_ratio(numerator: Sequence[float], denominator: Sequence[float], *, seed: int = 0) -> Interval:
    """The ratio of two medians of samples that are no pairs, with a percentile-bootstrap interval over both."""

    def ratio(a: Any, b: Any, axis: int = -1) -> Any:
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    samples = (np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64))
    return Interval(float(ratio(*samples)), *_bootstrap(samples, ratio, seed))


def mean_interval(samples: Sequence[float], *, seed: int = 0) -> Interval:
    """The mean, with a percentile-bootstrap interval over the samples; a `ValueError` if there are none."""
    if not samples:
        raise ValueError("no samples to average")
    values = np.asarray(samples, dtype=np.float64)
    mean = float(values.mean())
    return Interval(mean, None, None) if len(values) < 2 else Interval(mean, *_bootstrap((values,), np.mean, seed))


def _bootstrap(samples: tuple[Any, ...], statistic: Callable[..., Any], seed: int) -> tuple[float, float]:
    """The percentile interval of a statistic over resamples."""
    from scipy.stats import bootstrap

    rng = np.random.default_rng(seed)
    found = bootstrap(samples, statistic, confidence_level=CONFIDENCE, n_resamples=2000, method="percentile", rng=rng)
    interval = found.confidence_interval
    return float(interval.low), float(interval.high)
