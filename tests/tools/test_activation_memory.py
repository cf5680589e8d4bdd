"""Tensors that live at once: hand-made graphs with known answers, and a network's own."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import typer
from onnx import TensorProto, helper
from typer.testing import CliRunner

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import Measurement, Metric, Ran, read_rows
from avsbg.runtime.bundle import Bundle
from tools import activation_memory
from tools.activation_memory import activation_table, find_peak, part_sizes


def peak(nodes: list[onnx.NodeProto], clips: int = 1) -> tuple[str, dict[str, int]]:
    """The node at the peak and what lives there; every graph takes `x` of `[clips, 10]` floats and returns `y`."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", TensorProto.FLOAT, ["clips", 10])],
        [value("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    inferred = onnx.shape_inference.infer_shapes(model).graph
    index, tensors = find_peak(inferred, clips)
    return inferred.node[index].name, tensors


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"{kind}_{output}", **attributes)


def test_a_tensor_lives_until_it_is_read_last():
    nodes = [
        node("Concat", "x x", "a", axis=1),  # 80 bytes
        node("Concat", "a a", "b", axis=1),  # 160
        node("Concat", "b a", "c", axis=1),  # 240: a, b and c live
        node("Concat", "c x", "y", axis=1),  # the caller's
    ]
    assert peak(nodes) == ("Concat_c", {"c": 240, "b": 160, "a": 80})
    assert peak(nodes, clips=3) == ("Concat_c", {"c": 720, "b": 480, "a": 240})


def test_views_take_no_memory_and_keep_it_alive():
    nodes = [
        node("Concat", "x x", "a", axis=1),
        node("Unsqueeze", "a axes", "view"),
        node("Concat", "x x", "b", axis=1),
        node("Squeeze", "view axes", "again"),
        node("Concat", "again b", "y", axis=1),
    ]
    nodes.insert(
        0, helper.make_node("Constant", [], ["axes"], value=helper.make_tensor("v", TensorProto.INT64, [1], [0]))
    )
    assert peak(nodes) == ("Concat_b", {"a": 80, "b": 80})


def test_an_operand_that_nothing_reads_afterwards_is_written_over():
    chain = [node("Concat", "x x", "a", axis=1), node("Relu", "a", "b"), node("Sigmoid", "b", "c")]
    assert peak([*chain, node("Concat", "c x", "y", axis=1)]) == ("Concat_a", {"a": 80})
    # Read again later, it cannot be.
    assert peak([*chain, node("Concat", "c b", "y", axis=1)]) == ("Sigmoid_c", {"a": 80, "c": 80})


def test_what_has_no_known_shape_is_named():
    graph = helper.make_graph([node("Concat", "x x", "a", axis=1), node("Relu", "a", "y")], "graph", [], [])
    with pytest.raises(BenchmarkError, match="the shape of the tensor a is not known"):
        find_peak(graph, 1)


def test_a_networks_own(tiny: Bundle, tmp_path: Path):
    path = tiny.path
    rows = tmp_path / "rows.jsonl"
    command = [
        str(path),
        "--graph",
        "clip",
        "--graph",
        "clip.plain",
        "--clips",
        "2",
        "-o",
        str(rows),
    ]
    app = typer.Typer()
    app.command()(activation_memory.main)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "2 clips: 0.7 MB live at" in result.output
    read = read_rows(rows, "activation-memory")
    assert [row.case["graph"] for row in read] == ["clip", "clip.plain"]
    for row in read:
        assert row["live"].value == sum(row["live"].parts.values()) == sum(part_sizes(row).values()) > 0


def test_the_builders_number_stands_beside_the_graphs():
    case = {"graph": "clip", "clips": 1, "node": "network.head.0/Conv", "part": "head"}
    live = Metric(unit="B", value=3_000_000, parts={"head/a": 2_000_000, "neck/b": 1_000_000})
    ran = Ran(network="net")
    rows = [
        Measurement(kind="activation-memory", case=case | {"clips": clips}, metrics={"live": live}, ran=ran)
        for clips in (1, 4)
    ]
    engines = [
        Measurement(
            kind="engine",
            case={"engine": "e", "graph": "clip", "clips": 1, "precision": "fp16", "operator": "plain"},
            metrics={
                "engine_bytes": Metric(unit="B", value=1),
                "activation_memory": Metric(unit="B", value=size),
            },
            ran=ran,
        )
        for size in (9_000_000, 7_000_000)
    ]
    lines = activation_table(rows, engines).splitlines()
    assert lines[2] == "| net | `clip` | 1 | 3 | head 2, neck 1 | head, `network.head.0/Conv` | 7 |"
    assert lines[3].endswith("| not built |")
