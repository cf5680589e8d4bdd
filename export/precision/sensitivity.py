"""Which products stay out of a quantisation: a rule by measurement, group by group.

Each group of products is quantised alone, and what that does to the logits is measured on a few clips. Then all groups
are quantised together, but for those that miss the gate alone, and judged on all clips. While the masks still miss it,
twice as many groups are left out, those that cost most alone first; then bisection finds how few suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from avsbg.export.precision.calibrate import Progress, load_folded
from avsbg.export.precision.quantize import quantisable_products, quantise
from avsbg.export.precision.sessions import throw_away_session
from avsbg.runtime.bundle.quantisation_record import LayerGroupRecord, TrialRecord
from avsbg.runtime.verify.iou import mask_iou

Inputs = Mapping[str, NDArray[Any]]
# The parts of a network whose members are groups of their own: few layers, on large maps or next to the output.
_FINE = (["decoder"], ["head"])
# Clips that each group alone is run on; more make the rule slower in proportion.
CLIPS = 4


@dataclass(frozen=True)
class Chosen:
    """What the rule decided.

    Attributes:
        groups: each group with its cost.
        left_out: the products that are not quantised.
        miou: what the masks reach with the others quantised.
        trials: every number of groups that was tried, in the order of the trials.
    """

    groups: dict[str, LayerGroupRecord]
    left_out: tuple[str, ...]
    miou: float
    trials: tuple[TrialRecord, ...]


def group_of(product: str) -> str:
    """The group of a product, from the module in its name: one of a few dozen in the largest network.

    A transformer's stage has its attention, its linear layers and its depthwise convolutions; everything else goes by
    the first parts of its name.
    """
    parts = product.split("/", maxsplit=1)[0].split(".")
    if "blocks" in parts:
        at = parts.index("blocks")
        kind = "depthwise" if "dwconv" in parts else ".".join(parts[at + 2 : at + 3])
        return ".".join([*parts[:at], kind])
    depth = 5 if "stages" in parts else 4 if "encoder" in parts else 3 if parts[1:2] in _FINE else 2
    return ".".join(parts[:depth])


def make_groups(products: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Products by group, in their order."""
    groups: dict[str, list[str]] = {}
    for product in products:
        groups.setdefault(group_of(product), []).append(product)
    return {name: tuple(members) for name, members in groups.items()}


def choose(
    path: Path, precision: str, ranges: Mapping[str, float], clips: Sequence[Inputs], *, gate: float, progress: Progress
) -> Chosen:
    """Decide which products of the float32 graph in `path` to leave out.

    Args:
        path: of the ONNX file.
        precision: `int8` or `fp8`.
        ranges: as `calibrate` returns them.
        clips: one clip each. The first `CLIPS` rank the groups, all of them judge the whole.
        gate: the mean IoU with the masks of float32 that the quantised graph must reach on all clips.
        progress: called with the steps done.
    """
    measure = _Measure(path, precision, ranges, clips)
    groups = make_groups(list(quantisable_products(ir.load(path).graph, precision)))
    what = "quantising each group of layers alone"
    costs: dict[str, tuple[float, float]] = {}
    for done, (name, members) in enumerate(groups.items()):
        progress(what, done, len(groups))
        costs[name] = measure(members, CLIPS)
    progress(what, len(groups), len(groups))
    # What misses the gate alone stays out in any case; of the rest, what costs most goes first.
    queue = sorted(groups, key=lambda name: (costs[name][1] < gate, costs[name][0]), reverse=True)
    least = sum(costs[name][1] < gate for name in groups)
    trials: list[TrialRecord] = []

    def try_count(count: int) -> float:
        last = f", {trials[-1].groups} reach {trials[-1].miou:.4f}" if trials else ""
        progress(f"leaving out {count} of {len(queue)} groups{last}", len(trials), most_trials(len(queue)))
        _, miou = measure([product for name in queue[count:] for product in groups[name]])
        out = sum(len(groups[name]) for name in queue[:count])
        trials.append(TrialRecord(groups=count, products=out, miou=miou))
        return miou

    count = fewest(try_count, least, len(queue), gate)
    progress("leaving out what costs most", 1, 1)
    left_out = set(queue[:count])
    records = {
        name: LayerGroupRecord(
            products=len(members), logit_error=costs[name][0], miou=costs[name][1], left_out=name in left_out
        )
        for name, members in groups.items()
    }
    products = tuple(product for name, members in groups.items() if name in left_out for product in members)
    miou = next(trial.miou for trial in trials if trial.groups == count)
    return Chosen(records, products, miou, tuple(trials))


def fewest(score: Callable[[int], float], least: int, most: int, gate: float) -> int:
    """The smallest count tried whose score reaches the gate; `most` where no smaller one does.

    Counts double from `least` until one reaches it. Then the last that missed it and the first that did close in on
    each other by halves, until they are neighbours. Where a larger count can score less than a smaller one, the result
    reaches the gate all the same, but a smaller one that was not tried may do so too.

    Args:
        score: called once for each count tried, `most_trials(most)` times at the most.
        least: the first count.
        most: the last one; it is taken whatever its score is.
        gate: what the score has to reach.
    """
    missed, count = None, least
    while score(count) < gate and count < most:
        missed, count = count, min(most, count + max(1, count))
    while missed is not None and count - missed > 1:
        middle = (missed + count) // 2
        if score(middle) < gate:
            missed = middle
        else:
            count = middle
    return count


def most_trials(most: int) -> int:
    """How often `fewest` asks for a score at the most: the doubled counts, and the last step's halves."""
    return 2 * max(most, 1).bit_length() + 1


class _Measure:
    """Quantises products of one graph and says what that does to its logits: (relative rms error, mean IoU)."""

    def __init__(self, path: Path, precision: str, ranges: Mapping[str, float], clips: Sequence[Inputs]) -> None:
        self._model = load_folded(path)
        self._precision, self._ranges, self._clips = precision, ranges, clips
        self._reference = self._run(())
        self._scale = max(float(np.std(np.concatenate(self._reference))), float(np.finfo(np.float32).tiny))

    def __call__(self, products: Collection[str], clips: int | None = None) -> tuple[float, float]:
        logits = self._run(products, clips)
        pairs = list(zip(logits, self._reference[:clips], strict=True))
        squares = [float(np.square(ours - theirs, dtype=np.float64).mean()) for ours, theirs in pairs]
        error = math.sqrt(sum(squares) / len(squares)) / self._scale
        miou = np.concatenate([mask_iou(ours > 0, theirs > 0).ravel() for ours, theirs in pairs]).mean()
        if not math.isfinite(error):
            return float(np.finfo(np.float32).max), 0.0
        return error, float(miou)

    def _run(self, products: Collection[str], clips: int | None = None) -> list[NDArray[np.float32]]:
        model = self._model.clone()
        if products:
            quantise(model, self._precision, self._ranges, products)
        with throw_away_session(model) as session:
            return [session.run(clip)["logits"] for clip in self._clips[:clips]]
