"""What a graph computes around the network: raw frames and one form of sound in, logits and probabilities out.

Normalisation, log-mel and VGGish are part of the graph, so that a device needs no signal processing of its own and
cannot get it wrong.
"""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor, nn

from avsbg.model.avs_bg import AvsBg
from avsbg.model.avsbench import AvsBench
from avsbg.model.clips import AUDIO_WIDTH
from avsbg.model.front_end import BANDS, PATCH_FRAMES, SAMPLE_RATE, LogMel
from avsbg.model.variants import Variant
from avsbg.model.vggish import VGGish
from avsbg.runtime.manifest import PreprocessingRecord

OUTPUTS = ("logits", "probability")


class AudioForm(Enum):
    """A form in which a graph takes the sound of a clip; the value is the input's name and the manifest's word."""

    WAVEFORM = "waveform"
    LOG_MEL = "log_mel"
    EMBEDDING = "audio_embedding"

    def shape(self, frames: int) -> tuple[int, ...]:
        """The shape of one clip's sound, without the leading number of clips."""
        return {
            AudioForm.WAVEFORM: (frames * SAMPLE_RATE,),
            AudioForm.LOG_MEL: (frames, 1, PATCH_FRAMES, BANDS),
            AudioForm.EMBEDDING: (frames, AUDIO_WIDTH),
        }[self]


def needs_vggish(variant: Variant, audio: AudioForm) -> bool:
    """Whether VGGish is part of a variant's graph."""
    return variant.audio and audio is not AudioForm.EMBEDDING


class ClipGraph(nn.Module):
    """A network with everything that precedes and follows it in an exported graph."""

    scale: Tensor
    offset: Tensor

    def __init__(self, network: AvsBg | AvsBench, audio: AudioForm, vggish: VGGish | None = None) -> None:
        """Wrap `network`.

        Args:
            network: as `avsbg.model.create_network` makes it.
            audio: the form in which the graph takes sound. A variant without audio takes it too, and ignores it.
            vggish: needed where `needs_vggish` says so.

        Raises:
            ValueError: a VGGish is needed and none is given.
        """
        super().__init__()
        if needs_vggish(network.variant, audio) and vggish is None:
            raise ValueError(f"the audio form {audio.value} needs a VGGish")
        self.network = network
        self.audio = audio
        listens = network.variant.audio
        self.log_mel = LogMel() if listens and audio is AudioForm.WAVEFORM else None
        self.vggish = vggish if needs_vggish(network.variant, audio) else None
        preprocessing = PreprocessingRecord()
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        # (frames * scale - mean) / std as one multiplication and one addition.
        self.register_buffer("scale", preprocessing.scale / std, persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)
        self.eval()

    def network_inputs(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """The graph's inputs as the network takes them.

        Args:
            frames: uint8 `[B, T, H, W, 3]`, RGB.
            sound: float32, `[B, *AudioForm.shape(T)]`.

        Returns:
            normalised frames `[B, T, 3, H, W]` and audio embeddings `[B, T, 128]`.
        """
        # TensorRT's parser knows no operation on uint8 but the cast to float.
        normalised = (frames.to(torch.float32) * self.scale + self.offset).permute(0, 1, 4, 2, 3)
        if not self.network.variant.audio:
            return normalised, torch.zeros(*frames.shape[:2], AUDIO_WIDTH, device=frames.device)
        if self.log_mel is not None:
            sound = self.log_mel(sound, patches=frames.shape[1])
        if self.vggish is not None:
            sound = self.vggish(sound)
        return normalised, sound

    def forward(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Args: as `network_inputs`. Returns: logits and probabilities, float32 `[B, T, H, W]`."""
        logits = self.network(*self.network_inputs(frames, sound))
        return logits, torch.sigmoid(logits)
