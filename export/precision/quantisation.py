"""Calibrating a bundle for int8 or fp8: ranges from clips, and the layers that stay out by measurement."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal

import onnx_ir as ir
from numpy.typing import NDArray

from avsbg.export.precision.calibrate import Progress, calibrate, load_folded
from avsbg.export.precision.calibration_clips import CalibrationClips
from avsbg.export.precision.convert import PrecisionError
from avsbg.export.precision.quantize import unquantised_products
from avsbg.export.precision.sensitivity import choose
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.precision import quantization_of
from avsbg.runtime.bundle.quantisation_record import QuantisationRecord

Inputs = dict[str, NDArray[Any]]

# Between quantised products: ONNX Runtime quantises only around float32, and a file serves every runtime.
ACTIVATION_DTYPE: Literal["fp32", "fp16"] = "fp32"
# Of the calibration clips, how many the whole is judged on; their inputs are held in memory.
MOST_JUDGED = 32


def make_quantisation(
    bundle: Bundle, precision: str, clips: CalibrationClips, gate: float, progress: Progress
) -> QuantisationRecord:
    """Calibrate the bundle's `clip` graph, whose products all its graphs share.

    Args:
        bundle: an open bundle.
        precision: `int8` or `fp8`.
        clips: to calibrate on.
        gate: the mean IoU that the masks must keep, on the first `MOST_JUDGED` of these clips and all test vectors.
        progress: called with what is being done, the steps done and the steps there are.

    Raises:
        CalibrationError: an activation is not finite.
        PrecisionError: every product would have to be left out, so that nothing would be computed in the precision.
    """
    path = bundle.file(bundle.graph("clip").file)
    ranges = calibrate(load_folded(path), precision, clips, progress)
    judged = _judged(bundle, clips)
    chosen = choose(path, precision, ranges, judged, gate=gate, progress=progress)
    if all(group.left_out for group in chosen.groups.values()):
        raise PrecisionError(
            f"no product can be computed in {precision}: the masks keep a mean IoU of {gate:g} only if all of them are "
            "left out.",
            "Give a lower --gate, or calibrate on clips whose masks are not nearly empty: there a few pixels decide.",
        )
    return QuantisationRecord(
        calibration=clips.record,
        method=quantization_of(precision).calibration,
        between=ACTIVATION_DTYPE,
        groups=chosen.groups,
        min_miou=gate,
        miou=chosen.miou,
        judged_clips=len(judged),
        trials=chosen.trials,
        left_out=chosen.left_out,
        not_quantised=_not_quantised(bundle, precision, ranges),
        ranges=ranges,
    )


def _judged(bundle: Bundle, clips: CalibrationClips) -> list[Inputs]:
    """The clips that the rule for sensitive layers is measured on: all that the gate will see are among them.

    One test vector comes first, then the calibration clips, so that the few that every group is measured on hold both.
    """
    vectors = [
        {name: array[index : index + 1] for name, array in one.inputs.items()}
        for one in bundle.vectors()
        for index in range(one.record.clips)
    ]
    real = [] if clips.record.source == "vectors" else list(islice(clips.clips(), MOST_JUDGED))
    return [*vectors[:1], *real, *vectors[1:]]


def _not_quantised(bundle: Bundle, precision: str, ranges: Mapping[str, float]) -> dict[str, str]:
    """The products of all the bundle's graphs that have no range, with the reason."""
    found: dict[str, str] = {}
    for record in bundle.manifest.graphs.values():
        if record.precision == "fp32":
            found |= unquantised_products(ir.load(bundle.file(record.file)).graph, precision, ranges)
    return found
