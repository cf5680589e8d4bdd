"""The guard of counts: what is counted is what is committed, a change is red and says by how much, a gap is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.static import counts as smoke
from avsbg.benchmarks.static import instructions
from avsbg.benchmarks.static.kernels import RESULTS

COMMITTED = smoke.read_counts(smoke.COUNTS)
KERNELS = next(section for section in COMMITTED if section.startswith("kernels"))
OPERATOR = next(section for section in COMMITTED if section.startswith("operator"))


def test_kernels_hold_the_committed_counts() -> None:
    assert smoke.differences(COMMITTED[KERNELS], smoke.count_kernels()) == []


def test_the_operator_holds_the_committed_counts() -> None:
    if missing := instructions.missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)} (make bench-smoke needs them)")
    section = f"operator, {instructions.compiler()}"
    if section != OPERATOR:
        pytest.skip(f"the committed counts are of {OPERATOR}, this is {section}")
    found = instructions.count_instructions()
    assert smoke.differences(COMMITTED[OPERATOR], found, tolerance=smoke.TOLERANCE) == []
    name = next(iter(found))
    more = found | {name: round(found[name] * 1.01)}  # a hundredth more work is beyond the tolerance
    assert len(smoke.differences(COMMITTED[OPERATOR], more, tolerance=smoke.TOLERANCE)) == 1


def test_every_network_and_graph_has_counts() -> None:
    assert {name.partition(",")[0] for name in COMMITTED["networks"]} == set(smoke.NETWORKS)
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
    monkeypatch.setattr(smoke, "count", lambda **_: found)
    file = tmp_path / "counts.json"
    file.write_text(
        json.dumps({"networks": {"avs-bg, efficient, operations": 1000, "here before": 2}, "operator, g++ 8": {"a": 4}})
    )
    with pytest.raises(BenchmarkError) as error:
        smoke.main(counts=file)
    assert "avs-bg, efficient, operations: 1000 committed, 1010 counted, +10 (+1.00%)" in str(error.value)
    assert "here before: gone, was 2" in str(error.value) and "gone before: new, 3" in str(error.value)
    assert "--update" in str(error.value)
    assert "the committed counts are of operator, g++ 8; here it is operator, g++ 9" in capsys.readouterr().err

    smoke.main(update=True, counts=file)
    smoke.main(counts=file)
    assert smoke.compare(smoke.read_counts(file), found) == ([], [])


def test_what_was_not_counted_is_said_and_what_is_not_committed_is_red() -> None:
    changed, left_out = smoke.compare({"operator, g++ 8": {"a": 1}}, {"graphs": {"b": 2}})
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
        smoke.main(update=True, callgrind=False)


def test_a_table_of_other_kernels_is_refused(tmp_path: Path) -> None:
    table = json.loads(RESULTS.read_text())
    table["kernels"][1]["loop"]["instructions"] += 1
    more = tmp_path / "kernels.json"
    more.write_text(json.dumps(table))
    assert len(smoke.differences(COMMITTED[KERNELS], smoke.count_kernels(more))) == 1
    more.write_text(json.dumps(table | {"sources_sha256": "0"}))
    with pytest.raises(BenchmarkError, match="other CUDA sources"):
        smoke.count_kernels(more)


def test_a_count_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="--update"):
        smoke.read_counts(tmp_path / "none.json")
