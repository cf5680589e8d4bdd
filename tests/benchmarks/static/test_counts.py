"""The guard of counts: what is counted is what is committed, a change is red and says by how much, a gap is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.static import counts, instructions

COMMITTED = counts.read_counts(counts.COUNTS)
KERNELS = next(section for section in COMMITTED if section.startswith("kernels"))
OPERATOR = next(section for section in COMMITTED if section.startswith("operator"))


def test_kernels_hold_the_committed_counts() -> None:
    assert counts.differences(COMMITTED[KERNELS], counts.count_kernels()) == []


@pytest.mark.slow
def test_the_operator_holds_the_committed_counts() -> None:
    if missing := instructions.missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)} (make bench-smoke needs them)")
    section = f"operator, {instructions.compiler()}"
    if section != OPERATOR:
        pytest.skip(f"the committed counts are of {OPERATOR}, this is {section}")
    found = instructions.count_instructions()
    assert counts.differences(COMMITTED[OPERATOR], found, tolerance=counts.TOLERANCE) == []
    name = next(iter(found))
    more = found | {name: round(found[name] * 1.01)}  # a hundredth more work is beyond the tolerance
    assert len(counts.differences(COMMITTED[OPERATOR], more, tolerance=counts.TOLERANCE)) == 1


def test_every_network_and_graph_has_counts() -> None:
    assert {name.partition(",")[0] for name in COMMITTED["networks"]} == set(counts.COUNTED)
    named = [name.split(", ")[1] for name in COMMITTED["graphs"] if name.startswith("avs-bg-b0")]
    graphs = {name for name in named if name.endswith(".onnx")}
    assert graphs == {f"{graph}.onnx" for graph in ("clip", "clip.plain", "encode", "decode", "decode.plain")}
    assert all(count > 0 for name, count in COMMITTED["networks"].items() if "operations" in name)
    merged = {name for name in named if name.startswith("operations a frame of ")}
    assert len(merged) == COMMITTED["graphs"]["avs-bg-b0, clip.onnx, merges"]


def test_a_changed_count_is_red_and_says_by_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"networks": {"avs-bg, efficient, operations": 1010, "gone before": 3}, "operator, g++ 9": {"a": 5}}
    monkeypatch.setattr(counts, "count", lambda **_: found)
    file = tmp_path / "counts.json"
    file.write_text(
        json.dumps({"networks": {"avs-bg, efficient, operations": 1000, "here before": 2}, "operator, g++ 8": {"a": 4}})
    )
    with pytest.raises(BenchmarkError) as error:
        counts.check_counts(file)
    assert "avs-bg, efficient, operations: 1000 committed, 1010 counted, +10 (+1.00%)" in str(error.value)
    assert "here before: gone, was 2" in str(error.value) and "gone before: new, 3" in str(error.value)
    assert "--update" in str(error.value)
    assert "the committed counts are of operator, g++ 8; here it is operator, g++ 9" in capsys.readouterr().err

    counts.check_counts(file, update=True)
    counts.check_counts(file)
    assert counts.compare(counts.read_counts(file), found) == ([], [])


def test_what_was_not_counted_is_said_and_what_is_not_committed_is_red() -> None:
    changed, left_out = counts.compare({"operator, g++ 8": {"a": 1}}, {"graphs": {"b": 2}})
    assert left_out == ["not compared: operator, g++ 8 was not counted"]
    assert changed == ["graphs: no counts are committed"]


def test_a_missing_valgrind_is_an_error_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match="not installed: valgrind, g") as error:
        instructions.count_instructions()
    assert "apt-get install valgrind" in str(error.value)
    with pytest.raises(BenchmarkError, match="would lose"):
        counts.check_counts(update=True, callgrind=False)


def test_a_table_of_other_kernels_is_refused(tmp_path: Path) -> None:
    table = json.loads(counts.KERNELS.read_text())
    table["kernels"][1]["loop"]["instructions"] += 1
    more = tmp_path / "kernels.json"
    more.write_text(json.dumps(table))
    assert len(counts.differences(COMMITTED[KERNELS], counts.count_kernels(more))) == 1
    more.write_text(json.dumps(table | {"sources_sha256": "0"}))
    with pytest.raises(BenchmarkError, match="other CUDA sources"):
        counts.count_kernels(more)


def test_a_count_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="--update"):
        counts.read_counts(tmp_path / "none.json")
