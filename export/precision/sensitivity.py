"""Sensitivity analysis: a bundle's calibration, and the layers that stay out of it because accuracy demands it.

Each group of layers is quantized alone, and its effect on the logits is measured on a few clips. Then all groups are
quantized together, but for those that miss the accuracy threshold alone, and measured on all clips. While the masks
still miss it, twice as many groups are left out, those that cost most alone first; then bisection finds the fewest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avsbg.export.editor import PrecisionError, load_folded, load_graph
from avsbg.export.precision.accuracy import decide
from avsbg.export.precision.calibrate import VECTORS, CalibrationClips, Progress, calibrate, vector_clips
from avsbg.export.precision.quantize import quantizable_layers, quantize, unquantized_layers
from avsbg.export.sessions import temporary_session
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.precision import quantization_of
from avsbg.runtime.bundle.quantisation_record import LayerGroupRecord, QuantisationRecord, TrialRecord
from avsbg.runtime.verify.verify import mask_iou

Inputs = Mapping[str, NDArray[Any]]
# The parts of a network whose members are groups of their own: few layers, on large maps or next to the output.
_FINE = (["decoder"], ["head"])
# Clips that each group alone is run on; more make the rule slower in proportion.
CLIPS = 4
# Between quantized layers: ONNX Runtime quantizes only around float32, and a file serves every runtime.
ACTIVATION_DTYPE: Literal["fp32", "fp16"] = "fp32"
# Of the calibration clips, how many the whole is measured on; their inputs are held in memory.
MAX_MEASURED = 32


def calibrate_bundle(
    bundle: Bundle, precision: str, clips: CalibrationClips, min_miou: float, progress: Progress
) -> QuantisationRecord:
    """Calibrate the bundle's `clip` graph, whose layers all its graphs share, and leave out those that cost too much.

    The accuracy threshold `min_miou` is for the first `MAX_MEASURED` of these clips and all test vectors. A
    PrecisionError says that every layer would have to be left out; a CalibrationError is as for `calibrate`.
    """
    path = bundle.file(bundle.graph("clip").file)
    ranges = calibrate(load_folded(path), precision, clips, progress)
    measured = _measured_clips(bundle, clips)
    selected = select_excluded_layers(path, precision, ranges, measured, min_miou=min_miou, progress=progress)
    if all(group.left_out for group in selected.groups.values()):
        raise PrecisionError(
            f"no product can be computed in {precision}: the masks keep a mean IoU of {min_miou:g} only if all of them "
            "are left out.",
            "Give a lower --min-miou, or calibrate on clips whose masks are not nearly empty: there few pixels decide.",
        )
    not_quantised: dict[str, str] = {}
    for record in bundle.manifest.graphs.values():
        if record.precision == "fp32":
            not_quantised |= unquantized_layers(load_graph(bundle.file(record.file)).graph, precision, ranges)
    return QuantisationRecord(
        calibration=clips.record,
        method=quantization_of(precision).calibration,
        between=ACTIVATION_DTYPE,
        min_miou=min_miou,
        measured_clips=len(measured),
        not_quantised=not_quantised,
        ranges=ranges,
        **vars(selected),
    )


def _measured_clips(bundle: Bundle, clips: CalibrationClips) -> list[Inputs]:
    """The clips that the rule for sensitive layers is measured on, among them all that decide the accuracy at last.

    One test vector comes first, then the calibration clips, so that the few that every group is measured on hold both.
    """
    vectors = list(vector_clips(bundle))
    real = [] if clips.record.source == VECTORS else list(islice(clips.clips(), MAX_MEASURED))
    return [*vectors[:1], *real, *vectors[1:]]


@dataclass(frozen=True)
class Selection:
    """The outcome of the rule."""

    groups: dict[str, LayerGroupRecord]
    left_out: tuple[str, ...]  # layers that are not quantized
    miou: float  # of the masks with the others quantized
    trials: tuple[TrialRecord, ...]  # every number of groups tried, in order


def group_of(layer: str) -> str:
    """The group of a layer, from the module in its name: one of a few dozen in the largest network.

    A transformer's stage has its attention, its linear layers and its depthwise convolutions; everything else goes by
    the first parts of its name.
    """
    parts = layer.split("/", maxsplit=1)[0].split(".")
    if "blocks" in parts:
        at = parts.index("blocks")
        kind = "depthwise" if "dwconv" in parts else ".".join(parts[at + 2 : at + 3])
        return ".".join([*parts[:at], kind])
    depth = 5 if "stages" in parts else 4 if "encoder" in parts else 3 if parts[1:2] in _FINE else 2
    return ".".join(parts[:depth])


def select_excluded_layers(
    path: Path,
    precision: str,
    ranges: Mapping[str, float],
    clips: Sequence[Inputs],
    *,
    min_miou: float,
    progress: Progress,
) -> Selection:
    """Decide on the layers of the float32 graph in `path` to leave out.

    The first `CLIPS` of the clips, one each, rank the groups. On all of them the masks' mean IoU with those of float32
    must reach `min_miou`.
    """
    measure = _Measure(path, precision, ranges, clips)
    groups: dict[str, list[str]] = {}
    for layer in quantizable_layers(load_graph(path).graph, precision):
        groups.setdefault(group_of(layer), []).append(layer)
    what = "quantizing each group of layers alone"
    costs: dict[str, tuple[float, float]] = {}
    for done, (name, members) in enumerate(groups.items()):
        progress(what, done, len(groups))
        costs[name] = measure(members, CLIPS)
    progress(what, len(groups), len(groups))
    # Groups that miss the threshold alone stay out in any case; of the others, the costliest goes first.
    queue = sorted(groups, key=lambda name: (costs[name][1] < min_miou, costs[name][0]), reverse=True)
    least = sum(costs[name][1] < min_miou for name in groups)
    trials: list[TrialRecord] = []

    def try_count(count: int) -> float:
        last = f", {trials[-1].groups} reach {trials[-1].miou:.4f}" if trials else ""
        progress(f"leaving out {count} of {len(queue)} groups{last}", len(trials), most_trials(len(queue)))
        _, miou = measure([layer for name in queue[count:] for layer in groups[name]])
        out = sum(len(groups[name]) for name in queue[:count])
        trials.append(TrialRecord(groups=count, products=out, miou=miou))
        return miou

    count = bisect_exclusions(try_count, least, len(queue), min_miou)
    progress("leaving out what costs most", 1, 1)
    left_out = set(queue[:count])
    records = {}
    for name, members in groups.items():
        error, miou = costs[name]
        records[name] = LayerGroupRecord(products=len(members), logit_error=error, miou=miou, left_out=name in left_out)
    layers = tuple(layer for name, members in groups.items() if name in left_out for layer in members)
    miou = next(trial.miou for trial in trials if trial.groups == count)
    return Selection(records, layers, miou, tuple(trials))


def bisect_exclusions(score: Callable[[int], float], least: int, most: int, threshold: float) -> int:
    """The smallest count tried whose score reaches the threshold; `most` where no smaller one does.

    Counts double from `least` until one reaches it. Then the last that missed it and the first that did close in on
    each other by halves, until they are neighbours. Where a larger count can score less than a smaller one, the result
    reaches the threshold all the same, but a smaller one that was not tried may do so too. `most` is taken whatever its
    score is. Each count is tried once, `most_trials(most)` at the most.
    """
    missed, count = None, least
    while score(count) < threshold and count < most:
        missed, count = count, min(most, count + max(1, count))
    while missed is not None and count - missed > 1:
        middle = (missed + count) // 2
        if score(middle) < threshold:
            missed = middle
        else:
            count = middle
    return count


def most_trials(most: int) -> int:
    """The most scores that `bisect_exclusions` asks for: the doubled counts, and the last step's halves."""
    return 2 * max(most, 1).bit_length() + 1


class _Measure:
    """Quantizes layers of one graph and measures the effect on its logits: (relative rms error, mean IoU)."""

    def __init__(self, path: Path, precision: str, ranges: Mapping[str, float], clips: Sequence[Inputs]) -> None:
        self._model = load_folded(path)
        self._precision, self._ranges, self._clips = precision, ranges, clips
        self._reference = self._run(())
        self._scale = max(float(np.std(np.concatenate(self._reference))), float(np.finfo(np.float32).tiny))

    def __call__(self, layers: Collection[str], clips: int | None = None) -> tuple[float, float]:
        logits = self._run(layers, clips)
        pairs = list(zip(logits, self._reference[:clips], strict=True))
        squares = [float(np.square(ours - theirs, dtype=np.float64).mean()) for ours, theirs in pairs]
        error = math.sqrt(sum(squares) / len(squares)) / self._scale
        miou = np.concatenate([mask_iou(decide(ours), decide(theirs)).ravel() for ours, theirs in pairs]).mean()
        if not math.isfinite(error):
            return float(np.finfo(np.float32).max), 0.0
        return error, float(miou)

    def _run(self, layers: Collection[str], clips: int | None = None) -> list[NDArray[np.float32]]:
        model = self._model.clone()
        if layers:
            quantize(model, self._precision, self._ranges, layers)
        with temporary_session(model) as session:
            return [session.run(clip)["logits"] for clip in self._clips[:clips]]
