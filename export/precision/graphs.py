"""The graphs of a bundle in other precisions: made from the float32 graphs, added to the bundle, checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from avsbg.export.operators import register_schemas
from avsbg.export.optimise import count_nodes
from avsbg.export.precision.accuracy import Agreement, clip_agreement, summarise
from avsbg.export.precision.calibrate import Progress
from avsbg.export.precision.calibration_clips import CalibrationClips
from avsbg.export.precision.convert import PrecisionError, convert, fold_batch_norms, infer_types
from avsbg.export.precision.emulated import EmulatedBackend
from avsbg.export.precision.quantize import quantisable_products, quantise, unquantised_products
from avsbg.export.precision.rules import Choice, find_rule, is_product
from avsbg.runtime.backends import Backend
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.bundle import Bundle, BundleUpdate
from avsbg.runtime.bundle.engine_record import AccuracyRecord
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import TensorRecord
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.bundle.record_types import Precision


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
    converted = GraphName.parse(source).converted(precision)
    name, target = str(converted), update.directory / converted.file
    if precision == "tf32":
        for node in model.graph:
            if node.domain == "avsbg":
                node.attributes["tf32"] = ir.AttrInt64("tf32", 1)
        external = record.external_data
        ir.save(model, target)
    else:
        if PRECISIONS[precision].quantization is not None:
            _quantise(update, model, precision)
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
            "inputs": _typed(record.inputs, model.graph.inputs),
            "outputs": _typed(record.outputs, model.graph.outputs),
            "opset": model.opset_imports[""],
            "node_count": sum(operators.values()),
            "operators": operators,
            "accuracy": None,
        }
    )
    return name


def _typed(records: Iterable[TensorRecord], values: Iterable[ir.Value]) -> tuple[TensorRecord, ...]:
    """The records with the types that the values now have."""
    types = {str(value.name): value.dtype for value in values}
    return tuple(
        record.model_copy(update={"dtype": dtype.numpy().name}) if (dtype := types[record.name]) else record
        for record in records
    )


def _quantise(update: BundleUpdate, model: ir.Model, precision: str) -> None:
    record = (update.bundle.manifest.quantisations | update.quantisations).get(precision)
    if record is None:
        raise PrecisionError(
            f"{update.bundle.path} has not been calibrated for {precision}.",
            f"Run `avsbg convert {update.bundle.path} --precision {precision} --calibrate FOLDER`.",
        )
    fold_batch_norms(model)
    infer_types(model)
    quantise(model, precision, record.ranges, set(record.ranges) - set(record.left_out))


def _check(path: Path) -> None:
    """Check what was just written as strictly as onnx can; a failure is a mistake of ours, not the user's."""
    register_schemas()
    onnx.checker.check_model(str(path))
    model = onnx.load(str(path), load_external_data=False)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def quantised_graph(bundle: Bundle, source: str, precision: Precision) -> str:
    """The name of the int8 or fp8 form of a graph, which `avsbg convert` made.

    Raises:
        PrecisionError: it did not.
    """
    name = str(GraphName.parse(source).converted(precision))
    if name not in bundle.manifest.graphs or precision not in bundle.manifest.quantisations:
        raise PrecisionError(
            f"{bundle.path} has no graph {name}: --precision {precision} builds what `avsbg convert` quantised.",
            f"Run `avsbg convert {bundle.path} --precision {precision} --calibrate FOLDER` before.",
        )
    return name


def expected_types(bundle: Bundle, source: str, precision: Precision) -> dict[str, str]:
    """In which type an engine of a precision must compute each product of a graph, by the table of rules.

    In int8 and fp8, that is the precision for the products that a range was recorded for and that were not left out,
    and what lies between for all others.

    Args:
        bundle: that has the float32 graph.
        source: the name of that graph.
        precision: of the engine. tf32 takes float32 inputs and rounds them in the kernel.
    """
    model = ir.load(bundle.file(bundle.graph(source).file))
    if PRECISIONS[precision].quantization is not None:
        record = bundle.manifest.quantisations[precision]
        quantised = quantisable_products(model.graph, precision).keys() & record.ranges.keys() - set(record.left_out)
        return {str(n.name): precision if n.name in quantised else record.between for n in model.graph if is_product(n)}
    low = precision if PRECISIONS[precision].is_converted else "fp32"
    expected: dict[str, str] = {}
    for node in model.graph:
        if is_product(node):
            rule = find_rule(node)
            expected[str(node.name)] = low if rule is not None and rule.choice is Choice.LOW else "fp32"
    return expected


def kept_higher(bundle: Bundle, source: str, precision: Precision) -> dict[str, str]:
    """The products of a graph that take a higher type than the precision, with the reason.

    Args:
        bundle: that has the float32 graph, and for int8 and fp8 the calibration.
        source: the name of that graph.
        precision: the one asked for.
    """
    kept = {name for name, kind in expected_types(bundle, source, precision).items() if kind != precision}
    if not PRECISIONS[precision].is_converted:
        return {}
    graph = ir.load(bundle.file(bundle.graph(source).file)).graph
    if PRECISIONS[precision].quantization is not None:
        record = bundle.manifest.quantisations[precision]
        reasons = unquantised_products(graph, precision, record.ranges)
        return {name: reasons.get(name, "left out by measurement") for name in kept}
    rules = {str(node.name): find_rule(node) for node in graph if node.name in kept}
    return {name: "" if rule is None else f"{rule.name}: {rule.reason}" for name, rule in rules.items()}


@dataclass(frozen=True)
class Reference:
    """Clips to judge on, and the logits `[T, H, W]` of the float32 graph for each."""

    clips: CalibrationClips
    logits: list[NDArray[np.generic]]


def float32_reference(bundle: Bundle, clips: CalibrationClips, progress: Progress) -> Reference:
    """Run the float32 `clip` graph on clips in ONNX Runtime, which export compared with PyTorch.

    Raises:
        BackendError: ONNX Runtime cannot run the graph.
    """
    logits = []
    with OnnxRuntimeBackend(bundle, "clip") as backend:
        for index, inputs in enumerate(clips.clips()):
            progress("running the float32 graph on the clips to judge on", index, clips.record.clips)
            logits.append(backend.run(inputs, ["logits"])["logits"][0])
    return Reference(clips, logits)


def measure_accuracy(
    bundle: Bundle,
    graph: str,
    gate: float | None = None,
    *,
    precision: Precision | None = None,
    reference: Reference | None = None,
    progress: Progress = lambda *_: None,
) -> AccuracyRecord:
    """Run a graph on the bundle's vectors and compare with PyTorch's outputs: in ONNX Runtime, or emulated there.

    Args:
        bundle: an open bundle.
        graph: one that takes clips.
        gate: the least mean IoU; by default the precision's own.
        precision: that the graph is to be executed in; by default its own. A float32 graph may be executed in tf32.
        reference: clips to judge on in place of the vectors.
        progress: called with what is being done, the clips done and the clips there are.

    Raises:
        BackendError: ONNX Runtime cannot run the graph.
    """
    precision = precision or bundle.graph(graph).precision
    least = PRECISIONS[precision].min_miou if gate is None else gate
    with accuracy_backend(bundle, graph, precision) as backend:
        on_vectors = [
            clip_agreement(f"{one.record.file}, clip {clip}", ours, theirs)
            for one in bundle.vectors()
            for clip, (ours, theirs) in enumerate(
                zip(backend.run(one.inputs, ["logits"])["logits"], one.outputs["logits"], strict=True)
            )
        ]
        agreement = summarise(on_vectors) if reference is None else _agreement_on(reference, backend, progress)
    return AccuracyRecord(
        largest_difference=agreement.largest,
        flipped=agreement.flipped,
        miou=agreement.miou,
        min_miou=least,
        passed=agreement.finite and agreement.miou >= least,
        emulated=PRECISIONS[precision].emulated,
        judged_on=None if reference is None else reference.clips.record,
        vectors_miou=summarise(on_vectors).miou if reference is not None and on_vectors else None,
    )


def _agreement_on(reference: Reference, backend: Backend, progress: Progress) -> Agreement:
    found = []
    for index, (inputs, theirs) in enumerate(zip(reference.clips.clips(), reference.logits, strict=True)):
        progress("comparing with the float32 graph", index, len(reference.logits))
        found.append(clip_agreement(f"clip {index}", backend.run(inputs, ["logits"])["logits"][0], theirs))
    return summarise(found)


def accuracy_backend(bundle: Bundle, graph: str, precision: Precision, *, threads: int | None = None) -> Backend:
    """What shows, on the processor, what a graph gives in a precision; a gate that it failed is no hindrance."""
    if PRECISIONS[precision].emulated:
        return EmulatedBackend(bundle, graph, precision=precision, threads=threads)
    return OnnxRuntimeBackend(bundle, graph, threads=threads, allow_failed_accuracy=True)
