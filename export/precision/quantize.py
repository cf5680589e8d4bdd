"""Explicit quantization: `QuantizeLinear` and `DequantizeLinear` before each layer that is to be int8 or fp8.

ONNX Runtime's quantiser loses model-local functions on the way and ModelOpt needs an old onnx, so the pairs are
inserted here, beside the conversion to float16, by the same table of rules. Nodes and their attributes, the operator's
function body and the names stay as they are. Weights are symmetric per output channel and stored quantized,
activations symmetric per tensor; biases are not quantized, since TensorRT adds them in the type between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from avsbg.export.editor import GraphEditor
from avsbg.export.precision.rules import is_compute_layer, quantization_obstacle
from avsbg.runtime.bundle.precision import PRECISIONS, quantization_of

_ZERO = "quantise.zero"


def quantizable_layers(graph: ir.Graph, precision: str) -> dict[str, ir.Node]:
    """The matmul and convolution layers of a float32 graph that may be quantized, by name, in the graph's order."""
    layers = (node for node in graph if is_compute_layer(node))
    return {str(node.name): node for node in layers if quantization_obstacle(node, precision) is None}


def unquantized_layers(graph: ir.Graph, precision: str, ranges: Collection[str]) -> dict[str, str]:
    """The layers of a float32 graph that no range was recorded for, with the reason."""
    unknown = "the graph clip, which is calibrated, has no such product"
    return {
        str(node.name): quantization_obstacle(node, precision) or unknown
        for node in graph
        if is_compute_layer(node) and node.name not in ranges
    }


def quantize(model: ir.Model, precision: str, ranges: Mapping[str, float], layers: Collection[str]) -> int:
    """Quantize layers of a model in place, and return how many; names that the model does not have are passed over.

    The model has its weights loaded and is float32 or float16 outside of these layers. A range is the largest magnitude
    of a layer's input that is told apart.
    """
    quantizer = _Quantizer(model.graph, precision)
    nodes = [node for name, node in quantizable_layers(model.graph, precision).items() if name in layers]
    for node in nodes:
        activation, weight = node.inputs[0], node.inputs[1]
        assert activation is not None and weight is not None
        node.replace_input_with(0, quantizer.activation(node, activation, ranges[str(node.name)]))
        node.replace_input_with(1, quantizer.weight(node, weight))
    quantizer.editor.drop_unused_weights()
    return len(nodes)


class _Quantizer:
    """Puts the pairs of `QuantizeLinear` and `DequantizeLinear` before layers."""

    def __init__(self, graph: ir.Graph, precision: str) -> None:
        self.editor = GraphEditor(graph)
        self._type = ir.DataType[PRECISIONS[precision].onnx_type]
        self._max_level = quantization_of(precision).max_level
        self._activations: dict[tuple[ir.Value, float], ir.Value] = {}
        self._weights: dict[tuple[ir.Value, int], ir.Value] = {}
        self._zero = self.editor.add_weight(_ZERO, np.zeros((), self._type.numpy()), self._type)

    def activation(self, node: ir.Node, value: ir.Value, amax: float) -> ir.Value:
        """`value` after quantizing and back; one pair serves all layers that read the same value."""
        key = (value, amax)
        if key not in self._activations:
            kind = value.dtype or ir.DataType.FLOAT
            level = _representable(np.asarray(amax / self._max_level, np.float32), kind)
            scale = self.editor.add_weight(f"{node.name}.input_scale", level, kind)
            stem = f"{node.name}/input"
            quantized = self.editor.insert(
                "QuantizeLinear", [value, scale, self._zero], f"{stem}.quantised", self._type, before=node
            )
            self._activations[key] = self.editor.insert(
                "DequantizeLinear", [quantized, scale, self._zero], f"{stem}.dequantised", kind, before=node
            )
        return self._activations[key]

    def weight(self, node: ir.Node, value: ir.Value) -> ir.Value:
        """The dequantized form of a weight, which is stored quantized."""
        axis = output_axis(node)
        key = (value, axis)
        if key not in self._weights:
            assert value.const_value is not None
            kind = value.dtype or ir.DataType.FLOAT
            array = value.const_value.numpy().astype(np.float32)
            scale = _representable(weight_scale(array, axis, self._max_level), kind)
            along = [-1 if index == axis else 1 for index in range(array.ndim)]
            stored = to_type(array / scale.astype(np.float32).reshape(along), self._type, self._max_level)
            weight = self.editor.add_weight(f"{value.name}.quantised", stored, self._type)
            scales = self.editor.add_weight(f"{value.name}.scale", scale, kind)
            name, attributes = f"{value.name}.dequantised", {"axis": axis}
            self._weights[key] = self.editor.insert(
                "DequantizeLinear", [weight, scales], name, kind, shape=value.shape, before=node, attributes=attributes
            )
        return self._weights[key]


def _representable(scale: NDArray[np.float32], kind: ir.DataType) -> NDArray[Any]:
    """A step in the type around the quantized values: what would be 0 in float16 is its smallest number."""
    return np.maximum(scale.astype(kind.numpy()), np.finfo(kind.numpy()).smallest_subnormal)


def output_axis(node: ir.Node) -> int:
    """The axis of a layer's weight that counts its output channels."""
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
    """Round to a quantized type, saturating."""
    clipped = np.clip(array, -largest, largest)
    rounded = np.rint(clipped) if kind is ir.DataType.INT8 else clipped
    return rounded.astype(kind.numpy())
