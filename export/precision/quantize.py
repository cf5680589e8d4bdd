"""Explicit quantisation: `QuantizeLinear` and `DequantizeLinear` before each product that is to be int8 or fp8.

ONNX Runtime's quantiser loses model-local functions on the way and ModelOpt needs an old onnx, so the pairs are
inserted here, beside the conversion to float16, by the same table of rules. Nodes and their attributes, the operator's
function body and the names stay as they are. Weights are symmetric per output channel and stored quantised,
activations symmetric per tensor; biases are not quantised, since TensorRT adds them in the type between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from avsbg.export.precision.rules import is_product, why_not_quantised
from avsbg.runtime.bundle.precision import PRECISIONS, quantization_of

_ZERO = "quantise.zero"


def quantisable_products(graph: ir.Graph, precision: str) -> dict[str, ir.Node]:
    """The products of a float32 graph that may be int8 or fp8, by name, in the graph's order."""
    return {str(node.name): node for node in graph if is_product(node) and why_not_quantised(node, precision) is None}


def unquantised_products(graph: ir.Graph, precision: str, ranges: Collection[str]) -> dict[str, str]:
    """The products of a float32 graph that no range was recorded for, with the reason."""
    return {
        str(node.name): why_not_quantised(node, precision) or "the graph clip, which is calibrated, has no such product"
        for node in graph
        if is_product(node) and node.name not in ranges
    }


def quantise(model: ir.Model, precision: str, ranges: Mapping[str, float], products: Collection[str]) -> int:
    """Quantise products of a model in place.

    Args:
        model: with its weights loaded; float32 or float16 outside of the products that are to be quantised.
        precision: `int8` or `fp8`.
        ranges: product -> the largest magnitude of its input that is told apart.
        products: those to quantise; names that the model does not have are passed over.

    Returns:
        How many products were quantised.
    """
    inserter = _Inserter(model.graph, precision)
    nodes = [node for name, node in quantisable_products(model.graph, precision).items() if name in products]
    for node in nodes:
        activation, weight = node.inputs[0], node.inputs[1]
        assert activation is not None and weight is not None
        node.replace_input_with(0, inserter.activation(node, activation, ranges[str(node.name)]))
        node.replace_input_with(1, inserter.weight(node, weight))
    inserter.drop_unused_weights()
    return len(nodes)


class _Inserter:
    def __init__(self, graph: ir.Graph, precision: str) -> None:
        self._graph = graph
        self._type = ir.DataType[PRECISIONS[precision].onnx_type]
        self._largest = quantization_of(precision).max_level
        self._activations: dict[tuple[ir.Value, float], ir.Value] = {}
        self._weights: dict[tuple[ir.Value, int], ir.Value] = {}
        zero = np.zeros((), self._type.numpy())
        self._zero = self._initializer(_ZERO, zero, self._type)

    def activation(self, node: ir.Node, value: ir.Value, amax: float) -> ir.Value:
        """`value` after quantising and back; one pair serves all products that read the same value."""
        key = (value, amax)
        if key not in self._activations:
            kind = value.dtype or ir.DataType.FLOAT
            scale = self._initializer(f"{node.name}.input_scale", np.asarray(amax / self._largest, kind.numpy()), kind)
            stem = f"{node.name}/input"
            quantised = self._insert(node, "QuantizeLinear", [value, scale, self._zero], f"{stem}.quantised")
            quantised.type, quantised.shape = ir.TensorType(self._type), value.shape
            result = self._insert(node, "DequantizeLinear", [quantised, scale, self._zero], f"{stem}.dequantised")
            result.type, result.shape = ir.TensorType(kind), value.shape
            self._activations[key] = result
        return self._activations[key]

    def weight(self, node: ir.Node, value: ir.Value) -> ir.Value:
        """The dequantised form of a weight, which is stored quantised."""
        axis = output_axis(node)
        key = (value, axis)
        if key not in self._weights:
            assert value.const_value is not None
            kind = value.dtype or ir.DataType.FLOAT
            array = value.const_value.numpy().astype(np.float32)
            scale = weight_scale(array, axis, self._largest).astype(kind.numpy())
            stored = to_type(array / _along(scale.astype(np.float32), axis, array.ndim), self._type, self._largest)
            name = str(value.name)
            weight = self._initializer(f"{name}.quantised", stored, self._type)
            scales = self._initializer(f"{name}.scale", scale, kind)
            result = self._insert(node, "DequantizeLinear", [weight, scales], f"{name}.dequantised", axis=axis)
            result.type, result.shape = ir.TensorType(kind), value.shape
            self._weights[key] = result
        return self._weights[key]

    def drop_unused_weights(self) -> None:
        """Remove the weights whose quantised form took their place."""
        for value, _ in self._weights:
            if not value.uses() and value.name in self._graph.initializers:
                del self._graph.initializers[str(value.name)]

    def _insert(self, before: ir.Node, operator: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
        node = ir.node(operator, inputs, attributes=attributes, name=name)
        node.outputs[0].name = name
        self._graph.insert_before(before, node)
        return node.outputs[0]

    def _initializer(self, name: str, array: NDArray[Any], kind: ir.DataType) -> ir.Value:
        tensor = ir.tensor(array, dtype=kind, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(kind), const_value=tensor)
        self._graph.register_initializer(value)
        return value


def output_axis(node: ir.Node) -> int:
    """The axis of a product's weight that counts its output channels."""
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return len(weight.shape) - 1


def weight_scale(weight: NDArray[np.float32], axis: int, largest: float) -> NDArray[np.float32]:
    """The step of each output channel; 1 for a channel of zeros."""
    others = tuple(index for index in range(weight.ndim) if index != axis)
    amax = np.abs(weight).max(axis=others)
    return np.where(amax > 0, amax / largest, 1.0).astype(np.float32)


def to_type(array: NDArray[np.float32], kind: ir.DataType, largest: float) -> NDArray[Any]:
    """Round to a quantised type, saturating."""
    clipped = np.clip(array, -largest, largest)
    rounded = np.rint(clipped) if kind is ir.DataType.INT8 else clipped
    return rounded.astype(kind.numpy())


def _along(scale: NDArray[np.float32], axis: int, dimensions: int) -> NDArray[np.float32]:
    return scale.reshape([-1 if index == axis else 1 for index in range(dimensions)])
