"""Editing an ONNX graph in memory: what merging, conversion, quantization and emulation have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common
from numpy.typing import NDArray
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules.common import fuse_batchnorm_into_conv_rule

from avsbg.errors import AvsbgError
from avsbg.export.operators import register_schemas
from avsbg.runtime.bundle.manifest import TensorRecord


class PrecisionError(AvsbgError):
    """A graph cannot be expressed in the precision asked for."""


class GraphEditor:
    """Adds weights and nodes to a graph, in place; whatever is added has a name, a type and a shape."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph

    def add_weight(self, name: str, array: NDArray[Any], dtype: ir.DataType | None = None) -> ir.Value:
        """Add an initialiser of this name; its type is the array's unless it is one that numpy does not know."""
        tensor = ir.tensor(array, dtype=dtype, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def insert(
        self,
        operator: str,
        inputs: list[ir.Value],
        name: str,
        dtype: ir.DataType,
        *,
        shape: ir.Shape | None = None,
        node_name: str | None = None,
        before: ir.Node | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Insert a node with one output, of this name, type and shape, and return that.

        The shape is by default the first input's, the node's name the output's, and its place behind the node that
        computes the first input.
        """
        node = ir.node(operator, inputs, attributes=attributes, name=node_name or name)
        output = node.outputs[0]
        output.name, output.type = name, ir.TensorType(dtype)
        output.shape = inputs[0].shape if shape is None else shape
        producer = inputs[0].producer()
        if before is not None or producer is None:
            self.graph.insert_before(before or self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        return output

    def insert_cast(self, value: ir.Value, name: str, dtype: ir.DataType, *, node_name: str | None = None) -> ir.Value:
        """Insert a `Cast` of a value, and return its output."""
        return self.insert("Cast", [value], name, dtype, node_name=node_name, attributes={"to": int(dtype)})

    def drop_unused_weights(self) -> None:
        """Remove the initialisers that nothing reads any more."""
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]


def load_graph(path: Path) -> ir.Model:
    """A graph of a bundle, whose weights are read as they are needed.

    A file that has a second hard link, as in a copy by `cp -al`, is refused by onnx_ir wherever weights name a folder
    to stay in, lest it be somebody's secret; those of a bundle are known by their hashes.
    """
    model = ir.load(path)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and Path(tensor.path).stat().st_nlink > 1:
            place = (path.parent.resolve() / tensor.location, tensor.offset, tensor.length, tensor.dtype)
            assert tensor.shape is not None and tensor.name is not None
            value.const_value = ir.ExternalTensor(*place, shape=tensor.shape, name=tensor.name)
    return model


def load_folded(path: Path) -> ir.Model:
    """A float32 graph with batch normalisations folded and every type known, as quantization takes it."""
    model = load_graph(path)
    fold_batch_norms(model)
    infer_types(model)
    return model


def fold_batch_norms(model: ir.Model) -> None:
    """Fold each batch normalisation behind a convolution into the convolution's weights, in float32, in place."""
    functions = dict(model.functions)
    names = {node.inputs[1]: node.name for node in model.graph if node.op_type == "Conv"}
    rewrite(model, pattern_rewrite_rules=[fuse_batchnorm_into_conv_rule])
    model.functions.update(functions)
    known = {str(value.name): name for value, name in names.items() if value is not None}
    for node in model.graph:
        if node.op_type == "Conv" and node.inputs[1] is not None:
            # Engines report by node names; the rule makes up its own.
            node.name = known.get(str(node.inputs[1].name), node.name)


def infer_types(model: ir.Model) -> None:
    """Give a type to values of inlined functions, which would not be cast without; a PrecisionError if none follows."""
    register_schemas()
    ir.passes.common.ShapeInferencePass()(model)
    unknown = [value.name for node in model.graph for value in node.outputs if value.dtype is None and value.uses()]
    if unknown:
        raise PrecisionError(f"the type of {unknown[0]} cannot be inferred.", "Export the bundle again.")


def describe_model(model: ir.Model) -> dict[str, Any]:
    """The fields of a `GraphRecord` that follow from the model itself; operators by frequency, `domain::operator`."""
    counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph)
    return {
        "opset": model.opset_imports[""],
        "ir_version": model.ir_version,
        "inputs": tuple(_describe(value) for value in model.graph.inputs),
        "outputs": tuple(_describe(value) for value in model.graph.outputs),
        "node_count": len(model.graph),
        "operators": dict(counts.most_common()),
    }


def _describe(value: ir.Value) -> TensorRecord:
    assert value.dtype is not None and value.shape is not None
    shape = [size if isinstance(size, int) else size.value for size in value.shape]
    return TensorRecord.model_validate({"name": value.name, "dtype": value.dtype.numpy().name, "shape": shape})


def check_model(path: Path) -> None:
    """Check a file, shapes included, as strictly as onnx can, or raise onnx's ValidationError or InferenceError."""
    register_schemas()
    onnx.checker.check_model(str(path))
    proto = onnx.load(str(path), load_external_data=False)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
