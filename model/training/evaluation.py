"""Scoring whatever predicts masks against a split of AVSBench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from avsbg.model.training.data import AvsBenchDataset, Sample
from avsbg.model.training.metrics import Score, mean_score, score

Predict = Callable[[Sample], Tensor]
"""A clip to its logits `[5, H, W]`."""


@dataclass(frozen=True)
class ClipScore:
    """Of one clip."""

    name: str
    score: Score


@dataclass(frozen=True)
class Evaluation:
    """The scores of a split.

    Attributes:
        clips: in the split's order.
        per_clip: the mean over the clips, as AVS-BG's published figures (one clip per evaluation batch).
        per_batch: the mean over batches of `batch` clips scored together, as AVSBench's script does with four; the
            F-score's threshold is then one for all clips of the batch.
        batch: clips per batch of `per_batch`.
    """

    clips: list[ClipScore]
    per_clip: Score
    per_batch: Score
    batch: int


def _annotated_logits(sample: Sample, predict: Predict) -> Tensor:
    return predict(sample)[: len(sample.masks)].float().cpu()


def score_clip(sample: Sample, predict: Predict) -> ClipScore:
    """Score `predict` on one clip; frames without annotation (the later ones of S4's training split) do not count."""
    return ClipScore(sample.clip.name, score(_annotated_logits(sample, predict), sample.masks))


def evaluate(
    dataset: AvsBenchDataset, predict: Predict, *, batch: int = 4, advance: Callable[[], None] = lambda: None
) -> Evaluation:
    """Score `predict` on every clip of a split, as `score_clip`.

    Args:
        dataset: the split.
        predict: see `Predict`.
        batch: clips per batch of `per_batch`.
        advance: called after each clip.
    """
    clips, batches = [], []
    logits: list[Tensor] = []
    masks: list[Tensor] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        logits.append(_annotated_logits(sample, predict))
        masks.append(sample.masks)
        clips.append(ClipScore(sample.clip.name, score(logits[-1], masks[-1])))
        if len(logits) == batch or index == len(dataset) - 1:
            batches.append(score(torch.cat(logits), torch.cat(masks)))
            logits, masks = [], []
        advance()
    return Evaluation(clips, mean_score(clip.score for clip in clips), mean_score(batches), batch)
