"""Checking where the weights of an ONNX file lie before any engine opens them: not all engines check it themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx.external_data_helper import uses_external_data

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BundleError
from avsbg.runtime.manifest import GraphRecord


def check_external_data(bundle: Bundle, record: GraphRecord) -> None:
    """Check that a graph's external data are files that its record lists, and lie within them.

    Args:
        bundle: an open bundle; the files that its manifest lists are regular files inside it.
        record: of the graph.

    Raises:
        BundleError: the file is no ONNX model, or a weight points elsewhere or beyond the end of its file.
    """
    path = bundle.file(record.file)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError is not public.
        raise BundleError(f"{path} is not an ONNX model: {error}.", "Export the bundle again.") from error
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for tensor in [*_tensors(model.graph), *_attribute_tensors(nodes)]:
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
