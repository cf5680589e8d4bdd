"""The operators' bodies and schemas: the definition's numbers in ONNX Runtime for every shape, and clear refusals."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from avsbg.export import operators as onnx_operators

OPSET = 20


def one_node_model(op_type: str, function: onnx.FunctionProto, shapes, dtype=TensorProto.FLOAT, **attributes):
    outputs = {"MeanCorrelation": ["mean_a", "mean_b"], "CorrelationVolume": ["volume"]}[op_type]
    node = helper.make_node(
        op_type, ["a", "b"], outputs, domain="avsbg", **onnx_operators.PLUGIN_ATTRIBUTES, **attributes
    )
    inputs = [helper.make_tensor_value_info(name, dtype, shape) for name, shape in zip("ab", shapes, strict=True)]
    unknown = [None] * (4 - len(outputs))
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, unknown) for name in outputs]
    graph = helper.make_graph([node], "one", inputs, results)
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("avsbg", 1)]
    return helper.make_model(graph, functions=[function], opset_imports=imports, ir_version=10)


def descriptors(pairs, p, q, channels=8):
    rng = np.random.default_rng(pairs * 1000 + p * 10 + q)
    return (rng.standard_normal((pairs, n, channels)).astype(np.float32) for n in (p, q))


@pytest.mark.parametrize("blocks", [1, 3, 7])
@pytest.mark.parametrize(("pairs", "p", "q"), [(1, 1, 1), (2, 4, 9), (2, 5, 3), (1, 50, 49), (3, 64, 64)])
def test_mean_correlation_for_any_number_of_positions(blocks, pairs, p, q):
    a, b = descriptors(pairs, p, q)
    body = onnx_operators.mean_correlation_body(OPSET, blocks)
    model = one_node_model("MeanCorrelation", body, (["N", p, 8], ["N", q, 8]))
    mean_a, mean_b = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"a": a, "b": b})
    volume = np.maximum(a.astype(np.float64) @ b.astype(np.float64).transpose(0, 2, 1), 0)
    np.testing.assert_allclose(mean_a, volume.mean(2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean_b, volume.mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("relu", [None, 0, 1])
def test_correlation_volume(relu):
    a, b = descriptors(2, 5, 7)
    attributes = {} if relu is None else {"relu": relu}
    model = one_node_model(
        "CorrelationVolume",
        onnx_operators.correlation_volume_body(OPSET),
        (["N", 5, 8], ["N", 7, 8]),
        **attributes,
    )
    (volume,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"a": a, "b": b})
    expected = a.astype(np.float64) @ b.astype(np.float64).transpose(0, 2, 1)
    np.testing.assert_allclose(volume, np.maximum(expected, 0) if relu else expected, rtol=1e-5, atol=1e-6)


def test_half_precision_descriptors_are_summed_in_single_precision():
    """Sums beyond 65504 overflow fp16, and a mean of many products loses its digits there."""
    a, b = (50 * array.astype(np.float16) for array in descriptors(1, 40, 30, 64))
    body = onnx_operators.mean_correlation_body(OPSET, 2)
    model = one_node_model("MeanCorrelation", body, (["N", 40, 64], ["N", 30, 64]), TensorProto.FLOAT16)
    mean_a, mean_b = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"a": a, "b": b})
    volume = np.maximum(a.astype(np.float64) @ b.astype(np.float64).transpose(0, 2, 1), 0)
    assert mean_a.dtype == mean_b.dtype == np.float32
    np.testing.assert_allclose(mean_a, volume.mean(2), rtol=1e-5)
    np.testing.assert_allclose(mean_b, volume.mean(1), rtol=1e-5)


@pytest.mark.parametrize("op_type", ["MeanCorrelation", "CorrelationVolume"])
def test_shapes_are_inferred_through_the_node(op_type):
    onnx_operators.register_schemas()
    body = {
        "MeanCorrelation": onnx_operators.mean_correlation_body(OPSET, 2),
        "CorrelationVolume": onnx_operators.correlation_volume_body(OPSET),
    }[op_type]
    model = one_node_model(op_type, body, (["N", 6, 8], ["N", 4, 8]))
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    shapes = [
        [dimension.dim_param or dimension.dim_value for dimension in output.type.tensor_type.shape.dim]
        for output in inferred.graph.output
    ]
    assert shapes == ([["N", 6], ["N", 4]] if op_type == "MeanCorrelation" else [["N", 6, 4]])


def test_a_wrong_rank_is_refused_by_the_schema():
    onnx_operators.register_schemas()
    body = onnx_operators.mean_correlation_body(OPSET, 1)
    model = one_node_model("MeanCorrelation", body, (["N", 6, 8, 1], ["N", 4, 8]))
    with pytest.raises(onnx.shape_inference.InferenceError, match=r"descriptors a must be \[N, positions, C\]"):
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def test_an_integer_type_is_refused_by_the_schema():
    onnx_operators.register_schemas()
    body = onnx_operators.mean_correlation_body(OPSET, 1)
    model = one_node_model("MeanCorrelation", body, (["N", 6, 8], ["N", 4, 8]), TensorProto.INT32)
    with pytest.raises(onnx.shape_inference.InferenceError, match="int32"):
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def test_blocks_grow_with_the_map():
    """At 224 pixels a pair's volume of 39 MB is computed in parts of at most 8 MB, at 64 pixels at once."""
    assert onnx_operators.row_blocks(16 * 16) == 1
    assert onnx_operators.row_blocks(56 * 56) == 5
    assert onnx_operators.row_blocks(10**5) == 32
