"""Sampling and statistics: what is counted and computed, never how long it took."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from avsbg.benchmarks.measure.sampling import Settings, _wants_more, interleave
from avsbg.benchmarks.results.statistics import paired_ratio, summarise


def test_each_contender_runs_once_per_round_and_the_order_rotates() -> None:
    calls: list[str] = []
    times = interleave({name: lambda n=name: calls.append(n) for name in "abc"}, warmup=2, samples=3)
    assert "".join(calls) == "abcabc" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert min(min(values) for values in times.values()) > 0


def test_sampling_goes_on_for_the_minimum_time() -> None:
    times = interleave({"a": lambda: None}, warmup=0, samples=1, minimum_seconds=0.01)
    assert len(times["a"]) > 1


def test_the_collector_is_off_while_sampling_and_on_after_a_failure() -> None:
    seen: list[bool] = []

    def fail() -> None:
        seen.append(gc.isenabled())
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interleave({"a": fail}, warmup=0, samples=1)
    assert seen == [False] and gc.isenabled()


def test_times_are_those_of_the_clock_and_rounds_are_told() -> None:
    now, told = 0, []

    def spend(nanoseconds: int) -> None:
        nonlocal now
        now += nanoseconds

    times = interleave(
        {"a": lambda: spend(10), "b": lambda: spend(30)},
        warmup=1,
        samples=1,
        minimum_seconds=100e-9,
        after_round=told.append,
        clock=lambda: now,
    )
    assert times == {"a": pytest.approx([1e-8] * 3), "b": pytest.approx([3e-8] * 3)}  # 3 rounds of 40 ns pass 100 ns
    assert told == [1, 2, 3, 4]


def test_rounds_go_on_while_more_are_wanted_and_none_is_dropped() -> None:
    asked: list[int] = []

    def more(times: Mapping[str, Sequence[float]]) -> bool:
        asked.append(len(times["a"]))
        return len(times["a"]) < 5

    times = interleave({"a": lambda: None, "b": lambda: None}, warmup=1, samples=3, more=more)
    assert asked == [3, 4, 5] and {len(samples) for samples in times.values()} == {5}


def test_patience_lasts_while_a_row_is_unstable() -> None:
    steady, drifting = [1.0] * 12, [1.0] * 8 + [1.2] * 4
    patient, hasty = Settings(samples=12, patience=12), Settings(samples=12)
    assert not _wants_more({"a": steady}, patient, "a", 1.0)
    assert _wants_more({"a": steady, "b": drifting}, patient, "a", 1.0)
    assert not _wants_more({"a": steady, "b": drifting}, hasty, "a", 1.0)


def test_the_budget_lasts_while_an_interval_is_wide() -> None:
    steady, spread = [1.0] * 12, [1.0, 1.2] * 6
    settings = Settings(samples=12, interval=0.1, budget=60.0)
    assert _wants_more({"a": steady, "b": spread}, settings, "a", 50.0)
    assert not _wants_more({"a": steady, "b": spread}, settings, "a", 56.0)  # the next round would end after 60.7 s
    assert not _wants_more({"a": steady, "b": steady}, settings, "a", 50.0)
    assert _wants_more({"a": steady[:5], "b": steady[:5]}, settings, "a", 5.0)  # no interval yet
    assert not _wants_more({"a": spread, "b": [2 * one for one in spread]}, settings, "a", 5.0)  # pairs agree


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to time"):
        interleave({}, warmup=0, samples=1)


def test_percentiles_match_numpy_and_keep_the_tail() -> None:
    samples = [*range(1, 101), 10_000]
    summary = summarise([float(s) for s in samples])
    assert summary.n == 101 and summary.minimum == 1.0
    assert summary.p50 == np.percentile(samples, 50) and summary.p99 == np.percentile(samples, 99)
    assert summary.variation == pytest.approx(np.std(samples, ddof=1) / np.mean(samples))
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


def test_a_paired_ratio_ignores_what_disturbs_both() -> None:
    rng = np.random.default_rng(0)
    disturbance = 1 + rng.exponential(2.0, 200)
    base = disturbance * rng.normal(1.0, 0.01, 200)
    ratio = paired_ratio(list(2 * disturbance), list(base))
    assert ratio.low <= 2.0 <= ratio.high and ratio.high - ratio.low < 0.02
    assert ratio.low <= ratio.value <= ratio.high
    with pytest.raises(ValueError, match="not 2 and 3"):
        paired_ratio([1.0, 2.0], [1.0, 2.0, 3.0])
