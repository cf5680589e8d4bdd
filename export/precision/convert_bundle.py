"""The graphs of a bundle in another precision, all of them at once, each with its accuracy where it can be measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avsbg.export.external_data import check_external_data
from avsbg.export.precision.calibrate import Progress
from avsbg.export.precision.calibration_clips import VECTORS, CalibrationError, open_clips
from avsbg.export.precision.convert import PrecisionError
from avsbg.export.precision.graphs import add_graph, float32_reference, measure_accuracy
from avsbg.export.precision.quantisation import make_quantisation
from avsbg.runtime.bundle import Bundle, update_bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import GraphRecord
from avsbg.runtime.bundle.precision import PRECISIONS, converted_precisions
from avsbg.runtime.bundle.quantisation_record import QuantisationRecord
from avsbg.runtime.bundle.record_types import Precision


@dataclass(frozen=True)
class Calibration:
    """What to calibrate or judge on: see `avsbg.export.precision.calibration_clips.open_clips`."""

    source: str
    clips: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Converted:
    """The graphs that were added, by name, and the calibration that they used."""

    graphs: dict[str, GraphRecord]
    quantisation: QuantisationRecord | None


def convert_bundle(
    path: Path,
    precision: Precision,
    *,
    calibration: Calibration | None = None,
    judge: Calibration | None = None,
    gate: float | None = None,
    progress: Progress,
) -> Converted:
    """Add every float32 graph of a bundle in another precision; graphs of the same name are replaced.

    Args:
        path: the bundle, which changes only when everything has succeeded.
        precision: one of `converted_precisions()`.
        calibration: for int8 and fp8; None uses the bundle's own, made earlier.
        judge: the clips that decide whether the gate holds; None takes the bundle's test vectors.
        gate: the mean IoU that the masks must keep with PyTorch's; by default the precision's.
        progress: called with what is being done, the steps done and the steps there are.

    Raises:
        PrecisionError: no such precision, a gate that is no share, or a bundle that was not calibrated.
        CalibrationError: the clips cannot be used, or the precision needs none.
        BundleError: the bundle is not valid.
    """
    if precision not in (known := converted_precisions()):
        raise PrecisionError(f"--precision {precision} is not one to convert to.", f"Choose: {', '.join(known)}.")
    spec = PRECISIONS[precision]
    if gate is not None and not 0 <= gate <= 1:
        raise PrecisionError(f"--gate must lie between 0 and 1, not {gate}.")
    if calibration is not None and spec.quantization is None:
        raise CalibrationError(f"--calibrate has no effect with --precision {precision}.", "Leave it out.")
    bundle = Bundle.open(path)
    sources = [name for name, record in bundle.manifest.graphs.items() if record.precision == "fp32"]
    for name in sources:
        check_external_data(bundle, bundle.graph(name))
    reference = None
    if judge is not None and judge.source != VECTORS:
        progress("reading the clips to judge on", 0, judge.clips)
        reference = float32_reference(bundle, open_clips(judge.source, bundle, judge.clips, judge.seed), progress)
    with update_bundle(bundle) as update:
        if calibration is not None:
            progress("reading the calibration clips", 0, calibration.clips)
            clips = open_clips(calibration.source, bundle, calibration.clips, calibration.seed)
            least = spec.min_miou if gate is None else gate
            update.quantisations[precision] = make_quantisation(bundle, precision, clips, least, progress)
        names = []
        for done, source in enumerate(sources):
            progress(f"expressing the graphs in {precision}", done, len(sources))
            names.append(add_graph(update, source, precision))
        staged = update.open()
        for done, name in enumerate(names):
            progress("comparing with PyTorch on the test vectors", done, len(names))
            # The graphs of a stream take other inputs than the vectors hold.
            if GraphName.parse(name).role == "clip" and (bundle.manifest.vectors or reference):
                accuracy = measure_accuracy(staged, name, gate, reference=reference, progress=progress)
                update.graphs[name] = update.graphs[name].model_copy(update={"accuracy": accuracy})
        graphs = dict(update.graphs)
        quantisations = bundle.manifest.quantisations | update.quantisations
    return Converted(graphs, quantisations.get(precision))
