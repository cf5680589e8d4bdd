"""Two files of rows compared, row by row: faster, slower, or cannot tell.

The rows of two files were not sampled in turn, so their samples are no pairs, and what changed between the runs (the
machine, its load, its clocks) is part of the difference. The interval is a bootstrap over both sets of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.results.statistics import unpaired_ratio


@dataclass(frozen=True)
class Comparison:
    """A label in two files: the second's row compared with the first's."""

    label: str
    comparison: Literal["faster", "slower", "cannot tell"]
    ratio: float | None = None  # of the medians, second over first; None where a row is unstable or missing
    low: float | None = None  # of its interval
    high: float | None = None
    reason: str = ""  # why nothing can be told; empty where it can


def compare_rows(first: Sequence[Measurement], second: Sequence[Measurement]) -> list[Comparison]:
    """Compare the rows of each label of either file, in the order of the first."""
    before, after = ({row.label: row for row in rows} for rows in (first, second))
    labels = [*before, *(label for label in after if label not in before)]
    return [_compare(label, before.get(label), after.get(label)) for label in labels]


def _compare(label: str, first: Measurement | None, second: Measurement | None) -> Comparison:
    if first is None or second is None:
        name = "second" if first is None else "first"
        return Comparison(label, "cannot tell", reason=f"only in the {name} file")
    if reason := _find_obstacle(first, second):
        return Comparison(label, "cannot tell", reason=reason)
    found = unpaired_ratio(second["latency"].samples, first["latency"].samples)
    ratio, low, high = found.value, found.low, found.high
    assert low is not None and high is not None
    if low <= 1 <= high:
        return Comparison(label, "cannot tell", ratio, low, high, f"the interval [{low:.3f}, {high:.3f}] contains 1")
    return Comparison(label, "faster" if high < 1 else "slower", ratio, low, high)


def _find_obstacle(first: Measurement, second: Measurement) -> str:
    for name, row in (("first", first), ("second", second)):
        if not row.is_stable:
            return f"unstable in the {name} file: {'; '.join(row.problems)}"
    if first.case != second.case:
        return "the two rows do not compute the same"
    processors = [row.environment.processor if row.environment else "an unknown machine" for row in (first, second)]
    return "" if processors[0] == processors[1] else f"measured on {' and on '.join(processors)}"
