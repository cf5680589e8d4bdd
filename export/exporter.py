"""From PyTorch to ONNX files: each graph with the operator as a node, the same without it, one file of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors.numpy import save

from avsbg import __version__
from avsbg.export import operators as onnx_operators
from avsbg.export.editor import check_model, describe_model
from avsbg.export.graphs import ClipGraph, graph_module
from avsbg.export.merges import Merges, merge
from avsbg.export.optimise import inline, optimise
from avsbg.export.shape import ClipShape, ExportError
from avsbg.export.translation import OPSET, translate
from avsbg.model.encoders import STAGE_STRIDES
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import GraphRecord

WEIGHTS = "weights.bin"
UNMERGED = "unmerged.safetensors"
# Offsets are multiples of a page, so that runtimes can map large weights instead of copying them.
_ALIGNMENT = 4096

Report = Callable[[str], None]


def export_graphs(
    graph: ClipGraph, shape: ClipShape, directory: Path, report: Report, *, stream: bool = False, merging: bool = True
) -> dict[str, GraphRecord]:
    """Export a network's graphs into `directory`, and return their records for the manifest, by name.

    Writes `clip.onnx` and `weights.bin`, and, where the network contains an operator of ours, `clip.plain.onnx`, which
    computes the same from the same weights with standard operators only. With `stream`, the same for the two graphs of
    a stream, `encode` and `decode`. The parameters that are merged in the graphs (`avsbg.export.merges`) are kept in
    `unmerged.safetensors`. An ExportError says that ONNX's checker refuses a graph, or that the network cannot be
    streamed.
    """
    names = ("clip", "encode", "decode") if stream else ("clip",)
    modules = {name: graph_module(graph, name) for name in names}
    shared = _SharedWeights(directory)
    records: dict[str, GraphRecord] = {}
    for name, module in modules.items():
        records |= _export(name, module, shape, shared, report, merging=merging)
    shared.close()
    return records


def _export(
    name: str, module: ClipGraph, shape: ClipShape, shared: _SharedWeights, report: Report, *, merging: bool
) -> dict[str, GraphRecord]:
    """Export one graph, and its plain form where it has an operator of ours."""
    report(f"{name}: translating PyTorch to ONNX")
    model = translate(module, shape, lambda line: report(f"{name}: {line}"))
    exported = len(model.graph)
    report(f"{name}: optimising the graph")
    weights = optimise(model)
    merges = merge(model, weights) if merging else Merges(weights)
    _attach_bodies(model, shape)
    model.metadata_props.update({"avsbg.version": __version__, "avsbg.nodes_exported": str(exported)})
    report(f"{name}: {exported} nodes exported, {len(model.graph)} after optimisation")
    if merges.records:
        before = sum(record.operations_before for record in merges.records)
        after = sum(record.operations_after for record in merges.records)
        report(f"{name}: {len(merges.records)} merges, {before / 1e9:.3g} GFLOP a frame are now {after / 1e9:.3g}")
    report(f"{name}: writing graph and weights")
    shared.store(model, merges)
    graph = GraphName.parse(name)
    path = shared.directory / graph.file
    if not model.functions:
        return {name: _save(model, path, merges, operator="plain")}
    records = {name: _save(model, path, merges, operator="custom")}
    inline(model, merges.weights)
    model.metadata_props.update({"avsbg.version": __version__, "avsbg.nodes_exported": str(exported)})
    report(f"{name}: {len(model.graph)} nodes with standard operators only")
    records[str(graph.plain())] = _save(model, path.with_name(graph.plain().file), merges, operator="plain")
    return records


def _attach_bodies(model: ir.Model, shape: ClipShape) -> None:
    """Give the model a body of standard operators for each operator of ours that it contains."""
    present = {node.op_type for node in model.graph if node.domain == onnx_operators.DOMAIN}
    finest = shape.height * shape.width // STAGE_STRIDES[0] ** 2
    mean = onnx_operators.mean_correlation_body(OPSET, onnx_operators.row_blocks(finest))
    for body in (onnx_operators.correlation_volume_body(OPSET), mean):
        if body.name in present:
            function = ir.serde.deserialize_function(body)
            model.functions[function.identifier()] = function


class _SharedWeights:
    """The files of weights that all graphs of a bundle share: the clip's, written first, hold those of the others."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stored: dict[str, ir.ExternalTensor] = {}
        self._replaced: dict[str, NDArray[np.float32]] = {}

    def store(self, model: ir.Model, merges: Merges) -> None:
        """Let the model read its weights from the file, and remember the parameters that it holds in merged form."""
        weights = merges.weights
        values = [model.graph.initializers[name] for name in weights]
        tensors = [value.const_value for value in values if value.const_value is not None]
        if not self._stored:
            stored = ir.external_data.convert_tensors_to_external(
                tensors, self.directory, WEIGHTS, alignment=_ALIGNMENT
            )
            self._stored = dict(zip(weights, stored, strict=True))
        for name, value, tensor in zip(weights, values, tensors, strict=True):
            known = self._stored.get(name)
            if known is None or not np.array_equal(known.numpy(), tensor.numpy()):
                raise ExportError(f"the weight {name} is not the clip graph's, so the graphs cannot share their file.")
            value.const_value = known
        self._replaced |= merges.replaced

    def close(self) -> None:
        """Write the parameters that are held in merged form, if there are any."""
        if self._replaced:
            (self.directory / UNMERGED).write_bytes(save(self._replaced))


def _save(model: ir.Model, path: Path, merges: Merges, operator: Literal["custom", "plain"]) -> GraphRecord:
    ir.save(model, path)
    try:
        check_model(path)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph {path.name} is not valid ONNX: {error}") from error
    return GraphRecord(
        file=path.name,
        external_data=(WEIGHTS,),
        operator=operator,
        merges=merges.records,
        unmerged=UNMERGED if merges.records else None,
        **describe_model(model),
    )
