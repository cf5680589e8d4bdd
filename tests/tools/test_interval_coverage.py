"""The interval of a paired ratio holds the true one as often as it says, on machines that are disturbed."""

from __future__ import annotations

import pytest

from avsbg.benchmarks.results.schema import read_rows
from fixtures import ROOT
from tools.interval_coverage import BURSTS, DISTURBANCES, HALVES, NEIGHBOUR, ONE_CASE, ROUNDS, simulate

ROWS = read_rows(ROOT / "benchmarks/results/coverage.jsonl", "interval-coverage")


@pytest.mark.parametrize("disturbance", [BURSTS, NEIGHBOUR, HALVES])
def test_coverage_under_a_disturbance(disturbance: str) -> None:
    row = simulate(disturbance, 12, 60)
    assert row["covered"].number >= 0.88  # 0.95 less three standard deviations of the count
    assert row["told"].number > 0.95


def test_a_change_of_one_case_alone_is_seen() -> None:
    assert simulate(ONE_CASE, 12, 30)["told"].number < 0.1


def test_the_committed_rows_keep_the_coverage_and_are_what_the_tool_makes() -> None:
    assert [(row.case["disturbance"], row.case["rounds"]) for row in ROWS] == [
        (disturbance, rounds) for disturbance in DISTURBANCES for rounds in ROUNDS
    ]
    for row in ROWS:
        if row.case["disturbance"] != ONE_CASE:
            assert row["covered"].number >= 0.92, row.label
    again = simulate(BURSTS, 10, ROWS[0].case["trials"])
    assert again.metrics == next(row for row in ROWS if row.label == BURSTS and row.case["rounds"] == 10).metrics
