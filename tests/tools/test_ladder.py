"""The ladder: gains over the published form and the step before, bounds, aims; unstable rows have no times."""

from __future__ import annotations

from typing import Any

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import Measurement, Metric
from fixtures.rows import RUN, make_row
from tools.speed_tables import ladder

FIRST = make_row()


def step(label: str, median: float, **changes: Any) -> Measurement:
    """A row of the run whose reference takes a second."""
    run = RUN.model_copy(update={"peaks": {"fp32": 377.2e9, "bf16": 754.4e9, "int8": 1508.8e9}})
    return make_row(label, median=median, run=run, **changes)


def rows(**changes: Any) -> list[Measurement]:
    openvino = {"backend": "openvino", "operator": "plain", "threads": 2}
    return [
        step(FIRST.label, 1.0),
        step("avs-bg:openvino", 0.625, backend=openvino | {"precision": "fp32"}),
        step(
            "avs-bg:openvino:bf16", 0.5, backend=openvino | {"precision": "bf16"}, metrics={"miou": Metric(value=0.999)}
        ),
        step("avs-bg:openvino:int8", 0.25, backend=openvino | {"precision": "int8", "rest": "bf16"}, **changes),
    ]


def test_gains_bounds_and_aims() -> None:
    text = ladder(rows(), "rows.jsonl")
    lines = [[cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines()[2:6]]
    assert lines[0][2:4] == ["1", ""]
    assert lines[1][2:4] == ["1.60 [1.60, 1.60]", "1.60 [1.60, 1.60]"]
    assert lines[2][2:4] == ["2.00 [2.00, 2.00]", "1.25 [1.25, 1.25]"]
    assert lines[0][5:7] == ["500", "50%"] and lines[2][5:8] == ["250", "50%", "0.9990"]
    assert lines[3][0] == "int8, the rest bf16" and lines[3][5:7] == ["125", "50%"]
    assert "fp32: 1.60x by avs-bg:openvino; the aim of 1.4x is reached." in text
    assert "a reduced precision: 4.00x by avs-bg:openvino:int8; the aim of 3x is reached." in text


def test_a_step_with_other_masks_counts_for_nothing() -> None:
    problems = ("masks have a mean IoU of 0.5",)
    text = ladder(rows(problems=problems, metrics={"miou": Metric(value=0.5)}), "rows.jsonl")
    assert "| - | pairs disagree | pairs disagree |" in text and "4.00" not in text
    assert "a reduced precision: 2.00x by avs-bg:openvino:bf16; the aim of 3x is not reached." in text
    assert "masks have a mean IoU of 0.5" in text


def test_a_step_whose_times_are_unstable_keeps_its_gain() -> None:
    text = ladder(rows(problems=("busy",)), "rows.jsonl")
    assert "| - | 4.00 [4.00, 4.00] | 2.00 [2.00, 2.00] |" in text
    assert "a reduced precision: 4.00x by avs-bg:openvino:int8" in text and ": busy." in text


def test_steps_of_two_runs_are_no_ladder() -> None:
    other = rows()[1].run.model_copy(update={"others": 0.02})
    with pytest.raises(BenchmarkError, match="not of the run"):
        ladder([*rows()[:1], rows()[1].model_copy(update={"run": other})], "rows.jsonl")
