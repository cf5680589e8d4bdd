"""Verdicts on two runs: only where both are results, and only where the interval leaves out 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avsbg.benchmarks.results.compare import Comparison, compare_files
from avsbg.benchmarks.results.rows import Row, write_rows
from fixtures.cli import run_avsbg
from fixtures.rows import make_row


def _judge(first: Row, second: Row) -> Comparison:
    (found,) = compare_files([first], [second])
    return found


def test_what_differs_by_more_than_the_samples_scatter_is_told() -> None:
    faster = _judge(make_row(median=1.0), make_row(median=0.8))
    assert faster.verdict == "faster" and faster.ratio == pytest.approx(0.8) and faster.reason == ""
    assert _judge(make_row(median=1.0), make_row(median=1.2)).verdict == "slower"
    same = _judge(make_row(), make_row(median=1.001))
    assert same.verdict == "cannot tell" and "contains 1" in same.reason


def test_what_is_no_result_or_not_the_same_cannot_be_told() -> None:
    assert "unstable in the second file: busy" in _judge(make_row(), make_row(median=0.5, problems=("busy",))).reason
    elsewhere = make_row().environment.model_copy(update={"processor": "Another"})
    assert "Another" in _judge(make_row(), make_row(median=0.5, environment=elsewhere)).reason
    work = make_row().workload.model_copy(update={"clips": 2})
    assert "do not compute the same" in _judge(make_row(), make_row(workload=work)).reason
    missing = compare_files([make_row("a")], [make_row("b")])
    assert [(c.verdict, c.reason) for c in missing] == [
        ("cannot tell", "only in the first file"),
        ("cannot tell", "only in the second file"),
    ]


def test_the_verb_prints_and_writes(tmp_path: Path) -> None:
    for name, median in (("a", 1.0), ("b", 0.5)):
        write_rows(tmp_path / name / "rows.jsonl", [make_row(median=median)])
    result = run_avsbg("compare", tmp_path / "a", tmp_path / "b", "--json", tmp_path / "out.json")
    assert result.code == 0 and "faster" in result.output
    assert json.loads((tmp_path / "out.json").read_text())[0]["ratio"] == pytest.approx(0.5)
