"""What is reported of a set of samples: percentiles, and ratios of paired samples with a confidence interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Summary:
    """Of `n` samples, in the samples' unit. `variation` is the coefficient of variation, dimensionless."""

    n: int
    minimum: float
    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    variation: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def summarise(samples: Sequence[float]) -> Summary:
    """Percentiles with linear interpolation; no sample is dropped.

    Raises:
        ValueError: there are no samples.
    """
    import numpy as np

    if not samples:
        raise ValueError("no samples to summarise")
    values = np.asarray(samples, dtype=np.float64)
    p50, p90, p95, p99 = (float(p) for p in np.percentile(values, (50, 90, 95, 99)))
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Summary(len(values), float(values.min()), p50, p90, p95, p99, mean, spread / mean if mean else 0.0)


def drift(samples: Sequence[float], *, windows: int = 4) -> float:
    """How far the last window of a series lies from the first, relative to the first: 0.1 is 10 % slower.

    Args:
        samples: in the order in which they were taken.
        windows: in how many equal windows the series is cut; the medians of the first and the last are compared.

    Raises:
        ValueError: there are fewer samples than windows.
    """
    import numpy as np

    if len(samples) < windows:
        raise ValueError(f"{len(samples)} samples cannot be cut into {windows} windows")
    length = len(samples) // windows
    return float(np.median(samples[-length:]) / np.median(samples[:length])) - 1.0


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios with its bootstrap confidence interval."""

    median: float
    low: float
    high: float
    confidence: float


def paired_ratio(
    numerator: Sequence[float], denominator: Sequence[float], *, confidence: float = 0.95, seed: int = 0
) -> Ratio:
    """The median over pairs of numerator / denominator, with a percentile-bootstrap interval over the pairs.

    Raises:
        ValueError: the two differ in length, or there are fewer than two pairs.
    """
    import numpy as np

    if len(numerator) != len(denominator) or len(numerator) < 2:
        raise ValueError(
            f"paired samples need equal lengths of at least 2, not {len(numerator)} and {len(denominator)}"
        )
    ratios = np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)
    return Ratio(float(np.median(ratios)), *_bootstrap(ratios, np.median, confidence, seed), confidence)


@dataclass(frozen=True)
class Interval:
    """The mean of samples with its bootstrap confidence interval, which fewer than two samples have not."""

    mean: float
    low: float | None
    high: float | None
    confidence: float


def mean_interval(samples: Sequence[float], *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean, with a percentile-bootstrap interval over the samples.

    Raises:
        ValueError: there are no samples.
    """
    import numpy as np

    if not samples:
        raise ValueError("no samples to average")
    values = np.asarray(samples, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, None, None, confidence)
    return Interval(mean, *_bootstrap(values, np.mean, confidence, seed), confidence)


def _bootstrap(values: Any, statistic: Callable[..., Any], confidence: float, seed: int) -> tuple[float, float]:
    """The percentile interval of a statistic over resamples."""
    import numpy as np
    from scipy.stats import bootstrap

    interval = bootstrap(
        (values,),
        statistic,
        confidence_level=confidence,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
