"""Layers of a graph that a Jetson's deep learning accelerator (DLA) can run, and why the others cannot.

The rules are those of TensorRT's documentation, "DLA Supported Layers and Restrictions"
(docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-layer-restrictions.html). They are necessary, not
sufficient: the compiler of the DLA may still decline a layer. TensorRT 10.7 was the last version for it on Jetson
(".../11.3.0/inference-library/work-with-dla.html"), so that JetPack 6 has it and JetPack 7 has not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from avsbg.export.operators import register_schemas

# "Only 16 DLA loadables can be loaded concurrently per core."
MAX_LOADABLES = 16
_MAX_SIZE, _MAX_BATCH = 8192, 4096
_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)  # float32 stands for float16
_Shape = tuple[int, ...] | None


@dataclass(frozen=True)
class DlaLayer:
    """A node of a graph as one layer, and why it cannot run on a DLA; None where the rules allow it."""

    name: str
    operator: str
    why_not: str | None


@dataclass(frozen=True)
class DlaReport:
    """The layers of a graph in their order."""

    layers: tuple[DlaLayer, ...]

    @property
    def possible(self) -> int:
        """The number of layers that could run on a DLA."""
        return sum(layer.why_not is None for layer in self.layers)

    @property
    def loadables(self) -> int:
        """Runs of neighbouring layers that could: each would be a program of the DLA's of its own."""
        allowed = [layer.why_not is None for layer in self.layers]
        return sum(here and not before for before, here in zip([False, *allowed], allowed, strict=False))

    @property
    def obstacles(self) -> dict[tuple[str, str], int]:
        """The number of layers that cannot, by operator and reason, the most frequent first."""
        counts: dict[tuple[str, str], int] = {}
        for layer in self.layers:
            if layer.why_not is not None:
                key = layer.operator, layer.why_not
                counts[key] = counts.get(key, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


class _Graph:
    """Shapes and constants of a graph for a batch of one."""

    def __init__(self, model: onnx.ModelProto) -> None:
        register_schemas()  # by which the shapes behind our operators are known
        inferred = onnx.shape_inference.infer_shapes(_with_batch(model, 1), data_prop=True)
        graph = inferred.graph
        values = (*graph.input, *graph.output, *graph.value_info)
        self.nodes = list(graph.node)
        self.shapes: dict[str, _Shape] = {value.name: _shape(value) for value in values}
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.constants: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        for tensor in graph.initializer:
            self.shapes[tensor.name], self.types[tensor.name] = tuple(tensor.dims), tensor.data_type
        self.computed = {value.name for value in graph.input}  # what depends on an input's content
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
            elif node.op_type not in ("Shape", "Size") and any(name in self.computed for name in node.input):
                self.computed.update(node.output)

    def is_layer(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes on the inputs' content; the rest is known while the engine is built."""
        return any(name in self.computed for name in node.output)

    def integers(self, name: str) -> list[float] | None:
        """The values of a constant; None if it is none, or lies in another file."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return [float(value) for value in onnx.numpy_helper.to_array(tensor).reshape(-1)]


def examine(path: Path) -> DlaReport:
    """Hold each layer of an ONNX graph against the rules of the DLA, for a batch of one; weights are not read."""
    return examine_model(onnx.load(path, load_external_data=False))


def examine_model(model: onnx.ModelProto) -> DlaReport:
    """As `examine`, of a model in memory."""
    graph = _Graph(model)
    layers = [DlaLayer(node.name, node.op_type, _why_not(node, graph)) for node in graph.nodes if graph.is_layer(node)]
    return DlaReport(tuple(layers))


def _why_not(node: onnx.NodeProto, graph: _Graph) -> str | None:
    if node.domain not in ("", "ai.onnx"):
        return "a plugin runs on the GPU"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return "the DLA takes no explicit quantisation"
    rule = _RULES.get(node.op_type)
    if rule is None:
        return "the DLA has no such layer"
    return _wrong_tensor(node, graph) or rule(node, graph)


def _wrong_tensor(node: onnx.NodeProto, graph: _Graph) -> str | None:
    """The first tensor of a layer that no layer of the DLA takes or gives."""
    for name in (name for name in (*node.input, *node.output) if name in graph.computed):
        kind, shape = graph.types.get(name), graph.shapes.get(name)
        if kind is not None and kind not in _TYPES:
            return f"{onnx.TensorProto.DataType.Name(kind).lower()} is no type of the DLA's"
        if shape is None:
            return "its shape is known only while it runs"
        if len(shape) != 4:
            return f"it has {len(shape)} dimensions, and the DLA takes 4"
        if 0 in shape:
            return "it is empty"
        if shape[0] > _MAX_BATCH or max(shape[1:]) > _MAX_SIZE:
            return f"a dimension exceeds {_MAX_BATCH} for the batch or {_MAX_SIZE}"
    return None


def _anything(_: onnx.NodeProto, __: _Graph) -> str | None:
    return None


def _convolution(node: onnx.NodeProto, graph: _Graph) -> str | None:
    kernel = _attribute(node, "kernel_shape") or list((graph.shapes.get(node.input[1]) or ())[2:])
    limits = {"kernel": (kernel, 1, 32), "strides": (_attribute(node, "strides"), 1, 8)}
    limits["pads"] = (_attribute(node, "pads"), 0, 31)
    limits["dilations"] = (_attribute(node, "dilations"), 1, 32)
    return _outside(limits)


def _deconvolution(node: onnx.NodeProto, graph: _Graph) -> str | None:
    ones = {"group": [_attribute(node, "group") or 1], "dilations": _attribute(node, "dilations") or [1]}
    if any(value != 1 for values in ones.values() for value in values):
        return "deconvolutions of the DLA have no groups and no dilation"
    if any(_attribute(node, "pads") or ()):
        return "deconvolutions of the DLA have no padding"
    return _convolution(node, graph)


def _pooling(node: onnx.NodeProto, _: _Graph) -> str | None:
    limits = {"window": (_attribute(node, "kernel_shape"), 1, 8), "strides": (_attribute(node, "strides"), 1, 16)}
    limits["pads"] = (_attribute(node, "pads"), 0, 7)
    return _outside(limits)


def _concatenation(node: onnx.NodeProto, _: _Graph) -> str | None:
    return None if _attribute(node, "axis") in (1, -3) else "the DLA concatenates channels only"


def _maximum(node: onnx.NodeProto, graph: _Graph) -> str | None:
    axes = _attribute(node, "axes") or (graph.integers(node.input[1]) if len(node.input) > 1 else None)
    if not axes or any(axis % 4 == 0 for axis in axes):
        return "the DLA reduces channels, rows and columns only"
    return None


def _resize(node: onnx.NodeProto, graph: _Graph) -> str | None:
    before, after = graph.shapes[node.input[0]], graph.shapes[node.output[0]]
    assert before is not None and after is not None
    mode = _attribute(node, "mode") or "nearest"
    largest = {"nearest": 32, "linear": 4}.get(str(mode))
    if largest is None:
        return f"the DLA does not resize in mode {mode}"
    scales = [new / old for old, new in zip(before, after, strict=True)]
    if scales[:2] != [1.0, 1.0] or any(scale != int(scale) or not 1 <= scale <= largest for scale in scales[2:]):
        return f"in mode {mode} the DLA enlarges rows and columns by whole numbers up to {largest}"
    if mode == "linear" and _attribute(node, "coordinate_transformation_mode") not in (None, "half_pixel"):
        return "the DLA resizes linearly between the centres of pixels only"
    return None


def _transposition(node: onnx.NodeProto, _: _Graph) -> str | None:
    return None if (_attribute(node, "perm") or [3])[0] == 0 else "the DLA does not move the batch"


def _reshaping(node: onnx.NodeProto, graph: _Graph) -> str | None:
    before, after = graph.shapes[node.input[0]], graph.shapes[node.output[0]]
    return None if before and after and before[0] == after[0] else "the DLA does not change the batch"


def _slope(node: onnx.NodeProto, graph: _Graph) -> str | None:
    return "its slope is computed" if node.input[1] in graph.computed else None


_Rule = Callable[[onnx.NodeProto, _Graph], str | None]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "Clip", "LeakyRelu", "Abs", "Sin", "Cos", "Atan"), _anything),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"), _anything),
    **dict.fromkeys(("BatchNormalization", "LRN", "Slice", "Softmax"), _anything),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pooling),
    "Conv": _convolution,
    "ConvTranspose": _deconvolution,
    "Concat": _concatenation,
    "ReduceMax": _maximum,
    "Resize": _resize,
    "Transpose": _transposition,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshaping),
    "PRelu": _slope,
}


def _outside(limits: dict[str, tuple[Any, int, int]]) -> str | None:
    for name, (values, low, high) in limits.items():
        if any(not low <= value <= high for value in values or ()):
            return f"its {name} {list(values)} must lie between {low} and {high}"
    return None


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    found = next((one for one in node.attribute if one.name == name), None)
    if found is None:
        return None
    value = onnx.helper.get_attribute_value(found)
    return value.decode() if isinstance(value, bytes) else value


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model with this number in the place of each symbol: the DLA has no dynamic dimensions."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.functions[:]  # the operator is one layer, a plugin
    for value in (*fixed.graph.input, *fixed.graph.output, *fixed.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_value = batch
    return fixed


def _shape(value: onnx.ValueInfoProto) -> _Shape:
    if not value.type.tensor_type.HasField("shape"):
        return None
    dimensions = value.type.tensor_type.shape.dim
    known = all(dimension.HasField("dim_value") for dimension in dimensions)
    return tuple(dimension.dim_value for dimension in dimensions) if known else None
