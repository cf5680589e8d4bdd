"""The copies that an engine writes for the operator alone, read from real tables of TensorRT for RTX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from avsbg.export.operators import PLUGIN_ATTRIBUTES
from avsbg.native_library import NativeLibraryError, native_library
from tools.operator_copies import build_table, count_copies, write_form

pytestmark = pytest.mark.engine

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install 'avsbg[rtx]'")

FRAMES, CHANNELS, SIDES = 3, 32, (16, 8)
PAIRS_BYTES = 2 * CHANNELS * 2 * sum(side * side for side in SIDES)  # of fp16, of one of the two slices


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages between convolutions, as the exporter writes them, in fp16."""
    try:
        native_library("tensorrt")
    except NativeLibraryError as error:
        pytest.skip(str(error))
    numbers = {"n0": [0], "n1": [1], "nlast": [-1], "nend": [2**63 - 1]}
    nodes, inputs, outputs, weights = [], [], [], []
    for stage, side in enumerate(SIDES):
        numbers |= {f"to_flat{stage}": [-1, CHANNELS, side * side], f"to_pairs{stage}": [-1, side * side, CHANNELS]}
        numbers |= {f"to_clips{stage}": [-1, FRAMES, side * side, CHANNELS]}
        for name in ("before", "after"):
            values = np.random.default_rng(stage).standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float16)
            weights.append(numpy_helper.from_array(values, f"{name}_weight{stage}"))
        for operator, names, output, attributes in (
            ("Conv", ["x", "before_weight"], "map", {"pads": [1, 1, 1, 1]}),
            ("Conv", ["map", "after_weight"], "y", {"pads": [1, 1, 1, 1]}),
            ("Reshape", ["map", "to_flat"], "flat", {"allowzero": 1}),
            ("Transpose", ["flat"], "rows", {"perm": [0, 2, 1]}),
            ("Reshape", ["rows", "to_clips"], "clips", {"allowzero": 1}),
            ("Slice", ["clips", "n0:", "nlast:", "n1:", "n1:"], "cut_a", {}),
            ("Slice", ["clips", "n1:", "nend:", "n1:", "n1:"], "cut_b", {}),
            ("Reshape", ["cut_a", "to_pairs"], "a", {"allowzero": 1}),
            ("Reshape", ["cut_b", "to_pairs"], "b", {"allowzero": 1}),
        ):
            given = [name[:-1] if name.endswith(":") else f"{name}{stage}" for name in names]
            nodes.append(helper.make_node(operator, given, [f"{output}{stage}"], f"{output}{stage}", **attributes))
        means = [f"mean_a{stage}", f"mean_b{stage}"]
        pair = [f"a{stage}", f"b{stage}"]
        attributes = {"domain": "avsbg", **PLUGIN_ATTRIBUTES}
        nodes.append(helper.make_node("MeanCorrelation", pair, means, f"means{stage}", **attributes))
        nodes += [helper.make_node("Neg", [name], [f"negative_{name}"]) for name in means]
        shape = ("maps", CHANNELS, side, side)
        inputs.append(helper.make_tensor_value_info(f"x{stage}", TensorProto.FLOAT16, (FRAMES, *shape[1:])))
        outputs.append(helper.make_tensor_value_info(f"y{stage}", TensorProto.FLOAT16, shape))
        outputs += [helper.make_tensor_value_info(f"negative_{name}", TensorProto.FLOAT, None) for name in means]
    weights += [numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("avsbg", 1)]
    graph = helper.make_graph(nodes, "stages", inputs, outputs, weights)
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    path = tmp_path_factory.mktemp("copies") / "source.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_each_stage_by_itself_has_both_slices_written_for_it(source: Path) -> None:
    target = source.with_name("stages.onnx")
    write_form(source, "stages", target, maps=FRAMES)
    counts = count_copies(build_table(target))
    assert counts["calls"] == len(SIDES)
    assert counts["copies"] >= 2 * len(SIDES) and counts["copied"] >= 2 * PAIRS_BYTES


def test_one_node_reads_the_maps_that_the_convolutions_wrote(source: Path) -> None:
    target = source.with_name("all.onnx")
    write_form(source, "all", target, maps=FRAMES)
    assert count_copies(build_table(target)) == {"calls": 1, "copies": 0, "copied": 0}
