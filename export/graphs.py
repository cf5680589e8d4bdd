"""What a graph computes around the network: raw frames and one form of sound in, logits and probabilities out.

Normalisation, log-mel and the audio encoder are part of the graph, so that a device needs no signal processing of its
own and cannot get it wrong.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from avsbg.export.shape import ClipShape
from avsbg.model.audio import AudioEncoder, CompactAudioEncoder, VGGish
from avsbg.model.avs_bg import AvsBg
from avsbg.model.avsbench import AvsBench
from avsbg.model.clips import AUDIO_WIDTH
from avsbg.model.front_end import BANDS, PATCH_FRAMES, SAMPLE_RATE, LogMel
from avsbg.model.variants import Variant
from avsbg.runtime.bundle.manifest import PreprocessingRecord

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


def needs_audio_encoder(variant: Variant, audio: AudioForm) -> bool:
    """Whether an audio encoder (VGGish, or the compact one) is part of a variant's graph."""
    return variant.audio and audio is not AudioForm.EMBEDDING


class ClipGraph(nn.Module):
    """A network with everything that precedes and follows it in an exported graph.

    Attributes:
        BATCH: the name of the one dynamic dimension.
        outputs: the names of what `forward` returns.
    """

    BATCH: ClassVar[str] = "clips"
    outputs: tuple[str, ...] = OUTPUTS
    scale: Tensor
    offset: Tensor

    def __init__(self, network: AvsBg | AvsBench, audio: AudioForm, audio_encoder: AudioEncoder | None = None) -> None:
        """Wrap `network`.

        Args:
            network: as `avsbg.model.create_network` makes it.
            audio: the form in which the graph takes sound. A variant without audio takes it too, and ignores it.
            audio_encoder: the one the network was trained with; needed where `needs_audio_encoder` says so.

        Raises:
            ValueError: an audio encoder is needed and none is given.
        """
        super().__init__()
        needed = needs_audio_encoder(network.variant, audio)
        if needed and audio_encoder is None:
            raise ValueError(f"the audio form {audio.value} needs an audio encoder")
        self.network = network
        self.audio = audio
        uses_audio = network.variant.audio
        self.log_mel = LogMel() if uses_audio and audio is AudioForm.WAVEFORM else None
        # Two names, so that an exported weight's name says which encoder it belongs to.
        self.vggish = audio_encoder if needed and isinstance(audio_encoder, VGGish) else None
        self.compact_audio = audio_encoder if needed and isinstance(audio_encoder, CompactAudioEncoder) else None
        preprocessing = PreprocessingRecord()
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        # (frames * scale - mean) / std as one multiplication and one addition.
        self.register_buffer("scale", preprocessing.scale / std, persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)
        self.eval()

    @property
    def audio_encoder(self) -> AudioEncoder | None:
        """The audio encoder that is part of the graph."""
        return self.compact_audio if self.vggish is None else self.vggish

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
        if self.audio_encoder is not None:
            sound = self.audio_encoder(sound)
        return normalised, sound

    def forward(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Args: as `network_inputs`. Returns: logits and probabilities, float32 `[B, T, H, W]`."""
        logits = self.network(*self.network_inputs(frames, sound))
        return logits, torch.sigmoid(logits)

    def example(self, shape: ClipShape) -> dict[str, Tensor]:
        """Inputs by which PyTorch traces the graph. Two clips: a dynamic size of 1 would be taken for a constant."""
        frames = torch.zeros(2, shape.frames, shape.height, shape.width, 3, dtype=torch.uint8)
        return {"frames": frames, self.audio.value: torch.zeros(2, *self.audio.shape(shape.frames))}

    def dynamic_shapes(self, batch: dict[int, Any]) -> tuple[Any, ...]:
        """`batch` for each argument of `forward`, as `torch.export` wants it."""
        return (batch, batch)
