"""Checking what an ONNX file claims before any engine opens it: where its weights lie, and how large its tensors are.

Not all engines check it themselves, and some allocate first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.external_data_helper import uses_external_data

from avsbg.export.operators import register_schemas
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import GraphRecord
from avsbg.runtime.bundle.record_types import validate_shape
from avsbg.runtime.errors import BundleError

# Of any tensor inside a graph, one clip: 256 GiB in float32. What passes between graphs may have less.
MOST_ELEMENTS = 2**36


def check_external_data(bundle: Bundle, record: GraphRecord) -> None:
    """Check that a graph's weights lie within the files that its record lists, and every size, or raise BundleError."""
    path = bundle.file(record.file)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError is not public.
        raise BundleError(f"{path} is not an ONNX model: {error}.", "Export the bundle again.") from error
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    _check_shapes(path, model)
    for tensor in [*_tensors(model.graph), *_attribute_tensors(nodes)]:
        if problem := validate_shape(tensor.dims, MOST_ELEMENTS):
            raise BundleError(f"{path}: the weight {tensor.name} {problem}.", "Export the bundle again.")
        if tensor.raw_data and len(tensor.raw_data) != (wanted := _stored_bytes(path, tensor)):
            raise _wrong_size(path, tensor, wanted, f"it has {len(tensor.raw_data)}")
        if not uses_external_data(tensor):
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in record.external_data:
            raise BundleError(
                f"{path}: the weight {tensor.name} lies in {location!r}, which is not one of the graph's files.",
                f"They are: {', '.join(record.external_data) or 'none'}. Export the bundle again.",
            )
        size = bundle.manifest.files[location].bytes
        offset, length = _number(entries.get("offset", "0")), _number(entries.get("length", "0"))
        if offset is None or length is None or offset + length > size:
            raise BundleError(
                f"{path}: the weight {tensor.name} lies at {entries.get('offset', '0')} with "
                f"{entries.get('length', 'no length')} bytes, and {location} has {size}.",
                "Export the bundle again.",
            )
        if "length" in entries and length != (wanted := _stored_bytes(path, tensor)):
            raise _wrong_size(path, tensor, wanted, f"{length} lie in {location}")


def _stored_bytes(path: Path, tensor: onnx.TensorProto) -> int:
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError) as error:  # a number without a type; a type without a width, like strings
        message = f"{path}: the weight {tensor.name} has the type {tensor.data_type}, which is none of numbers."
        raise BundleError(message, "Export the bundle again.") from error
    # Types of 4 bits are packed in pairs.
    return math.ceil(math.prod(tensor.dims) * bits / 8)


def _wrong_size(path: Path, tensor: onnx.TensorProto, wanted: int, found: str) -> BundleError:
    shape = " x ".join(map(str, tensor.dims))
    return BundleError(
        f"{path}: the weight {tensor.name} of {shape} takes {wanted} bytes, and {found}.", "Export the bundle again."
    )


def _check_shapes(path: Path, model: onnx.ModelProto) -> None:
    """Check what the graph says of its values, and what follows from it for those between."""
    register_schemas()
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # onnx's InferenceError is no public base class.
        raise BundleError(
            f"{path}: the shapes of its tensors contradict each other: {error}.", "Export it again."
        ) from error
    for graph in (model.graph, inferred.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            sizes = [size.dim_value for size in value.type.tensor_type.shape.dim if size.HasField("dim_value")]
            if problem := validate_shape(sizes, MOST_ELEMENTS):
                raise BundleError(f"{path}: the tensor {value.name} {problem}.", "Export the bundle again.")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors(graph)
            yield from _attribute_tensors(graph.node)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None
