"""The ranges of the activations that products take, read from clips one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx_ir as ir

from avsbg.export.precision.calibration_clips import CalibrationClips, CalibrationError
from avsbg.export.precision.convert import fold_batch_norms, infer_types
from avsbg.export.precision.histogram import MagnitudeHistogram
from avsbg.export.precision.quantize import quantisable_products
from avsbg.export.precision.sessions import throw_away_session
from avsbg.runtime.bundle.precision import quantization_of

# Called with what is being done, the steps done and the steps there are.
Progress = Callable[[str, int, int], None]

# Bytes of activations that are taken out of a graph in one run.
_MOST_BYTES = 512 * 2**20


def calibrate(model: ir.Model, precision: str, clips: CalibrationClips, progress: Progress) -> dict[str, float]:
    """The range of the input of each product that may be quantised.

    Args:
        model: the float32 `clip` graph, with batch normalisations folded; changed only in its outputs.
        precision: `int8` or `fp8`.
        clips: to read the ranges from. Memory holds one clip's activations at most, 512 MiB of them at a time.
        progress: called as clips are done.

    Raises:
        CalibrationError: an activation is not finite.
    """
    products = quantisable_products(model.graph, precision)
    values: dict[str, str] = {}
    for name, node in products.items():
        assert node.inputs[0] is not None
        values[name] = str(node.inputs[0].name)
    known = {str(value.name) for value in model.graph.outputs}
    for node in products.values():
        taken = node.inputs[0]
        assert taken is not None
        if taken.name not in known:
            known.add(str(taken.name))
            model.graph.outputs.append(taken)
    histograms = {value: MagnitudeHistogram() for value in values.values()}
    total = clips.record.clips
    with throw_away_session(model) as session:
        portions: list[list[str]] = [[value] for value in histograms]
        for done, inputs in enumerate(clips.clips()):
            progress("reading the ranges of activations", done, total)
            if done == 0:
                portions = _portions(model, list(histograms))
            for portion in portions:
                for value, array in session.run(inputs, portion).items():
                    try:
                        histograms[value].add(array)
                    except ValueError:
                        raise CalibrationError(
                            f"the activation {value} of calibration clip {done + 1} is not finite.",
                            "Leave that clip out; if it is so with every clip, check the weights.",
                        ) from None
        progress("reading the ranges of activations", total, total)
    spec = quantization_of(precision)
    by_value = {name: histogram.range(spec.calibration, spec.max_level) for name, histogram in histograms.items()}
    return {product: by_value[value] for product, value in values.items()}


def _portions(model: ir.Model, values: Sequence[str]) -> list[list[str]]:
    """Split the values so that each part takes bounded memory, from their static shapes for one clip."""
    sizes = {str(value.name): _bytes(value) for value in model.graph.outputs}
    portions: list[list[str]] = [[]]
    filled = 0
    for value in values:
        if portions[-1] and filled + sizes[value] > _MOST_BYTES:
            portions.append([])
            filled = 0
        portions[-1].append(value)
        filled += sizes[value]
    return portions


def _bytes(value: ir.Value) -> int:
    if value.shape is None:
        return _MOST_BYTES
    size = 4
    for dimension in value.shape:
        # A symbol counts frames of all clips: more than a clip has means smaller portions.
        size *= dimension if isinstance(dimension, int) else 8
    return size


def load_folded(path: Path) -> ir.Model:
    """A float32 graph as quantisation sees it: batch normalisations folded, every type known."""
    model = ir.load(path)
    fold_batch_norms(model)
    infer_types(model)
    return model
