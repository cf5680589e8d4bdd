"""The graphs of a bundle in other precisions: made from the float32 graphs, added to the bundle, checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from avsbg.export.onnx_operators import register_schemas
from avsbg.export.optimise import count_nodes
from avsbg.export.precision.convert import LOW_TYPES, convert
from avsbg.export.precision.rules import Choice, find_rule
from avsbg.runtime.backends.onnxruntime import OnnxRuntimeBackend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle_update import BundleUpdate
from avsbg.runtime.manifest import AccuracyRecord, Precision

# What the mean IoU between the masks of PyTorch's float32 and of a precision must reach.
LEAST_MIOU: dict[str, float] = {"fp32": 0.999, "fp16": 0.99}
# ONNX Runtime's CPU provider has no bfloat16 products, and computes tf32 graphs in float32.
RUNNABLE = tuple(LEAST_MIOU)

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


def add_graph(update: BundleUpdate, source: str, precision: Precision) -> str:
    """Add a graph in another precision to a bundle.

    Args:
        update: of the bundle.
        source: the name of the float32 graph.
        precision: the one wanted.

    Returns:
        The new graph's name: `source` itself for fp32, and for tf32 where no plugin has to be told.

    Raises:
        PrecisionError: the graph cannot be expressed in that precision.
    """
    record = update.bundle.graph(source)
    if precision == "fp32" or (precision == "tf32" and record.operator == "plain"):
        return source
    model = ir.load(update.bundle.file(record.file))
    name = f"{source}.{precision}"
    target = update.directory / f"{name}.onnx"
    if precision == "tf32":
        for node in model.graph:
            if node.domain == "avsbg":
                node.attributes["tf32"] = ir.AttrInt64("tf32", 1)
        external = record.external_data
        ir.save(model, target)
    else:
        convert(model, precision)
        external = (f"{name}.bin",)
        ir.save(model, target, external_data=external[0])
    _check(target)
    operators = count_nodes(model)
    update.graphs[name] = record.model_copy(
        update={
            "file": target.name,
            "external_data": external,
            "precision": precision,
            "opset": model.opset_imports[""],
            "node_count": sum(operators.values()),
            "operators": operators,
        }
    )
    return name


def _check(path: Path) -> None:
    """Check what was just written as strictly as onnx can; a failure is a mistake of ours, not the user's."""
    register_schemas()
    onnx.checker.check_model(str(path))
    model = onnx.load(str(path), load_external_data=False)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def expected_types(bundle: Bundle, source: str, precision: Precision) -> dict[str, str]:
    """In which type an engine of a precision must compute each product of a graph, by the table of rules.

    Args:
        bundle: that has the float32 graph.
        source: the name of that graph.
        precision: of the engine. tf32 takes float32 inputs and rounds them in the kernel.
    """
    model = ir.load(bundle.file(bundle.graph(source).file))
    low = precision if precision in LOW_TYPES else "fp32"
    expected: dict[str, str] = {}
    for node in model.graph:
        if node.op_type in _PRODUCTS or node.domain == "avsbg":
            rule = find_rule(node)
            expected[str(node.name)] = low if rule is not None and rule.choice is Choice.LOW else "fp32"
    return expected


def measure_accuracy(bundle: Bundle, graph: str) -> AccuracyRecord:
    """Run a graph, of a precision in `RUNNABLE`, on the bundle's vectors in ONNX Runtime and compare with PyTorch's.

    Raises:
        BackendError: ONNX Runtime cannot run the graph.
    """
    precision = bundle.graph(graph).precision
    largest, flipped, pixels, overlaps = 0.0, 0, 0, []
    with OnnxRuntimeBackend(bundle, graph) as backend:
        for vectors in bundle.vectors():
            outputs = backend.run(vectors.inputs)
            difference = float(np.abs(outputs["logits"] - vectors.outputs["logits"]).max())
            # Not max(): a NaN must not be lost.
            largest = difference if not difference <= largest else largest
            ours, theirs = outputs["probability"] > 0.5, vectors.outputs["probability"] > 0.5
            flipped += int((ours != theirs).sum())
            pixels += ours.size
            both, either = (ours & theirs).sum(axis=(2, 3)), (ours | theirs).sum(axis=(2, 3))
            overlaps.append(np.where(either == 0, 1.0, both / np.maximum(either, 1)).reshape(-1))
    miou = float(np.concatenate(overlaps).mean())
    return AccuracyRecord(
        largest_difference=largest if np.isfinite(largest) else float(np.finfo(np.float32).max),
        flipped=flipped / pixels,
        miou=miou,
        least_miou=LEAST_MIOU[precision],
        passed=bool(np.isfinite(largest)) and miou >= LEAST_MIOU[precision],
    )
