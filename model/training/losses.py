"""The losses of AVS-BG (arXiv 2308.08288) and AVSBench (arXiv 2207.05042), as their released code computes them.

Rows are frames, clip-major: N = B * T. Logits and masks are `[N, H, W]`, masks hold 0 or 1. Every loss is a scalar.
The latent loss of the bidirectional generation lives beside its projection, in `avsbg.model.visual_to_audio`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

_BOUNDARY_WINDOW = 31
_SMOOTHING = 0.001  # of AVS-BG's BCE targets: 0 -> 0.0005, 1 -> 0.9995


def structure_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """AVS-BG's supervision: cross-entropy with smoothed targets, plus an IoU that weighs boundaries.

    A pixel's weight in the IoU is 1 + 5 |mean of the mask in its 31 x 31 window - mask|. The released code multiplies
    the cross-entropy by these weights and divides by them again after averaging, so there they cancel.
    """
    logits, masks = logits[:, None], masks[:, None]
    entropy = F.binary_cross_entropy_with_logits(logits, (1.0 - _SMOOTHING) * masks + 0.5 * _SMOOTHING)
    # Padding counts as background: the divisor is 31 * 31 at the border too.
    side, margin = _BOUNDARY_WINDOW, _BOUNDARY_WINDOW // 2
    rows = F.avg_pool2d(masks, (1, side), stride=1, padding=(0, margin))  # a mean of means: fewer additions
    local_mean = F.avg_pool2d(rows, (side, 1), stride=1, padding=(margin, 0))
    weight = 1.0 + 5.0 * (local_mean - masks).abs()
    probability = torch.sigmoid(logits)
    intersection = (weight * probability * masks).sum(dim=(1, 2, 3))
    union = (weight * (probability + masks)).sum(dim=(1, 2, 3))
    soft_iou = (intersection + 1.0) / (union - intersection + 1.0)
    return (entropy + 1.0 - soft_iou).mean()


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """AVSBench's supervision: the mean binary cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits, masks)


def _pool(logits: Tensor, size: Sequence[int], pooling: str) -> Tensor:
    pool = F.adaptive_max_pool2d if pooling == "max" else F.adaptive_avg_pool2d
    pooled: Tensor = pool(logits[:, None], (size[0], size[1]))
    return pooled


def masked_features(
    logits: Tensor, stage: Tensor, *, pooling: Literal["avg", "max"] = "avg", threshold: bool = False
) -> Tensor:
    """What a stage sees where the network predicts sound: its features averaged under the predicted mask.

    Args:
        logits: `[N, H, W]`; pooled to the stage's size before the sigmoid.
        stage: `[N, C, h, w]`.
        pooling: how the logits are pooled.
        threshold: take the pixels above 0.5 and divide by their number, instead of weighing all h * w pixels by the
            probability. No gradient reaches the logits then.

    Returns:
        `[N, C]`.
    """
    mask = torch.sigmoid(_pool(logits, stage.shape[-2:], pooling))
    if threshold:
        mask = (mask > 0.5).to(stage.dtype)
        return (stage * mask).sum(dim=(2, 3)) / (mask.sum(dim=(2, 3)) + 1e-6)
    return (stage * mask).mean(dim=(2, 3))


def _distance(features: Tensor, target: Tensor, kind: str) -> Tensor:
    """Between rows `[N, C]`: mean Euclidean distance, or the KL divergence summed (not averaged) over the rows."""
    if kind == "euclidean":
        return F.pairwise_distance(target, features).mean()
    return F.kl_div(F.log_softmax(features, dim=1), F.softmax(target, dim=1), reduction="sum")


def audio_visual_loss(
    logits: Tensor,
    stages: Sequence[Tensor],
    audio: Sequence[Tensor],
    *,
    unit: bool,
    distance: Literal["kl", "euclidean"] = "kl",
    pooling: Literal["avg", "max"] = "avg",
    threshold: bool = False,
) -> Tensor:
    """Draw the features under the predicted mask towards the sound (AVS-BG, equation 3; AVSBench, equation 4).

    The KL divergence runs from the sound's softmax to the features', summed over the rows, so that it grows with the
    batch: both releases do that.

    Args:
        logits: `[N, H, W]`.
        stages: features `[N, C, h, w]` of each stage. AVS-BG: `fused`; AVSBench: `attended` after a ReLU.
        audio: `[N, C]` for each stage.
        unit: whether features and sound are scaled to unit length first (AVS-BG: yes; AVSBench as published: no).
        distance, pooling, threshold: variants in AVSBench's code; both publications use the defaults.

    Returns:
        the mean over the stages.
    """
    losses = []
    for stage, sound in zip(stages, audio, strict=True):
        features = masked_features(logits, stage, pooling=pooling, threshold=threshold)
        target = sound
        if unit:
            features, target = F.normalize(features, dim=1), F.normalize(target, dim=1)
        losses.append(_distance(features, target, distance))
    return torch.stack(losses).mean()


def closest_sound_loss(
    logits: Tensor,
    stages: Sequence[Tensor],
    audio: Sequence[Tensor],
    *,
    unit: bool = True,
    distance: Literal["kl", "euclidean"] = "kl",
) -> Tensor:
    """Draw frames that sound alike together: each frame's masked features towards those of the frame with the closest
    sound (AVSBench's code; neither publication trains with it).

    Args and returns: as `audio_visual_loss`.
    """
    losses = []
    for stage, sound in zip(stages, audio, strict=True):
        features, target = masked_features(logits, stage), sound
        if unit:
            features, target = F.normalize(features, dim=1), F.normalize(target, dim=1)
        apart = torch.cdist(target, target) + 10.0 * torch.eye(len(target), device=target.device)
        losses.append(_distance(features, features[apart.argmin(dim=1)], distance))
    return torch.stack(losses).mean()


def cosine_alignment_loss(logits: Tensor, stages: Sequence[Tensor], audio: Sequence[Tensor]) -> Tensor:
    """Minus the logarithm of the cosine between sound and masked features (AVSBench's code for S4, switched off there).

    The mask here is the sigmoid pooled to the stage's size and cut at 0.5: the other way round than elsewhere.

    Args:
        logits: `[N, H, W]`. stages: `[N, C, h, w]` each, rectified. audio: `[N, C]` each.

    Returns:
        the mean over the frames, averaged over the stages.
    """
    losses = []
    for stage, sound in zip(stages, audio, strict=True):
        mask = (_pool(torch.sigmoid(logits), stage.shape[-2:], "avg") > 0.5).to(stage.dtype)
        features = (stage * mask).sum(dim=(2, 3)) / (mask.sum(dim=(2, 3)) + 1e-6)
        cosine = F.cosine_similarity(sound, features, dim=1)
        losses.append(-torch.log(F.relu(cosine) + 1e-6).mean())
    return torch.stack(losses).mean()
