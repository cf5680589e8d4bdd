"""A float32 graph rewritten so that its products take float16 or bfloat16 inputs, as the table of rules says.

The tools that convert graphs (onnxconverter-common, ONNX Runtime's, ModelOpt's AutoCast) know no bfloat16, lose
model-local functions, or need an onnx of their own, and none takes a table of rules over modules. So this is ours: each
node has one type, and a `Cast` stands where a value changes it. Precision is then a property of the graph, which a
strongly typed engine executes as written.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from avsbg.export.editor import GraphEditor, PrecisionError, fold_batch_norms, infer_types
from avsbg.export.precision.rules import FLOATS, assign, find_rule, output_type, typed_inputs
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.streaming.frame_pair import is_feature


def convert(model: ir.Model, precision: str) -> dict[str, int]:
    """Convert a float32 model in place, and return how many nodes each rule decided on, by its name.

    The names of nodes and weights stay as they are, and so do inputs and outputs. The features that pass between a
    stream's two graphs are an exception in fp16: they take that type, so that they stay on the device as the engines
    compute them. (The contract of a graph has no name for bfloat16.) Nodes without a rule count under `follows its
    inputs`. A PrecisionError says that a weight lies beyond the range of the type.
    """
    spec = PRECISIONS[precision]
    low, features = ir.DataType[spec.onnx_type], ir.DataType[spec.feature_type]
    _raise_opset(model, spec.min_opset or 0)
    fold_batch_norms(model)
    infer_types(model)
    for taken in model.graph.inputs:
        if is_feature(str(taken.name)):
            taken.type = ir.TensorType(features)
    types = assign(model.graph, low)
    decided: Counter[str] = Counter()
    for node in types:
        rule = find_rule(node)
        decided["follows its inputs" if rule is None else rule.name] += 1
    caster = _Caster(model.graph)
    for node in list(model.graph):
        own = types.get(node)
        for index in typed_inputs(node):
            value = node.inputs[index]
            assert value is not None and own is not None
            node.replace_input_with(index, caster.as_type(value, own))
        for value in node.outputs:
            if value.dtype in FLOATS:
                value.type = ir.TensorType(output_type(node, own, value))
    caster.finish_outputs(features)
    caster.drop_unused_weights()
    return dict(decided.most_common())


def _raise_opset(model: ir.Model, opset: int) -> None:
    # Up to opset 22, the operators that we export changed in nothing but types.
    model.opset_imports[""] = max(opset, model.opset_imports[""])
    for function in model.functions.values():
        function.opset_imports[""] = model.opset_imports[""]


class _Caster:
    """Gives values in the type that a node wants, each cast once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._editor = GraphEditor(graph)
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def as_type(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        if value.dtype is wanted:
            return value
        key = (value, wanted)
        if key not in self._made:
            constant = value.is_initializer()
            self._made[key] = self._converted_weight(value, wanted) if constant else self._cast(value, wanted)
        return self._made[key]

    def finish_outputs(self, features: ir.DataType) -> None:
        """Return a stream's features in the type given and every other output in float32, under its name."""
        graph = self._editor.graph
        for index, value in enumerate(list(graph.outputs)):
            wanted = features if is_feature(str(value.name)) else ir.DataType.FLOAT
            if value.dtype in FLOATS and value.dtype is not wanted:
                name, value.name = str(value.name), f"{value.name}.{str(value.dtype.name).lower()}"
                node = ir.node("Cast", [value], attributes={"to": int(wanted)}, name=f"{name}/Cast")
                output = node.outputs[0]
                output.name, output.type, output.shape = name, ir.TensorType(wanted), value.shape
                graph.append(node)
                graph.outputs[index] = output

    def drop_unused_weights(self) -> None:
        """Remove the float32 weights whose converted form took their place, and give it their name."""
        initializers = self._editor.graph.initializers
        for (value, _), converted in self._made.items():
            if value.is_initializer() and not value.uses():
                name = str(value.name)
                del initializers[name], initializers[str(converted.name)]
                converted.name = name
                initializers[name] = converted

    def _converted_weight(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        assert value.const_value is not None
        array = value.const_value.numpy()
        with np.errstate(over="ignore"):
            narrow = array.astype(wanted.numpy())
        if not np.isfinite(narrow.astype(np.float32)).all() and np.isfinite(array).all():
            raise PrecisionError(
                f"the weight {value.name} reaches {np.abs(array).max():.3g}, beyond {wanted.name.lower()}'s range.",
                "Choose --precision bf16, whose range is float32's, or fp32.",
            )
        return self._editor.add_weight(f"{value.name}.{wanted.name.lower()}", narrow, wanted)

    def _cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        producer = value.producer()
        is_only = producer is not None and producer.name and len(producer.outputs) == 1  # a Split has several
        stem = producer.name if producer is not None and is_only else value.name
        kind = wanted.name.lower()
        return self._editor.insert_cast(value, f"{value.name}.{kind}", wanted, node_name=f"{stem}/Cast_{kind}")
