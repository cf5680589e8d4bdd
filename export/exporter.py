"""From PyTorch to ONNX files: the clip graph with the operator as a node, the same without it, one file of weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from avsbg import __version__
from avsbg.export import attention, onnx_operators
from avsbg.export.graphs import OUTPUTS, ClipGraph
from avsbg.export.optimise import count_nodes, inline, optimise
from avsbg.export.shape import ClipShape, ExportError
from avsbg.model.encoders import STAGE_STRIDES
from avsbg.runtime.manifest import GraphRecord

# The latest version that onnxruntime, TensorRT from 10.3 on and OpenVINO all take; it has Gelu as one node.
OPSET = 20
IR_VERSION = 10
CLIPS = "clips"  # the name of the one dynamic dimension
WEIGHTS = "weights.bin"
# Offsets are multiples of a page, so that runtimes can map large weights instead of copying them.
_ALIGNMENT = 4096

Report = Callable[[str], None]


def export_graphs(graph: ClipGraph, shape: ClipShape, directory: Path, report: Report) -> dict[str, GraphRecord]:
    """Export a network's graphs into `directory`.

    Writes `clip.onnx` and `weights.bin`, and, where the network contains an operator of ours, `clip.plain.onnx`, which
    computes the same from the same weights with standard operators only.

    Args:
        graph: the network with its front end.
        shape: what the graphs have fixed.
        directory: where the files go.
        report: called with a line of text as each step begins or ends.

    Returns:
        The graphs' records for the manifest, by name.

    Raises:
        ExportError: the checker of ONNX refuses a graph.
    """
    report("translating PyTorch to ONNX")
    model = _translate(graph, shape)
    exported = len(model.graph)
    report("optimising the graph")
    weights = optimise(model)
    _attach_bodies(model, shape)
    model.metadata_props.update({"avsbg.version": __version__, "avsbg.nodes_exported": str(exported)})
    report(f"nodes: {exported} exported, {len(model.graph)} after optimisation")

    report("writing graphs and weights")
    _store_weights(model, weights, directory)
    if not model.functions:
        return {"clip": _save(model, directory / "clip.onnx", operator="plain")}
    records = {"clip": _save(model, directory / "clip.onnx", operator="custom")}
    inline(model, weights)
    model.metadata_props.update({"avsbg.version": __version__, "avsbg.nodes_exported": str(exported)})
    report(f"nodes: {len(model.graph)} with standard operators only")
    records["clip.plain"] = _save(model, directory / "clip.plain.onnx", operator="plain")
    return records


def _translate(graph: ClipGraph, shape: ClipShape) -> ir.Model:
    # Two clips: a dynamic dimension of 1 in the example would be taken for a constant.
    frames = torch.zeros(2, shape.frames, shape.height, shape.width, 3, dtype=torch.uint8)
    sound = torch.zeros(2, *graph.audio.shape(shape.frames))
    clips = {0: torch.export.Dim(CLIPS)}
    onnx_operators.register_schemas()
    with warnings.catch_warnings():
        # Both inputs share the dimension on purpose; the exporter warns that it keeps one name for both.
        warnings.filterwarnings("ignore", message=".*The axis name: clips will not be used.*")
        program = torch.onnx.export(
            graph,
            (frames, sound),
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=["frames", graph.audio.value],
            output_names=list(OUTPUTS),
            dynamic_shapes=(clips, clips),
            custom_translation_table={**onnx_operators.translation_table(), **attention.translation_table()},
            verbose=False,
        )
    assert program is not None  # only without dynamo
    model: ir.Model = program.model
    model.ir_version = IR_VERSION
    return model


def _attach_bodies(model: ir.Model, shape: ClipShape) -> None:
    """Give the model a body of standard operators for each operator of ours that it contains."""
    present = {node.op_type for node in model.graph if node.domain == onnx_operators.DOMAIN}
    finest = shape.height * shape.width // STAGE_STRIDES[0] ** 2
    bodies = {
        "MeanCorrelation": onnx_operators.mean_correlation_body(OPSET, onnx_operators.row_blocks(finest)),
        "CorrelationVolume": onnx_operators.correlation_volume_body(OPSET),
    }
    for name in sorted(present):
        function = ir.serde.deserialize_function(bodies[name])
        model.functions[function.identifier()] = function


def _store_weights(model: ir.Model, weights: list[str], directory: Path) -> None:
    values = [model.graph.initializers[name] for name in weights]
    tensors = [value.const_value for value in values if value.const_value is not None]
    stored = ir.external_data.convert_tensors_to_external(tensors, directory, WEIGHTS, alignment=_ALIGNMENT)
    for value, tensor in zip(values, stored, strict=True):
        value.const_value = tensor


def _save(model: ir.Model, path: Path, operator: str) -> GraphRecord:
    ir.save(model, path)
    _check(path)
    nodes = count_nodes(model)
    return GraphRecord.model_validate(
        {
            "file": path.name,
            "external_data": (WEIGHTS,),
            "operator": operator,
            "opset": model.opset_imports[""],
            "ir_version": model.ir_version,
            "inputs": [_describe(value) for value in model.graph.inputs],
            "outputs": [_describe(value) for value in model.graph.outputs],
            "node_count": sum(nodes.values()),
            "operators": nodes,
        }
    )


def _describe(value: ir.Value) -> dict[str, object]:
    assert value.dtype is not None and value.shape is not None
    shape = [size if isinstance(size, int) else size.value for size in value.shape]
    return {"name": value.name, "dtype": value.dtype.numpy().name, "shape": shape}


def _check(path: Path) -> None:
    """Check a file as strictly as onnx can, with the shape of every value inferred and compared."""
    try:
        onnx.checker.check_model(str(path))
        proto = onnx.load(str(path), load_external_data=False)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph {path.name} is not valid ONNX: {error}") from error
