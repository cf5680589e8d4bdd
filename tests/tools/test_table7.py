"""The README's table comes from rows of one run, and an unstable row shows its ratio alone."""

from __future__ import annotations

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import Metric
from fixtures.rows import RUN, VARIANT, make_row, make_second_row
from tools.speed_tables import table7


def test_measured_figures_stand_beside_the_papers() -> None:
    lines = table7([make_row(), make_second_row()], "rows.jsonl").splitlines()
    assert lines[2] == (
        "| AVS-BG, PVT-v2-b5 | PyTorch eager, as published | fp32 | 85.50 / 82.00 | 188.6 | 1000.0 / 1010.0 | 1 | 1586 "
        "| 85.50 / 27.48 |"
    )
    assert lines[3].startswith("| AVS-BG, PVT-v2-b5 | ONNX Runtime, native operator | fp32 | ")
    assert "| 500.0 / 505.0 | 0.500 [0.500, 0.500] |" in lines[3]
    assert "Imaginary CPU, 2 threads" in lines[5] and "commit 0123456789ab." in lines[5]
    assert lines[-1].strip() == "avsbg bench avs-bg"


def test_a_network_that_the_paper_did_not_time_has_no_figure_of_its() -> None:
    variant = VARIANT | {"motion": False}
    assert table7([make_row(variant=variant)], "rows.jsonl").splitlines()[2].endswith("| 1586 |  |")


def test_an_unstable_row_shows_its_ratio_and_no_time() -> None:
    text = table7([make_row(), make_second_row(problems=("too few samples",))], "rows.jsonl")
    line = text.splitlines()[3]
    assert "| - | 0.500 [0.500, 0.500] |" in line and "500.0" not in line
    assert "**The times of 1 of 2 rows are unstable**" in text and "~" not in text
    text = table7([make_row(problems=("busy",)), make_second_row()], "rows.jsonl")
    assert "| 500.0 / 505.0 | 0.500 [0.500, 0.500] |" in text


def test_a_ratio_is_marked_where_its_pairs_spread_and_missing_where_they_disagree() -> None:
    spread = Metric(unit="s", samples=[0.4, 0.6] * 10)
    text = table7([make_row(), make_second_row(metrics={"latency": spread})], "rows.jsonl")
    assert "] ~ |" in text and "~ marks a ratio" in text
    moved = Metric(unit="s", samples=[0.4] * 10 + [0.6] * 10)
    text = table7([make_row(), make_second_row(metrics={"latency": moved})], "rows.jsonl")
    assert "| pairs disagree |" in text and "second half of the pairs is +50.0% off the first" in text
    wrong = Metric(value=0.1)
    text = table7([make_row(), make_second_row(metrics={"logit_difference": wrong})], "rows.jsonl")
    assert "| wrong masks |" in text and "logits differ from PyTorch by 0.1" in text


def test_rows_of_two_runs_are_no_table() -> None:
    elsewhere = RUN.model_copy(update={"others": 0.02})
    with pytest.raises(BenchmarkError, match="not of the run"):
        table7([make_row(), make_second_row(run=elsewhere)], "rows.jsonl")
