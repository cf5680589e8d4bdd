"""Which products stay out of a quantisation: a rule by measurement, group by group.

Each group of products is quantised alone, and what that does to the logits is measured on a few clips. Then all groups
are quantised together, but for those that miss the gate alone, and judged on all clips; while the masks still miss it,
what costs most alone is left out too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from avsbg.export.precision.calibrate import Progress, load_folded
from avsbg.export.precision.quantise import quantisable_products, quantise
from avsbg.export.precision.sessions import mask_agreement, throw_away_session
from avsbg.runtime.quantisation_record import LayerGroupRecord

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
        passed: whether that is the gate.
    """

    groups: dict[str, LayerGroupRecord]
    left_out: tuple[str, ...]
    miou: float
    passed: bool


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
    order = sorted(groups, key=lambda name: costs[name][0], reverse=True)
    left_out = [name for name in order if costs[name][1] < gate]
    what = "leaving out what costs most"
    while True:
        progress(what, len(left_out), len(groups))
        kept = [product for name, members in groups.items() if name not in left_out for product in members]
        _, miou = measure(kept)
        if miou >= gate or len(left_out) == len(groups):
            break
        # Doubling keeps the number of runs small where much has to go.
        others = [name for name in order if name not in left_out]
        left_out += others[: max(1, len(left_out))]
    progress(what, len(groups), len(groups))
    records = {
        name: LayerGroupRecord(
            products=len(members), logit_error=costs[name][0], miou=costs[name][1], left_out=name in left_out
        )
        for name, members in groups.items()
    }
    products = tuple(product for name, members in groups.items() if name in left_out for product in members)
    return Chosen(records, products, miou, miou >= gate)


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
        miou = np.concatenate([mask_agreement(ours, theirs) for ours, theirs in pairs]).mean()
        if not math.isfinite(error):
            return float(np.finfo(np.float32).max), 0.0
        return error, float(miou)

    def _run(self, products: Collection[str], clips: int | None = None) -> list[NDArray[np.float32]]:
        model = self._model.clone()
        if products:
            quantise(model, self._precision, self._ranges, products)
        with throw_away_session(model) as session:
            return [session.run(clip)["logits"] for clip in self._clips[:clips]]
