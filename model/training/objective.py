"""The losses of both publications and the weighted sum that training minimises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.avs_bg import AvsBg, AvsBgStages
from avsbg.model.avsbench import AvsBench, AvsBenchStages
from avsbg.model.training.data import normalise
from avsbg.model.training.layout import Task
from avsbg.model.visual_to_audio import latent_loss

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


def _mean_under(mask: Tensor, stage: Tensor) -> Tensor:
    """The mean over the pixels whose probability exceeds 0.5; no gradient reaches the mask."""
    mask = (mask > 0.5).to(stage.dtype)
    return (stage * mask).sum(dim=(2, 3)) / (mask.sum(dim=(2, 3)) + 1e-6)


def _features_and_sounds(
    logits: Tensor,
    stages: Sequence[Tensor],
    audio: Sequence[Tensor],
    unit: bool,
    *,
    pooling: str = "avg",
    threshold: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each stage's features averaged under the predicted mask, and its sound, `[N, C]` both.

    The logits are pooled to the stage's size before the sigmoid. All h * w pixels are weighed by the probability; with
    `threshold`, those above 0.5 count alone.
    """
    for stage, sound in zip(stages, audio, strict=True):
        mask = torch.sigmoid(_pool(logits, stage.shape[-2:], pooling))
        features = _mean_under(mask, stage) if threshold else (stage * mask).mean(dim=(2, 3))
        yield (F.normalize(features, dim=1), F.normalize(sound, dim=1)) if unit else (features, sound)


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

    Logits are `[N, H, W]`, features `[N, C, h, w]` of each stage (AVS-BG: `fused`; AVSBench: `attended` after a ReLU),
    sounds `[N, C]` for each stage. `unit` scales both to unit length first (AVS-BG: yes; AVSBench as published: no). Of
    the other variants in AVSBench's code, both publications use the defaults.
    """
    pairs = _features_and_sounds(logits, stages, audio, unit, pooling=pooling, threshold=threshold)
    return torch.stack([_distance(features, target, distance) for features, target in pairs]).mean()


def closest_sound_loss(
    logits: Tensor,
    stages: Sequence[Tensor],
    audio: Sequence[Tensor],
    *,
    unit: bool = True,
    distance: Literal["kl", "euclidean"] = "kl",
) -> Tensor:
    """Draw frames that sound alike together: each frame's masked features towards those of the frame with the closest
    sound (AVSBench's code; neither publication trains with it). Arguments and result: as of `audio_visual_loss`.
    """
    losses = []
    for features, sound in _features_and_sounds(logits, stages, audio, unit):
        apart = torch.cdist(sound, sound) + 10.0 * torch.eye(len(sound), device=sound.device)
        losses.append(_distance(features, features[apart.argmin(dim=1)], distance))
    return torch.stack(losses).mean()


def cosine_alignment_loss(logits: Tensor, stages: Sequence[Tensor], audio: Sequence[Tensor]) -> Tensor:
    """Minus the logarithm of the cosine between sound and masked features (AVSBench's code for S4, switched off there).

    The mask here is the sigmoid pooled to the stage's size and cut at 0.5: the other way round than elsewhere.
    Arguments: as of `audio_visual_loss`, the stages rectified. The mean over the frames, averaged over the stages.
    """
    losses = []
    for stage, sound in zip(stages, audio, strict=True):
        features = _mean_under(_pool(torch.sigmoid(logits), stage.shape[-2:], "avg"), stage)
        cosine = F.cosine_similarity(sound, features, dim=1)
        losses.append(-torch.log(F.relu(cosine) + 1e-6).mean())
    return torch.stack(losses).mean()


@dataclass(frozen=True)
class LossWeights:
    """Of the terms beside the supervision (AVS-BG, equation 5)."""

    audio_visual: float  # lambda; both publications use 0 on S4 and 0.5 on MS3
    latent: float = 1.0  # eta; 1 in AVS-BG


@dataclass(frozen=True)
class LossTerms:
    """Scalars of one batch; a term whose weight is 0, or that the variant lacks, is 0 and costs nothing."""

    supervision: Tensor
    audio_visual: Tensor
    latent: Tensor
    weights: LossWeights

    @property
    def total(self) -> Tensor:
        """The training loss."""
        return self.share_of_batch(1.0)

    def share_of_batch(self, share: float) -> Tensor:
        """The part of a batch's loss that comes from clips that are `share` of it; the parts add up to the loss.

        Supervision and latent term are means over the frames, the audio-visual term is a sum.
        """
        if not share:
            return 0.0 * (self.supervision + self.audio_visual + self.latent)
        means = self.supervision + self.weights.latent * self.latent
        return share * means + self.weights.audio_visual * self.audio_visual


def loss_terms(
    network: AvsBg | AvsBench,
    stages: AvsBgStages | AvsBenchStages,
    embedding: Tensor,
    masks: Tensor,
    *,
    task: Task,
    weights: LossWeights,
) -> LossTerms:
    """The training loss of either network, in fp32 whatever the precision of the stages.

    Args:
        network: one without sound has no audio-visual term, one without bidirectional generation no latent term.
        embedding: audio embeddings `[B, T, 128]`, as the network was given them.
        masks: `[B, T, H, W]`, or `[B, 1, H, W]` where only the first frame is annotated (training on S4).
        task: `s4` supervises the first frame of each clip, `ms3` all of them.
    """
    logits = stages.logits.float().flatten(0, 1)  # [N, H, W]
    supervise = structure_loss if isinstance(stages, AvsBgStages) else cross_entropy
    if task == "s4":
        supervision = supervise(stages.logits[:, 0].float(), masks[:, 0])
    else:
        supervision = supervise(logits, masks.flatten(0, 1))

    audio_visual = latent = supervision.new_zeros(())
    if network.variant.audio and weights.audio_visual:
        if isinstance(stages, AvsBgStages):
            fused = [stage.float() for stage in stages.fused]
            audio_visual = audio_visual_loss(logits, fused, [stages.audio.float()] * len(fused), unit=True)
        else:
            attended = [F.relu(stage.float()) for stage in stages.attended]
            sound = [audio.float().flatten(0, 1) for audio in stages.audio]
            audio_visual = audio_visual_loss(logits, attended, sound, unit=False)
    if network.visual_to_audio is not None and weights.latent:
        features = stages.correlated[3] if isinstance(stages, AvsBgStages) else stages.attended[3]
        # S4 has no masks for the later frames: the network's own raw logits stand in, and learn from this loss too.
        mask = logits if task == "s4" else masks.flatten(0, 1)
        generated = network.visual_to_audio(features.float(), mask[:, None])
        # The audio embedding is the target: detached, so that a trained encoder does not approach the projection.
        latent = latent_loss(embedding.detach().float().flatten(0, 1), generated)
    return LossTerms(supervision, audio_visual, latent, weights)


class Objective(nn.Module):
    """From a batch of clips to its loss: one module, to be wrapped as a whole for processes and mixed precision."""

    def __init__(
        self,
        network: AvsBg | AvsBench,
        audio_encoder: nn.Module,
        *,
        task: Task,
        weights: LossWeights,
        train_audio_encoder: bool = False,
        train_encoder: bool = True,
        decoded: int | None = None,
    ) -> None:
        """Wrap the network to be trained.

        Args:
            audio_encoder: log-mel `[B, T, 1, 96, 64]` to embeddings `[B, T, 128]`, e.g. a `VGGish`.
            decoded: how many frames of each clip AVS-BG decodes, from the first on, and all terms see; by default all.
        """
        super().__init__()
        self.network = network
        self.network.encoder.requires_grad_(train_encoder)
        self.audio_encoder = audio_encoder.requires_grad_(train_audio_encoder)
        self.task, self.weights, self.decoded = task, weights, decoded
        self.train_audio_encoder, self.train_encoder = train_audio_encoder, train_encoder

    def train(self, mode: bool = True) -> Objective:
        """As of any module; frozen encoders stay in evaluation mode."""
        super().train(mode)
        self.network.encoder.train(mode and self.train_encoder)
        self.audio_encoder.train(mode and self.train_audio_encoder)
        return self

    def forward(self, frames: Tensor, log_mel: Tensor, masks: Tensor) -> LossTerms:
        """Args: frames uint8 `[B, T, H, W, 3]`; log-mel `[B, T, 1, 96, 64]`; masks as in `loss_terms`."""
        with torch.set_grad_enabled(self.train_audio_encoder and torch.is_grad_enabled()):
            embedding = self.audio_encoder(log_mel)
        pixels = normalise(frames)
        stages: AvsBgStages | AvsBenchStages
        if isinstance(self.network, AvsBg):
            stages = self.network.forward_stages(pixels, embedding, decoded=self.decoded)
            embedding = embedding[:, : self.decoded]
        else:
            stages = self.network.forward_stages(pixels, embedding)
        with torch.autocast(frames.device.type, enabled=False):
            return loss_terms(self.network, stages, embedding, masks, task=self.task, weights=self.weights)
