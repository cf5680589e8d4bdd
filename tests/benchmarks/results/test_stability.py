"""Limits of a stable row, each on its own."""

from __future__ import annotations

import numpy as np
import pytest

from avsbg.benchmarks.machine.environment import OtherLoad, default_threads, describe_environment
from avsbg.benchmarks.results.stability import LIMITS, find_problems
from avsbg.benchmarks.results.statistics import drift
from avsbg.runtime.threads import usable_cores

STEADY = [1.0, 1.01, 0.99, 1.0] * 5


def _problems(samples: list[float], others: float = 0.0, difference: float | None = 0.0) -> tuple[str, ...]:
    return find_problems(samples, others=others, logit_difference=difference)


def test_a_steady_row_has_no_problems() -> None:
    assert _problems(STEADY) == ()
    assert _problems(STEADY, difference=None) == ()


def test_each_limit_is_held() -> None:
    (few,) = _problems(STEADY[: LIMITS.samples - 1])
    assert "9 samples; at least 10" in few
    (wide,) = _problems([0.7, 1.0, 1.0, 1.3] * 5)
    assert "coefficient of variation" in wide
    (moving,) = _problems([1.0] * 10 + [1.06] * 10)
    assert "the last quarter is +6.0% off the first" in moving
    (faster,) = _problems([1.06] * 10 + [1.0] * 10)
    assert "-5.7%" in faster
    (busy,) = _problems(STEADY, others=0.5)
    assert "other processes used 50.0%" in busy
    (wrong,) = _problems(STEADY, difference=0.01)
    assert "logits differ from PyTorch by 0.01" in wrong


def test_several_problems_are_all_named() -> None:
    assert len(_problems([1.0] * 10 + [2.0] * 10, others=0.5, difference=1.0)) == 4


def test_drift_compares_the_medians_of_the_outer_windows() -> None:
    assert drift([2.0, 2.0, 9.0, 9.0, 9.0, 9.0, 3.0, 3.0]) == 0.5
    rng = np.random.default_rng(0)
    assert abs(drift(list(rng.normal(1.0, 0.01, 4000)))) < 0.002
    with pytest.raises(ValueError, match="3 samples"):
        drift([1.0, 1.0, 1.0])


def test_the_load_of_others_is_what_this_process_did_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    readings = iter([(100.0, 40.0, 0.0), (130.0, 50.0, 20.0)])  # busy, own, clock: seconds
    monkeypatch.setattr(OtherLoad, "_read", staticmethod(lambda: next(readings)))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    assert OtherLoad().share() == pytest.approx((30 - 10) / (20 * 4))


def test_the_environment_is_described_and_names_no_path() -> None:
    environment = describe_environment()
    assert environment.processor and environment.memory > 0
    assert environment.packages["numpy"] == np.__version__
    assert len(environment.cores) == len(usable_cores()) >= default_threads() >= 1
    assert environment.commit is None or len(environment.commit.removesuffix("-dirty")) == 40


def test_a_reduced_precision_is_held_to_its_masks_and_not_to_its_logits() -> None:
    def problems(miou: float) -> tuple[str, ...]:
        return find_problems(STEADY, others=0.0, logit_difference=0.2, miou=miou)

    assert problems(LIMITS.miou) == ()
    for miou in (LIMITS.miou - 0.001, float("nan")):
        (wrong,) = problems(miou)
        assert "mean IoU" in wrong
