"""Scores of classes: AVSS's definition, frame by frame and class by class, against a direct count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avsbg.model.training.metrics import class_scores


def _direct(predicted, annotated, classes):
    iou, f_score, frames = np.zeros(classes), np.zeros(classes), np.zeros(classes, int)
    for ours, theirs in zip(predicted, annotated, strict=True):
        for number in range(classes):
            a, b = ours == number, theirs == number
            if not (a | b).any():
                continue
            frames[number] += 1
            hit = (a & b).sum()
            iou[number] += hit / (a | b).sum()
            if hit:
                precision, recall = hit / a.sum(), hit / b.sum()
                f_score[number] += 1.3 * precision * recall / (0.3 * precision + recall)
    return iou / np.maximum(frames, 1), f_score / np.maximum(frames, 1), frames


def test_scores_are_those_of_a_direct_count():
    random = np.random.default_rng(0)
    annotated = random.integers(0, 5, (4, 6, 8))
    predicted = np.where(random.random(annotated.shape) < 0.6, annotated, random.integers(0, 6, annotated.shape))
    predicted[2], annotated[2] = 0, 0  # a frame without sound
    found = class_scores(torch.from_numpy(predicted), torch.from_numpy(annotated), 8)
    iou, f_score, frames = _direct(predicted, annotated, 8)
    np.testing.assert_allclose(found.iou, iou, atol=1e-6)
    np.testing.assert_allclose(found.f_score, f_score, atol=1e-6)
    assert found.frames.tolist() == frames.tolist()
    assert frames[6] == frames[7] == 0
    assert found.mean.miou == pytest.approx(iou.mean(), abs=1e-6)  # classes that occur nowhere count as 0


def test_a_class_that_is_predicted_and_not_annotated_counts_its_frame():
    annotated = torch.zeros(2, 2, 2, dtype=torch.long)
    predicted = annotated.clone()
    predicted[0, 0, 0] = 1
    found = class_scores(predicted, annotated, 3)
    assert found.iou.tolist() == pytest.approx([(0.75 + 1) / 2, 0, 0])
    assert found.frames.tolist() == [2, 1, 0]
