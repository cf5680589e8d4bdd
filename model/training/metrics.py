"""mIoU and F-score as AVSBench defined them and every later publication reports them.

Both are computed over the N frames of an evaluation batch and averaged over the batches, so the figures depend on how
many clips make a batch. AVS-BG evaluates one clip at a time; AVSBench's published script takes four.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_THRESHOLDS = 255
_BETA_SQUARED = 0.3


@dataclass(frozen=True)
class Score:
    """Of one evaluation batch, or the mean over several; both in [0, 1]."""

    miou: float
    f_score: float


def frame_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """The intersection over union of each frame.

    A pixel is predicted where its probability exceeds 0.5. Where the mask is empty, the background takes the mask's
    place: a prediction without a single pixel scores 1, one that covers the frame scores 0.

    Args: logits and masks `[N, H, W]`; masks hold 0 or 1. Returns: `[N]`.
    """
    predicted, masks = torch.sigmoid(logits) > 0.5, masks > 0.5
    intersection = (predicted & masks).sum(dim=(1, 2))
    union = (predicted | masks).sum(dim=(1, 2))
    empty = ~masks.any(dim=2).any(dim=1)
    background = (~predicted & ~masks).sum(dim=(1, 2))
    pixels = torch.full_like(union, masks.shape[1] * masks.shape[2])
    intersection, union = torch.where(empty, background, intersection), torch.where(empty, pixels, union)
    return intersection / (union + 1e-7)


def mean_iou(logits: Tensor, masks: Tensor) -> float:
    """The mean of `frame_iou` over the N frames."""
    return float(frame_iou(logits, masks).mean())


def precision_recall(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Precision and recall, `[N, 255]` each, at thresholds evenly spaced over [0, 1], both ends included.

    Args: logits and masks `[N, H, W]`; masks hold 0 or 1.
    """
    probability, masks = torch.sigmoid(logits).flatten(1), masks.flatten(1)
    thresholds = torch.linspace(0.0, 1.0, _THRESHOLDS, dtype=probability.dtype, device=probability.device)
    # A pixel belongs to the prediction at every threshold up to its probability. Sorting the pixels into bins between
    # the thresholds and adding the bins up from the top counts all 255 predictions in one pass.
    bins = torch.bucketize(probability, thresholds, right=True)
    counts = torch.zeros(len(masks), _THRESHOLDS + 1, dtype=torch.float64, device=masks.device)
    predicted = counts.scatter_add(1, bins, torch.ones_like(probability, dtype=torch.float64))
    hit = counts.scatter_add(1, bins, masks.to(torch.float64))
    predicted, hit = (t.flip(1).cumsum(1).flip(1)[:, 1:] for t in (predicted, hit))
    positives = masks.sum(dim=1, keepdim=True, dtype=torch.float64)
    return (hit / (predicted + 1e-20)).float(), (hit / (positives + 1e-20)).float()


def f_score(logits: Tensor, masks: Tensor) -> float:
    """The F-measure with beta squared 0.3, at the threshold that suits these frames best.

    The F-measures of the frames are averaged at each threshold and the largest of the 255 averages is taken. Frames
    with an empty mask do not count; if all are empty, the score is 0. Arguments: as of `frame_iou`.
    """
    sounding = masks.flatten(1).any(dim=1)
    if not sounding.any():
        return 0.0
    precision, recall = precision_recall(logits[sounding], masks[sounding])
    scores = (1.0 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)
    return float(scores.nan_to_num(0.0).mean(dim=0).max())


def score(logits: Tensor, masks: Tensor) -> Score:
    """mIoU and F-score of one evaluation batch, `[N, H, W]` each."""
    return Score(mean_iou(logits, masks), f_score(logits, masks))


def mean_score(scores: Iterable[Score]) -> Score:
    """The published figure of a run: the arithmetic mean over its batches; a ValueError if there are none."""
    scores = list(scores)
    if not scores:
        raise ValueError("no scores to average")
    return Score(sum(s.miou for s in scores) / len(scores), sum(s.f_score for s in scores) / len(scores))


@dataclass(frozen=True)
class ClassScore:
    """IoU and F-score of each class over frames, as AVSS defines them, and their means over all classes."""

    iou: Tensor  # [classes], 0 for a class that occurs nowhere, as `f_score`
    f_score: Tensor  # [classes]
    frames: Tensor  # [classes], in which a class was annotated or predicted

    @property
    def mean(self) -> Score:
        """mIoU and F-score over all classes, those that occur nowhere and the background among them."""
        return Score(float(self.iou.mean()), float(self.f_score.mean()))

    @property
    def occurring(self) -> Score:
        """mIoU and F-score over the classes that occur."""
        return Score(float(self.iou[self.frames > 0].mean()), float(self.f_score[self.frames > 0].mean()))


def class_scores(predicted: Tensor, annotated: Tensor, classes: int) -> ClassScore:
    """Score classes as AVSS does: by frame, and for each class over the frames that it occurs in.

    A class occurs in a frame where it is annotated or predicted. Its IoU and its F-measure (beta squared 0.3; 0 where
    nothing is right) are averaged over those frames. AVSS's script also prints means "without background", which leave
    out the last class.

    Args: predicted and annotated `[N, H, W]`, numbers of classes below `classes`.
    """
    frame = torch.arange(len(predicted), device=predicted.device)[:, None] * classes
    predicted, annotated = predicted.flatten(1).long(), annotated.flatten(1).long()

    def count(numbers: Tensor, of: Tensor) -> Tensor:
        return torch.bincount((numbers + frame)[of], minlength=frame.numel() * classes).reshape(-1, classes).double()

    everywhere = torch.ones_like(predicted, dtype=torch.bool)
    both = count(predicted, predicted == annotated)
    ours, theirs = count(predicted, everywhere), count(annotated, everywhere)
    either = ours + theirs - both
    precision, recall = both / ours, both / theirs
    f_measure = (1.0 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)
    frames = (either > 0).sum(dim=0)
    iou, f = ((one.nan_to_num(0.0).sum(dim=0) / frames.clamp(min=1)).float() for one in (both / either, f_measure))
    return ClassScore(iou, f, frames)


def join_class_scores(scores: Iterable[ClassScore]) -> ClassScore:
    """The scores over all frames that several were made of; a `ValueError` if there are none."""
    scores = list(scores)
    if not scores:
        raise ValueError("no scores to join")
    frames = torch.stack([one.frames for one in scores]).sum(dim=0)

    def joined(name: str) -> Tensor:
        sums = torch.stack([getattr(one, name).double() * one.frames for one in scores]).sum(dim=0)
        return (sums / frames.clamp(min=1)).float()

    return ClassScore(joined("iou"), joined("f_score"), frames)


def background_score(frames: int, classes: int) -> ClassScore:
    """The score of frames that are background, in the prediction and in the annotation."""
    first = torch.zeros(classes)
    first[0] = 1.0
    return ClassScore(first, first, frames * first.long())
