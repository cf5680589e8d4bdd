"""Scoring of predictors against a split of AVSBench, and networks in PyTorch as predictors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avsbg.model import AudioEncoderName, Variant, build, create_audio_encoder, load_checkpoint
from avsbg.model.audio import ZeroAudioEncoder
from avsbg.model.avss import LABELS
from avsbg.model.network import Network
from avsbg.model.training import avss_data
from avsbg.model.training.avss_data import AvssDataset
from avsbg.model.training.data import AvsBenchDataset, Sample, normalise
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.metrics import (
    ClassScore,
    Score,
    background_score,
    class_scores,
    join_class_scores,
    mean_score,
    score,
)

Predict = Callable[[Sample], Tensor]
"""A clip to its logits `[T, H, W]`, of several classes `[T, classes, H, W]`."""


@dataclass(frozen=True)
class ClipScore:
    """The score of one clip, by its name."""

    name: str
    score: Score


@dataclass(frozen=True)
class Evaluation:
    """The scores of a split; its clips in their order."""

    clips: list[ClipScore]
    per_clip: Score  # the mean over the clips, as AVS-BG's published figures (one clip per evaluation batch)
    # The mean over batches of `batch` clips scored together, as AVSBench's script does with four; the F-score's
    # threshold is then one for all clips of the batch.
    per_batch: Score
    batch: int


def score_clip(sample: Sample, predict: Predict) -> Score:
    """Score `predict` on one clip; frames without annotation (the later ones of S4's training split) do not count."""
    return score(_annotated_logits(sample, predict), sample.masks)


def evaluate(
    dataset: AvsBenchDataset, predict: Predict, *, batch: int = 4, advance: Callable[[], None] = lambda: None
) -> Evaluation:
    """Score `predict` on every clip of a split, as `score_clip`; `advance` is called after each clip."""
    clips, batches = [], []
    for start in range(0, len(dataset), batch):
        logits, masks = [], []
        for index in range(start, min(start + batch, len(dataset))):
            sample = dataset[index]
            logits.append(_annotated_logits(sample, predict))
            masks.append(sample.masks)
            clips.append(ClipScore(sample.clip.name, score(logits[-1], masks[-1])))
            advance()
        batches.append(score(torch.cat(logits), torch.cat(masks)))
    return Evaluation(clips, mean_score(clip.score for clip in clips), mean_score(batches), batch)


@dataclass(frozen=True)
class ClassEvaluation:
    """The scores of classes over a split of AVSS.

    `published` is as the released script counts: it fills clips of five seconds up to ten with black frames, in which
    prediction and annotation are background. `present` is without those.
    """

    published: ClassScore
    present: ClassScore
    clips: list[tuple[str, ClassScore]]  # of the frames that are there


def evaluate_classes(
    dataset: AvssDataset, predict: Predict, *, advance: Callable[[], None] = lambda: None
) -> ClassEvaluation:
    """Score the classes of `predict` on every clip of a split; `advance` is called after each clip.

    A `TrainingError` if the network does not predict the data's classes.
    """
    clips, absent, classes = [], 0, len(LABELS)
    for index in range(len(dataset)):
        sample = dataset[index]
        logits = _annotated_logits(sample, predict)
        if logits.dim() != 4 or logits.shape[1] != classes:
            found = logits.shape[1] if logits.dim() == 4 else 1
            hint = "Take a network with them: avsbg export avsegformer --classes 71."
            raise TrainingError(f"AVSS has {classes} classes, and the network predicts {found}.", hint)
        clips.append((sample.clip.name, class_scores(logits.argmax(dim=1), sample.masks, classes)))
        absent += avss_data.FRAMES - len(sample.frames)
        advance()
    present = join_class_scores(clip for _, clip in clips)
    return ClassEvaluation(join_class_scores([present, background_score(absent, classes)]), present, clips)


def _annotated_logits(sample: Sample, predict: Predict) -> Tensor:
    return predict(sample)[: len(sample.masks)].float().cpu()


def network_predictor(network: Network, audio_encoder: nn.Module, device: torch.device) -> Predict:
    """Predict with a network in PyTorch, in fp32; both modules are on `device` and in evaluation mode."""

    @torch.inference_mode()
    def predict(sample: Sample) -> Tensor:
        embedding = audio_encoder(sample.log_mel[None].to(device))
        logits: Tensor = network(normalise(sample.frames[None].to(device)), embedding)
        return logits[0]

    return predict


def checkpoint_predictor(
    variant: Variant,
    weights: Path,
    *,
    audio_encoder: AudioEncoderName,
    audio_weights: Path | None,
    device: torch.device,
) -> Predict:
    """Predict with the network's weights and those of the audio encoder (None for a network without audio).

    A `TrainingError` if a file is missing or has no use, a `CheckpointError` if one cannot be read or does not fit.
    """
    if variant.audio and audio_weights is None:
        message = f"the network uses the audio encoder {audio_encoder}, whose weights are not given."
        raise TrainingError(message, "Give them with --vggish.")
    if not variant.audio and audio_weights is not None:
        raise TrainingError(f"the network uses no audio, so it has no use for {audio_weights}.", "Leave it out.")
    network = build(variant)
    if not network.record.takes_embeddings:
        raise TrainingError(
            f"checkpoints of {variant.network} are scored as bundles.", "Export it and give the bundle."
        )
    load_checkpoint(network, weights)
    audio: nn.Module = ZeroAudioEncoder()
    if audio_weights is not None:
        audio = create_audio_encoder(audio_encoder)
        load_checkpoint(audio, audio_weights)
    return network_predictor(network.to(device).eval(), audio.to(device).eval(), device)
