"""Rows on disk, as a table and as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.directory import results_directory, write_results
from avsbg.benchmarks.report.speed import cost_table, latency_table
from avsbg.benchmarks.report.tables import Table, to_console
from avsbg.benchmarks.results.schema import Metric, check_published, read_rows, write_rows
from fixtures.rows import ENVIRONMENT, make_row, make_second_row

UNSTABLE = make_row(problems=("coefficient of variation 40.0%, above 10.0%",))


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = [make_row(), make_second_row()]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == [row.label for row in rows]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "holds no rows"),
        ("{", "row 1: the row: Invalid JSON"),
        (
            '{"format": 1}',
            r"row 1: its format is 1, which an older version of avsbg wrote; this one reads 2\. Measure again",
        ),
        ('{"format": 3}', r"row 1: its format is 3, which another version of avsbg wrote"),
        (
            '{"format": 2, "kind": "engine", "metrics": {}}',
            "row 1: .* a measurement of the kind engine lacks clips, engine",
        ),
    ],
)
def test_files_that_hold_no_rows(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line)
    with pytest.raises(BenchmarkError, match=message):
        read_rows(tmp_path / "rows.jsonl")


def test_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [make_row()])
    with pytest.raises(BenchmarkError, match="row 1: a row of the kind latency, not profile"):
        read_rows(tmp_path / "rows.jsonl", "profile")


def test_numbers_keep_their_type_and_defaults_are_not_written(tmp_path: Path) -> None:
    row = make_row(metrics={"ratio": Metric(value=2), "latency": Metric(unit="s", samples=(1, 2.5))})
    write_rows(tmp_path / "rows.jsonl", [row])
    metrics = json.loads((tmp_path / "rows.jsonl").read_text())["metrics"]
    assert metrics["ratio"] == {"value": 2} and metrics["latency"] == {"unit": "s", "samples": [1, 2.5]}
    assert isinstance(metrics["ratio"]["value"], int)


def test_rows_of_uncommitted_code_are_not_published() -> None:
    check_published([make_row()])
    changed = ENVIRONMENT.model_copy(update={"commit": "0" * 40 + "-dirty"})
    with pytest.raises(BenchmarkError, match="measured with uncommitted changes"):
        check_published([make_row(environment=changed)])


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"cannot be read.*avsbg bench"):
        read_rows(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("change", [{"extra": 1}, {"kind": "other"}, {"case": {}}, {"run": {"others": -1}}])
def test_rows_that_are_not_valid(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make_row(**change)


def _print(*tables: Table) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(*map(to_console, tables))
    return capture.get()


def test_the_tables_show_measured_and_published_figures() -> None:
    text = _print(latency_table([make_row(), make_second_row()]), cost_table([make_row(), make_second_row()]))
    assert "avs-bg:torch:published *" in text and "1000.00" in text and "500.00" in text
    assert "85.50" in text and "188.6" in text and "1586" in text and "85.50 / 27.48" in text
    assert "unstable" not in text


def test_an_unstable_row_is_marked_in_table_and_picture(tmp_path: Path) -> None:
    assert "unstable: coefficient of variation 40.0%" in _print(latency_table([UNSTABLE]))
    write_results(tmp_path / "out", [UNSTABLE, make_second_row()])
    assert (tmp_path / "out" / "latency.png").read_bytes().startswith(b"\x89PNG")
    drawing = (tmp_path / "out" / "latency.svg").read_text()
    assert drawing.count("unstable") == 1 and UNSTABLE.label in drawing
    assert read_rows(tmp_path / "out" / "rows.jsonl")[0] == UNSTABLE


def test_results_are_replaced_only_when_asked_and_only_by_results(tmp_path: Path) -> None:
    assert results_directory(None).parent == Path("out")
    assert results_directory(tmp_path / "new") == tmp_path / "new"
    with pytest.raises(BenchmarkError, match=r"exists already.*--overwrite"):
        results_directory(tmp_path)
    with pytest.raises(BenchmarkError, match="holds no results"):
        results_directory(tmp_path, force=True)
    write_results(tmp_path / "out", [make_row()])
    write_results(results_directory(tmp_path / "out", force=True), [make_second_row()], replace=True)
    assert read_rows(tmp_path / "out" / "rows.jsonl") == [make_second_row()]
