"""Comparisons of two runs: something is told only where both are results, and only where the interval leaves out 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avsbg.benchmarks.results.compare import Comparison, compare_rows
from avsbg.benchmarks.results.schema import Measurement, write_rows
from fixtures.cli import run_avsbg
from fixtures.rows import CASE, ENVIRONMENT, make_row


def _compare(first: Measurement, second: Measurement) -> Comparison:
    (found,) = compare_rows([first], [second])
    return found


def test_what_differs_by_more_than_the_samples_scatter_is_told() -> None:
    faster = _compare(make_row(median=1.0), make_row(median=0.8))
    assert faster.comparison == "faster" and faster.ratio == pytest.approx(0.8) and faster.reason == ""
    assert _compare(make_row(median=1.0), make_row(median=1.2)).comparison == "slower"
    same = _compare(make_row(), make_row(median=1.001))
    assert same.comparison == "cannot tell" and "contains 1" in same.reason


def test_what_is_no_result_or_not_the_same_cannot_be_told() -> None:
    assert "unstable in the second file: busy" in _compare(make_row(), make_row(median=0.5, problems=("busy",))).reason
    elsewhere = ENVIRONMENT.model_copy(update={"processor": "Another"})
    assert "Another" in _compare(make_row(), make_row(median=0.5, environment=elsewhere)).reason
    work = CASE | {"clips": 2}
    assert "do not compute the same" in _compare(make_row(), make_row(case=work)).reason
    missing = compare_rows([make_row("a")], [make_row("b")])
    assert [(c.comparison, c.reason) for c in missing] == [
        ("cannot tell", "only in the first file"),
        ("cannot tell", "only in the second file"),
    ]


def test_the_verb_prints_and_writes(tmp_path: Path) -> None:
    for name, median in (("a", 1.0), ("b", 0.5)):
        write_rows(tmp_path / name / "rows.jsonl", [make_row(median=median)])
    result = run_avsbg("bench", "compare", tmp_path / "a", tmp_path / "b", "--json", tmp_path / "out.json")
    assert result.code == 0 and "faster" in result.output
    assert json.loads((tmp_path / "out.json").read_text())[0]["ratio"] == pytest.approx(0.5)
