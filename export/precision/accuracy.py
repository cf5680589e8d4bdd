"""How far the logits of a precision lie from a reference, clip by clip: what gates and tables are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.verify.iou import mask_iou

# What stands for the difference of an output that is not finite, in records that hold finite numbers only.
_NOT_FINITE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ClipAgreement:
    """One clip: the sums that the figures of all clips are made of.

    Attributes:
        name: of the clip.
        miou: mean over its frames of the IoU between the masks; 1 for frames where both are empty.
        flipped: how many of its `pixels` are in one mask only.
        largest: |difference| of a logit; infinite where one is not finite.
        squares: the sum of the squared differences.
        reference: of the reference's logits, the sum and the sum of squares.
    """

    name: str
    miou: float
    flipped: int
    pixels: int
    largest: float
    squares: float
    reference: tuple[float, float]


def clip_agreement(name: str, logits: NDArray[Any], reference: NDArray[Any]) -> ClipAgreement:
    """Compare the logits `[T, H, W]` of a clip; a pixel belongs to the mask where its logit exceeds 0."""
    wanted = reference.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        differences = logits.astype(np.float64) - wanted
        finite = bool(np.isfinite(differences).all())
        squares = float(np.square(differences).sum()) if finite else math.inf
    return ClipAgreement(
        name=name,
        miou=float(mask_iou(logits > 0, reference > 0).mean()),
        flipped=int(((logits > 0) != (reference > 0)).sum()),
        pixels=logits.size,
        largest=float(np.abs(differences).max()) if finite else math.inf,
        squares=squares,
        reference=(float(wanted.sum()), float(np.square(wanted).sum())),
    )


@dataclass(frozen=True)
class Agreement:
    """All clips together.

    Attributes:
        logit_error: root mean square of the differences, as a share of the standard deviation of the reference.
        largest: |difference| of a logit.
        miou: mean over all frames, since every clip has as many.
        flipped: share of the pixels.
        worst: the name of the clip with the least mIoU, and that.
        finite: whether every logit is; where not, the first two are float32's largest number.
    """

    clips: int
    logit_error: float
    largest: float
    miou: float
    flipped: float
    worst: tuple[str, float]
    finite: bool


def summarise(clips: Sequence[ClipAgreement]) -> Agreement:
    """The figures of clips of one size.

    Raises:
        ValueError: there are none.
    """
    if not clips:
        raise ValueError("no clips to compare")
    pixels = sum(clip.pixels for clip in clips)
    mean = sum(clip.reference[0] for clip in clips) / pixels
    variance = sum(clip.reference[1] for clip in clips) / pixels - mean**2
    scale = max(math.sqrt(max(variance, 0.0)), float(np.finfo(np.float32).tiny))
    error = math.sqrt(sum(clip.squares for clip in clips) / pixels) / scale
    finite = math.isfinite(error)
    worst = min(clips, key=lambda clip: clip.miou)
    return Agreement(
        clips=len(clips),
        logit_error=min(error, _NOT_FINITE),
        largest=min(max(clip.largest for clip in clips), _NOT_FINITE),
        miou=float(np.mean([clip.miou for clip in clips])),
        flipped=sum(clip.flipped for clip in clips) / pixels,
        worst=(worst.name, worst.miou),
        finite=finite,
    )
