"""A profile is folded into the stages of the network, whatever an engine makes of the names."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbg.benchmarks.measure.cases import BenchmarkCase
from avsbg.benchmarks.measure.profile import assign_parts, find_part, in_order, profile, read_trace
from avsbg.benchmarks.results.schema import read_rows, write_rows
from avsbg.runtime.bundle import Bundle
from tools.speed_tables import kind_table


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("network.decoder.3.refine.first.conv/Conv", "decoder"),
        ("fused network.head.0/Conv", "head"),
        ("network.tpavi.0/MatMul", "fusion"),
        ("network.correlation.0/MeanCorrelation", "correlation"),
        ("log_mel/Unsqueeze", "front end"),
        ("vggish.embeddings.0/Gemm", "front end"),
        ("network/Reshape_2", None),
        ("ReorderOutput_token_2146", None),
        ("headless/Add", None),
    ],
)
def test_a_name_tells_its_module(name: str, stage: str | None) -> None:
    assert find_part(name) == stage


def test_layers_that_the_engine_added_belong_to_their_neighbours() -> None:
    names = [
        "Cast",
        "network/Mul",
        "network.encoder.0/Conv",
        "ReorderOutput",
        "ReorderInput_token_1",
        "network.neck.0/Conv",
    ]
    assert assign_parts(names) == ["front end", "front end", "encoder", "encoder", "neck", "neck"]
    assert list(in_order({"head": 1.0, "other": 2.0, "encoder": 3.0, "neck": 0.0})) == ["encoder", "head", "other"]


def test_a_trace_is_cut_into_runs_and_blocked_convolutions_get_their_names_back() -> None:
    def kernel(name: str, at: int) -> dict[str, object]:
        return {"name": f"{name}_kernel_time", "cat": "Node", "ts": at, "dur": 5, "args": {"op_name": "Conv"}}

    runs = [{"name": "model_run", "cat": "Session", "ts": at, "dur": 50} for at in (100, 200)]
    events = [*runs, kernel("conv2d_3_nchwc", 210), kernel("fused network.head.0/Conv", 110), kernel("late", 300)]
    first, second = read_trace(events, {"conv2d_3": "network.neck.0/Conv"})
    assert [layer.name for layer in first] == ["network.head.0/Conv"]
    assert [(layer.name, layer.kind, layer.seconds) for layer in second] == [("network.neck.0/Conv", "Conv", 5e-6)]


def test_onnxruntime_is_profiled_and_what_has_no_profiler_is_left_out(
    embedding: Bundle, tmp_path: Path, scheduled: object
) -> None:
    row = profile(BenchmarkCase("tiny", embedding, "onnxruntime", {"threads": 1}), 2)
    assert row is not None and row.case["clips"] == 2 and row["time"].number > 0
    assert sum(row["time"].parts.values()) == pytest.approx(row["time"].number)
    assert row["kinds"].parts.keys() & {"MatMul", "FusedMatMul", "Pad", "Sigmoid"}
    assert sum(row["kinds"].parts.values()) == pytest.approx(row["time"].number)
    counted = profile(BenchmarkCase("tiny", embedding, "openvino", {"threads": 1}), 2)
    assert counted is not None and counted["kinds"].parts.keys() & {"MatMul", "FullyConnected"}
    assert profile(BenchmarkCase("tiny", embedding, "scheduled", {}), 1) is None
    assert ", others " in kind_table([row, counted])
    write_rows(tmp_path / "profile.jsonl", [row])
    assert read_rows(tmp_path / "profile.jsonl", "profile") == [row]
