"""The rule that leaves products out of a quantisation: how few suffice, and how many trials that takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsbg.export.precision.sensitivity import bisect_exclusions, most_trials


class Scores:
    """A score for each count; remembers what was asked for."""

    def __init__(self, values: list[float]) -> None:
        self.values, self.tried = values, list[int]()

    def __call__(self, count: int) -> float:
        self.tried.append(count)
        return self.values[count]


@given(st.integers(0, 600), st.data())
def test_where_more_left_out_is_never_worse_the_fewest_are_found(most: int, data: st.DataObject) -> None:
    least, needed = data.draw(st.integers(0, most)), data.draw(st.integers(0, most))
    scores = Scores([float(count >= needed) for count in range(most + 1)])
    assert bisect_exclusions(scores, least, most, 1.0) == max(least, needed)
    assert len(scores.tried) == len(set(scores.tried)) <= most_trials(most)


@given(st.lists(st.sampled_from([0.2, 0.9]), min_size=1, max_size=200), st.data())
def test_what_is_chosen_reaches_the_gate_or_is_all(values: list[float], data: st.DataObject) -> None:
    most = len(values) - 1
    scores = Scores(values)
    chosen = bisect_exclusions(scores, data.draw(st.integers(0, most)), most, 0.5)
    assert chosen in scores.tried
    assert values[chosen] >= 0.5 or chosen == most
    assert len(scores.tried) <= most_trials(most)


@pytest.mark.parametrize(
    ("needed", "tried"), [(0, [0]), (1, [0, 1]), (5, [0, 1, 2, 4, 8, 6, 5]), (10, [0, 1, 2, 4, 8, 10, 9])]
)
def test_counts_double_and_come_back_by_halves(needed: int, tried: list[int]) -> None:
    scores = Scores([float(count >= needed) for count in range(11)])
    assert bisect_exclusions(scores, 0, 10, 1.0) == needed
    assert scores.tried == tried
