"""The audio encoders by name: what makes a network's embedding of each second of sound."""

from __future__ import annotations

from typing import Literal, TypeAlias

from avsbg.model.compact_audio import CompactAudioEncoder
from avsbg.model.vggish import VGGish

AudioEncoderName = Literal["vggish", "compact"]
AudioEncoder: TypeAlias = VGGish | CompactAudioEncoder


def create_audio_encoder(name: AudioEncoderName) -> AudioEncoder:
    """Build `vggish`, as published, or `compact`, in evaluation mode; log-mel `[B, T, 1, 96, 64]` to `[B, T, 128]`."""
    encoder: AudioEncoder = VGGish() if name == "vggish" else CompactAudioEncoder()
    return encoder.eval()
