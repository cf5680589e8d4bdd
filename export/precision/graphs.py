"""The graphs of a bundle in other precisions: made from the float32 graphs, checked, added to the bundle, measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from avsbg.export.editor import (
    PrecisionError,
    check_model,
    describe_model,
    fold_batch_norms,
    infer_types,
    load_graph,
)
from avsbg.export.external_data import check_external_data
from avsbg.export.precision.accuracy import float32_reference, measure_accuracy
from avsbg.export.precision.calibrate import VECTORS, CalibrationError, ClipSource, Progress, open_clips
from avsbg.export.precision.convert import convert
from avsbg.export.precision.quantize import quantizable_layers, quantize, unquantized_layers
from avsbg.export.precision.rules import Choice, find_rule, is_compute_layer
from avsbg.export.precision.sensitivity import calibrate_bundle
from avsbg.runtime.bundle import Bundle, BundleUpdate, update_bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import GraphRecord
from avsbg.runtime.bundle.precision import PRECISIONS, converted_precisions, validate_rest
from avsbg.runtime.bundle.quantisation_record import QuantisationRecord
from avsbg.runtime.bundle.record_types import Precision


@dataclass(frozen=True)
class Converted:
    """The graphs that were added, by name, and the calibration behind them."""

    graphs: dict[str, GraphRecord]
    quantisation: QuantisationRecord | None


def convert_bundle(
    path: Path,
    precision: Precision,
    *,
    calibration: ClipSource | None = None,
    accuracy_clips: ClipSource | None = None,
    rest: Precision | None = None,
    min_miou: float | None = None,
    progress: Progress,
) -> Converted:
    """Add every float32 graph of a bundle in another precision; graphs of the same name are replaced.

    The bundle changes only when everything has succeeded. Without `calibration`, int8 and fp8 use the bundle's own,
    made earlier; without `accuracy_clips`, accuracy is measured on the bundle's test vectors. The threshold `min_miou`,
    a mean IoU with PyTorch's masks, is by default the precision's. `rest` is the type of what int8 and fp8 do not
    quantize: fp32 if None, or fp16.

    Raises:
        PrecisionError: no such precision or rest, a threshold that is no share, or a bundle that was not calibrated.
        CalibrationError: the clips cannot be used, or the precision needs none.
        BundleError: the bundle is not valid.
    """
    if precision not in (known := converted_precisions()):
        raise PrecisionError(f"--precision {precision} is not one to convert to.", f"Choose: {', '.join(known)}.")
    spec = PRECISIONS[precision]
    if problem := validate_rest(precision, rest):
        raise PrecisionError(problem)
    rest = None if rest == "fp32" else rest
    if min_miou is not None and not 0 <= min_miou <= 1:
        raise PrecisionError(f"--min-miou must lie between 0 and 1, not {min_miou}.")
    if calibration is not None and spec.quantization is None:
        raise CalibrationError(f"--calibrate has no effect with --precision {precision}.", "Leave it out.")
    bundle = Bundle.open(path)
    sources = [name for name, record in bundle.manifest.graphs.items() if record.precision == "fp32"]
    for name in sources:
        check_external_data(bundle, bundle.graph(name))
    reference = None
    if accuracy_clips is not None and accuracy_clips.source != VECTORS:
        progress("reading the clips to measure accuracy on", 0, accuracy_clips.count)
        reference = float32_reference(bundle, open_clips(accuracy_clips, bundle), progress)
    with update_bundle(bundle) as update:
        if calibration is not None:
            progress("reading the calibration clips", 0, calibration.count)
            clips = open_clips(calibration, bundle)
            update.quantisations[precision] = calibrate_bundle(
                bundle, precision, clips, spec.min_miou if min_miou is None else min_miou, progress
            )
        names = []
        for done, source in enumerate(sources):
            progress(f"expressing the graphs in {precision}", done, len(sources))
            names.append(add_graph(update, source, precision, rest))
        staged = update.open()
        for done, name in enumerate(names):
            progress("comparing with PyTorch on the test vectors", done, len(names))
            # The graphs of a stream take other inputs than the vectors hold.
            if GraphName.parse(name).role == "clip" and (bundle.manifest.vectors or reference):
                accuracy = measure_accuracy(staged, name, min_miou, reference=reference, progress=progress)
                update.graphs[name] = update.graphs[name].model_copy(update={"accuracy": accuracy})
        graphs = dict(update.graphs)
        quantisations = bundle.manifest.quantisations | update.quantisations
    return Converted(graphs, quantisations.get(precision))


def add_graph(update: BundleUpdate, source: str, precision: Precision, rest: Precision | None = None) -> str:
    """Add a graph in another precision to a bundle, or raise a PrecisionError if that cannot express it.

    Returned is the new graph's name: `source` itself for fp32, and for tf32 where no plugin has to be told.
    """
    record = update.bundle.graph(source)
    if precision == "fp32" or (precision == "tf32" and record.operator == "plain"):
        return source
    file = update.bundle.file(record.file)
    converted = GraphName.parse(source).converted(precision, rest)
    name, target = str(converted), update.directory / converted.file
    if precision == "tf32":
        model = ir.load(file)  # its weights stay where they are
        for node in model.graph:
            if node.domain == "avsbg":
                node.attributes["tf32"] = ir.AttrInt64("tf32", 1)
        external = record.external_data
        ir.save(model, target)
    else:
        model = load_graph(file)
        if PRECISIONS[precision].quantization is not None:
            _quantize(update, model, precision, rest)
        else:
            convert(model, precision)
        external = (f"{name}.bin",)
        ir.save(model, target, external_data=external[0])
    check_model(target)
    changed = {"file": target.name, "external_data": external, "precision": precision, "rest": rest, "accuracy": None}
    update.graphs[name] = record.model_copy(update=changed | describe_model(model))
    return name


def _quantize(update: BundleUpdate, model: ir.Model, precision: str, rest: Precision | None) -> None:
    record = (update.bundle.manifest.quantisations | update.quantisations).get(precision)
    if record is None:
        raise PrecisionError(
            f"{update.bundle.path} has not been calibrated for {precision}.",
            f"Run `avsbg quantize {update.bundle.path} --precision {precision} --calibrate FOLDER`.",
        )
    layers = quantizable_layers(model.graph, precision).keys() & record.ranges.keys() - set(record.left_out)
    if rest is None:
        fold_batch_norms(model)
        infer_types(model)
    else:
        convert(model, rest)
    done = quantize(model, precision, record.ranges, layers)
    if done != len(layers):
        raise PrecisionError(f"{len(layers)} products have a range for {precision}, and {done} could be quantised.")


def quantized_graph(bundle: Bundle, source: str, precision: Precision) -> str:
    """The name of the int8 or fp8 form of a graph, which `avsbg quantize` made; a PrecisionError where it did not."""
    name = str(GraphName.parse(source).converted(precision))
    if name not in bundle.manifest.graphs or precision not in bundle.manifest.quantisations:
        raise PrecisionError(
            f"{bundle.path} has no graph {name}: --precision {precision} builds what `avsbg quantize` quantised.",
            f"Run `avsbg quantize {bundle.path} --precision {precision} --calibrate FOLDER` before.",
        )
    return name


def expected_types(bundle: Bundle, source: str, precision: Precision, rest: Precision | None = None) -> dict[str, str]:
    """The type in which an engine of a precision must compute each layer of a graph, by the table of rules.

    In int8 and fp8, that is the precision for the layers that a range was recorded for and that were not left out, and
    for all others what `rest` has. tf32 takes float32 inputs and rounds them in the kernel.
    """
    model = load_graph(bundle.file(bundle.graph(source).file))
    low, quantized = precision if PRECISIONS[precision].is_converted else "fp32", set()
    if PRECISIONS[precision].quantization is not None:
        record = bundle.manifest.quantisations[precision]
        low = rest or "fp32"
        quantized = quantizable_layers(model.graph, precision).keys() & record.ranges.keys() - set(record.left_out)
    types = {}
    for node in (node for node in model.graph if is_compute_layer(node)):
        rule = find_rule(node)
        is_low = rule is not None and rule.choice is Choice.LOW
        types[str(node.name)] = precision if node.name in quantized else low if is_low else "fp32"
    return types


def kept_higher(bundle: Bundle, source: str, precision: Precision, rest: Precision | None = None) -> dict[str, str]:
    """The layers of a float32 graph that take a higher type than the precision, with the reason."""
    if not PRECISIONS[precision].is_converted:
        return {}
    kept = {name for name, kind in expected_types(bundle, source, precision, rest).items() if kind != precision}
    graph = load_graph(bundle.file(bundle.graph(source).file)).graph
    if PRECISIONS[precision].quantization is not None:
        record = bundle.manifest.quantisations[precision]
        reasons = unquantized_layers(graph, precision, record.ranges)
        return {name: reasons.get(name, "left out by measurement") for name in kept}
    rules = {str(node.name): find_rule(node) for node in graph if node.name in kept}
    return {name: "" if rule is None else f"{rule.name}: {rule.reason}" for name, rule in rules.items()}
