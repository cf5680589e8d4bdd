"""The modules that graphs are exported from: a network with its front end, for whole clips or for a stream.

Raw frames and one form of sound go in, logits and probabilities come out. Normalisation, log-mel and the audio encoder
are part of the graph, so that a device needs no signal processing of its own and cannot get it wrong.

The graphs of a stream are two. `encode` runs once per frame. `decode` takes the features of a frame and of its partner,
the frame after it (for the last frame the one before it), and returns the frame's mask. Together they compute the clip
graph's function.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from avsbg.export.shape import ClipShape, check_streamable
from avsbg.model.audio import AudioEncoder, CompactAudioEncoder, VGGish
from avsbg.model.avs_bg import WIDTH, AvsBg
from avsbg.model.avsbench import AvsBench
from avsbg.model.clips import AUDIO_WIDTH
from avsbg.model.encoders import STAGE_STRIDES
from avsbg.model.front_end import BANDS, PATCH_FRAMES, SAMPLE_RATE, LogMel
from avsbg.model.variants import Variant
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import PreprocessingRecord
from avsbg.runtime.media.log_mel import PATCH_SAMPLES

OUTPUTS = ("logits", "probability")
FUSED = tuple(f"fused.{stage}" for stage in range(len(STAGE_STRIDES)))
PARTNER = tuple(f"partner.{stage}" for stage in range(len(STAGE_STRIDES)))


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
    """A network with everything that precedes and follows it in an exported graph."""

    BATCH: ClassVar[str] = "clips"  # the one dynamic dimension
    outputs: tuple[str, ...] = OUTPUTS  # names, in the order that `forward` returns
    scale: Tensor
    offset: Tensor

    def __init__(self, network: AvsBg | AvsBench, audio: AudioForm, audio_encoder: AudioEncoder | None = None) -> None:
        """Wrap `network`, with the form in which the graph takes sound, even if the variant ignores it.

        The audio encoder is the one that the network was trained with; a ValueError says that it is needed and missing.
        """
        super().__init__()
        needed = needs_audio_encoder(network.variant, audio)
        if needed and audio_encoder is None:
            raise ValueError(f"the audio form {audio.value} needs an audio encoder")
        self.network = network
        self.audio = audio
        self.log_mel = LogMel() if needed and audio is AudioForm.WAVEFORM else None
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

        RGB frames, uint8 `[B, T, H, W, 3]`, are normalised to `[B, T, 3, H, W]`;
        sound, float32 `[B, *AudioForm.shape(T)]`, becomes audio embeddings `[B, T, 128]`.
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


class StreamGraph(ClipGraph):
    """Either graph of a stream: the clip graph's modules, and so its weights and their names.

    The dynamic dimension counts the streams that advance together by one frame. An ExportError says if the network
    mixes all frames of a clip, so that no frame can be computed before the last.
    """

    BATCH: ClassVar[str] = "streams"
    network: AvsBg

    def __init__(self, clip: ClipGraph) -> None:
        check_streamable(clip.network.variant.network)
        super().__init__(clip.network, clip.audio, clip.audio_encoder)


class EncodeGraph(StreamGraph):
    """A frame and its second of sound to the fused features of the four stages, before the correlation attention."""

    outputs = FUSED

    def forward(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Encode frames, uint8 `[N, H, W, 3]`, to four maps `[N, 128, h, w]`.

        Sound is float32, one patch each: waveform `[N, 15600]`, log-mel `[N, 1, 96, 64]`, or embedding `[N, 128]`.
        """
        # The cast comes first: TensorRT takes bytes as an input, and casts them, and does nothing else with them.
        clip = frames.to(torch.float32)[:, None]
        normalised, audio = self.network_inputs(clip, sound if self.log_mel else sound[:, None])
        return tuple(self.network.encode(normalised.flatten(0, 1), audio.flatten(0, 1)))

    def example(self, shape: ClipShape) -> dict[str, Tensor]:
        """As in `ClipGraph`."""
        frames = torch.zeros(2, shape.height, shape.width, 3, dtype=torch.uint8)
        one = (PATCH_SAMPLES,) if self.audio is AudioForm.WAVEFORM else self.audio.shape(1)[1:]
        return {"frames": frames, self.audio.value: torch.zeros(2, *one)}


class DecodeGraph(StreamGraph):
    """The features of a frame and of its partner to the frame's logits and probabilities.

    A variant without motion has no partners: its graph takes the frame's features alone.
    """

    outputs = OUTPUTS

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Args: 4 maps of the frames, then 4 of their partners, `[N, 128, h, w]`. Returns: two maps `[N, H, W]`."""
        stages = len(FUSED)
        partner = list(maps[stages:]) if self.network.variant.motion else None
        logits = self.network.decode(list(maps[:stages]), partner)
        return logits, torch.sigmoid(logits)

    def example(self, shape: ClipShape) -> dict[str, Tensor]:
        """As in `ClipGraph`; each input is a tensor of its own, since the exporter takes equal objects for one."""
        names = (*FUSED, *PARTNER) if self.network.variant.motion else FUSED
        return {
            name: torch.zeros(2, WIDTH, shape.height // stride, shape.width // stride)
            for name, stride in zip(names, STAGE_STRIDES * 2, strict=False)
        }

    def dynamic_shapes(self, batch: dict[int, Any]) -> tuple[Any, ...]:
        """As in `ClipGraph`."""
        return ((batch,) * (len(FUSED) * (2 if self.network.variant.motion else 1)),)


def graph_module(clip: ClipGraph, graph: str) -> ClipGraph:
    """The module that a graph of a bundle was exported from, by the graph's name (`decode.plain`)."""
    return {"encode": EncodeGraph, "decode": DecodeGraph}.get(GraphName.parse(graph).role, lambda same: same)(clip)
