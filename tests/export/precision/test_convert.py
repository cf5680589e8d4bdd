"""The float16 and bfloat16 graphs: what the table of rules keeps, what the converter writes, what it costs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from avsbg.export.editor import PrecisionError
from avsbg.export.precision.convert import convert
from avsbg.export.precision.rules import RULES, find_rule

FLOAT, HALF, BF16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16
RNG = np.random.default_rng(0)


def _model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: tuple[int, ...] = (2, 8)) -> ir.Model:
    """A model from `x` to `y` whose other tensors' types are inferred."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def _run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def _input_types(model: ir.Model) -> dict[str, ir.DataType | None]:
    return {node.op_type: node.inputs[0].dtype for node in model.graph if node.op_type != "Cast"}


def _weight(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_products_are_low_and_softmax_is_not() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"], "scores"),
        helper.make_node("Softmax", ["scores"], ["weights"], "softmax"),
        helper.make_node("MatMul", ["weights", "v"], ["y"], "mix"),
    ]
    model = _model(nodes, {"w": _weight(8, 4), "v": _weight(4, 3)})
    reference = _run(model, x := _weight(2, 8))
    assert convert(model, "fp16") == {"product": 2, "softmax": 1}
    assert _input_types(model) == {"MatMul": HALF, "Softmax": FLOAT}
    assert {name: value.dtype for name, value in model.graph.initializers.items()} == {"w": HALF, "v": HALF}
    result = _run(model, x)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, reference, atol=5e-3)


def test_a_norm_survives_values_whose_squares_leave_float16() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
        helper.make_node("Mul", ["a", "a"], ["square"], "square"),
        helper.make_node("ReduceSum", ["square", "axes"], ["sum"], "sum"),
        helper.make_node("Sqrt", ["sum"], ["length"], "length"),
        helper.make_node("Div", ["a", "length"], ["y"], "y"),
    ]
    model = _model(nodes, {"w": _weight(8, 8) * 300, "axes": np.array([1])})
    reference = _run(model, x := _weight(2, 8))
    decided = convert(model, "fp16")
    assert decided == {"product": 1, "square": 1, "sum": 1, "logarithm, power": 1, "follows its inputs": 1}
    np.testing.assert_allclose(_run(model, x), reference, atol=2e-3)


def test_a_mean_taken_after_the_product_does_not_overflow() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["total"], "total"),
        helper.make_node("Div", ["total", "count"], ["mean"], "mean"),
        helper.make_node("MatMul", ["mean", "v"], ["y"], "y"),
    ]
    model = _model(
        nodes, {"w": np.full((4096, 8), 30, np.float32), "count": np.float32(4096), "v": _weight(8, 2)}, (2, 4096)
    )
    x = np.full((2, 4096), 30, np.float32)
    reference = _run(model, x)
    decided = convert(model, "fp16")
    assert decided["late mean"] == 1 and decided["product"] == 1
    np.testing.assert_allclose(_run(model, x), reference, rtol=2e-3)


def test_a_batch_norm_is_folded_into_its_convolution_in_float32() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "c.weight"], ["c"], "c/Conv"),
        helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["y"], "norm"),
    ]
    # The variance is a subnormal number in float16.
    weights = {
        "c.weight": _weight(4, 3, 1, 1) * 1e-3,
        "scale": _weight(4),
        "bias": _weight(4),
        "mean": _weight(4) * 1e-3,
    }
    model = _model(nodes, {**weights, "var": np.full(4, 1e-7, np.float32)}, (1, 3, 5, 5))
    reference = _run(model, x := _weight(1, 3, 5, 5))
    convert(model, "fp16")
    assert [node.name for node in model.graph if node.op_type == "Conv"] == ["c/Conv"]
    assert not any(node.op_type == "BatchNormalization" for node in model.graph)
    np.testing.assert_allclose(_run(model, x), reference, rtol=5e-3, atol=5e-3)


def test_a_weight_beyond_float16_is_an_error_that_names_it_and_fits_bfloat16() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    with pytest.raises(PrecisionError, match=r"the weight w reaches 1e\+05.*bf16"):
        convert(_model(nodes, {"w": np.full((8, 2), 1e5, np.float32)}), "fp16")
    model = _model(nodes, {"w": np.full((8, 2), 1e5, np.float32)})
    convert(model, "bf16")
    assert _input_types(model) == {"MatMul": BF16}


def test_resizing_keeps_its_scales_in_float32() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Resize", ["c", "", "scales"], ["y"], "resize", mode="nearest"),
    ]
    model = _model(nodes, {"w": _weight(2, 3, 1, 1), "scales": np.array([1, 1, 2, 2], np.float32)}, (1, 3, 4, 4))
    convert(model, "fp16")
    resize = next(node for node in model.graph if node.op_type == "Resize")
    assert [value and value.dtype for value in resize.inputs] == [HALF, None, FLOAT]
    assert _run(model, _weight(1, 3, 4, 4)).shape == (1, 2, 8, 8)


def test_every_rule_says_why_and_has_its_own_name() -> None:
    assert all(rule.reason for rule in RULES)
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_the_operator_takes_the_low_type_and_returns_float32() -> None:
    node = ir.node("MeanCorrelation", [], domain="avsbg")
    rule = find_rule(node)
    assert rule is not None and rule.name == "correlation" and rule.choice.value == "low"
