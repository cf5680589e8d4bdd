"""Networks in PyTorch as predictors for `avsbg.model.training.evaluation`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from avsbg.model import AudioEncoderName, Variant, build, create_audio_encoder, load_checkpoint
from avsbg.model.avs_bg import AvsBg
from avsbg.model.avsbench import AvsBench
from avsbg.model.training.data import Sample
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.evaluation import Predict
from avsbg.model.training.initialization import Silence
from avsbg.model.training.transforms import normalise


def network_predictor(network: AvsBg | AvsBench, audio_encoder: nn.Module, device: torch.device) -> Predict:
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
    """Predict with the weights of checkpoints.

    Args:
        variant: the network.
        weights: its checkpoint.
        audio_encoder: which one the network was trained with.
        audio_weights: that one's checkpoint; None for a network without sound.
        device: where PyTorch runs.

    Raises:
        TrainingError: the network needs a file that is not given, or the other way round.
        CheckpointError: a file cannot be read or does not fit.
    """
    if variant.audio and audio_weights is None:
        raise TrainingError(
            f"the network hears through {audio_encoder}, whose weights are not given.", "Give them with --vggish."
        )
    if not variant.audio and audio_weights is not None:
        raise TrainingError(f"the network does not hear, so it has no use for {audio_weights}.", "Leave it out.")
    network = build(variant)
    load_checkpoint(network, weights)
    audio: nn.Module = Silence()
    if audio_weights is not None:
        audio = create_audio_encoder(audio_encoder)
        load_checkpoint(audio, audio_weights)
    return network_predictor(network.to(device).eval(), audio.to(device).eval(), device)
