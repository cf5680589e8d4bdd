"""What training minimises: supervision, the audio-visual term and the latent term, weighed as the publications do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.avs_bg import AvsBg, AvsBgStages
from avsbg.model.avsbench import AvsBench, AvsBenchStages
from avsbg.model.training.layout import Task
from avsbg.model.training.losses import audio_visual_loss, cross_entropy, structure_loss
from avsbg.model.training.transforms import normalise
from avsbg.model.visual_to_audio import latent_loss


@dataclass(frozen=True)
class LossWeights:
    """Of the terms beside the supervision (AVS-BG, equation 5).

    Attributes:
        audio_visual: lambda; both publications use 0 on S4 and 0.5 on MS3.
        latent: eta; 1 in AVS-BG.
    """

    audio_visual: float
    latent: float = 1.0


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
        """What clips that are `share` of a batch contribute to the batch's loss, so that the parts add up to it.

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
        network: with its variant; one without sound has no audio-visual term, one without bidirectional generation no
            latent term.
        stages: of the network's `forward_stages`.
        embedding: audio embeddings `[B, T, 128]`, as the network was given them.
        masks: `[B, T, H, W]`, or `[B, 1, H, W]` where only the first frame is annotated (training on S4).
        task: `s4` supervises the first frame of each clip, `ms3` all of them.
        weights: of the terms.
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
            heard = [audio.float().flatten(0, 1) for audio in stages.audio]
            audio_visual = audio_visual_loss(logits, attended, heard, unit=False)
    if network.visual_to_audio is not None and weights.latent:
        features = stages.correlated[3] if isinstance(stages, AvsBgStages) else stages.attended[3]
        # S4 has no masks for the later frames: the network's own raw logits stand in, and learn from this loss too.
        mask = logits if task == "s4" else masks.flatten(0, 1)
        generated = network.visual_to_audio(features.float(), mask[:, None])
        # What was heard is the target. VGGish is frozen; a trained audio encoder must not come to meet the projection.
        latent = latent_loss(embedding.detach().float().flatten(0, 1), generated)
    return LossTerms(supervision, audio_visual, latent, weights)


class Objective(nn.Module):
    """From a batch of clips to its loss: the audio encoder, the network and the terms as one module.

    Being one module, it can be wrapped as a whole for several processes or for mixed precision.
    """

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
        """Wrap.

        Args:
            network: to be trained.
            audio_encoder: log-mel `[B, T, 1, 96, 64]` to embeddings `[B, T, 128]`, e.g. a `VGGish`.
            task, weights: see `loss_terms`.
            train_audio_encoder: whether its weights are trained too; both publications freeze VGGish.
            train_encoder: whether the visual encoder is trained; both publications do.
            decoded: how many frames of each clip AVS-BG decodes, from the first on, and all terms see; by default all.
        """
        super().__init__()
        self.network = network
        self.network.encoder.requires_grad_(train_encoder)
        self.audio_encoder = audio_encoder.requires_grad_(train_audio_encoder)
        self.task = task
        self.weights = weights
        self.train_audio_encoder = train_audio_encoder
        self.train_encoder = train_encoder
        self.decoded = decoded

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
