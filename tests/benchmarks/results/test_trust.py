"""Paired ratios: the sign test's interval, and how far the pairs of a run agree."""

from __future__ import annotations

import numpy as np
import pytest

from avsbg.benchmarks.results.statistics import median_interval, paired_ratio
from avsbg.benchmarks.results.trust import judge_ratio


def test_the_interval_is_the_sign_tests() -> None:
    from scipy.stats import binomtest

    values = sorted(np.random.default_rng(0).normal(1, 0.1, 13).tolist())
    interval = median_interval(values[::-1])
    assert (interval.value, interval.low, interval.high) == (values[6], values[2], values[10])
    for candidate in (*np.linspace(0.7, 1.3, 61),):
        rejected = binomtest(sum(value > candidate for value in values), 13).pvalue < 0.05
        assert rejected == (not interval.low <= candidate <= interval.high)
    assert median_interval(values[:6]).low == values[0] and median_interval(values[:5]).low is None
    with pytest.raises(ValueError, match="no samples"):
        median_interval([])


def test_pairs_that_share_a_disturbance_agree() -> None:
    """The times double halfway, and are no result; each pair stays what it was."""
    load = np.repeat([1.0, 2.0], 10) * np.random.default_rng(0).normal(1, 0.2, 20)
    judged = judge_ratio((0.68 * load).tolist(), load.tolist())
    assert judged.trust == "firm" and judged.interval.value == pytest.approx(0.68) and judged.reasons == ()


def test_wide_drifting_and_contradictory_pairs() -> None:
    ones = [1.0] * 20
    wide = judge_ratio([0.8, 1.0] * 10, ones)
    assert wide.trust == "rough" and "wide, above 10.0%" in wide.reasons[0]
    drifting = judge_ratio([1.0, 1.01] * 7 + [1.01, 1.06] + [1.06, 1.07] * 2, ones)
    assert drifting.trust == "rough" and "last quarter is +6.0% off the first" in drifting.reasons[0]
    halves = judge_ratio([0.9, 0.92] * 5 + [1.1, 1.12] * 5, ones)
    assert halves.trust == "contradictory" and "+22.0%" in halves.reasons[0]
    few = judge_ratio([1.0] * 5, ones[:5])
    assert few.trust == "contradictory" and "5 pairs are too few" in few.reasons[0]
    assert paired_ratio([1.0, 3.0], [1.0, 1.0]).value == 2.0
