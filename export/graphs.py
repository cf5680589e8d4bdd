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

from avsbg.export.shape import ClipShape, ExportError, check_streamable
from avsbg.model.audio import AudioEncoder, CompactAudioEncoder, VGGish
from avsbg.model.clips import AUDIO_WIDTH
from avsbg.model.factory import load_object
from avsbg.model.front_end import BANDS, PATCH_FRAMES, SAMPLE_RATE, LogMel
from avsbg.model.network import Network
from avsbg.model.record import NetworkRecord
from avsbg.model.registry import NETWORKS
from avsbg.model.variants import Variant
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import ClipRecord, PreprocessingRecord
from avsbg.runtime.media.log_mel import PATCH_SAMPLES

OUTPUTS = ("logits", "probability")
CLASS_OUTPUTS = ("classes", "class_probability")  # besides, of networks of several classes


class AudioForm(Enum):
    """A form in which a graph takes the sound of a clip; the value is the input's name and the manifest's word."""

    WAVEFORM = "waveform"
    LOG_MEL = "log_mel"
    EMBEDDING = "audio_embedding"
    SPECTROGRAM = "spectrogram"  # of the network's own front end

    def shape(self, frames: int, record: NetworkRecord = NETWORKS["avs-bg"]) -> tuple[int, ...]:
        """The shape of one clip's sound, without the leading number of clips, as a network's graph takes it."""
        if self is AudioForm.WAVEFORM:
            rate = SAMPLE_RATE if record.spectrogram is None else record.spectrogram.sample_rate
            return (frames * rate,)
        if self is AudioForm.LOG_MEL:
            return (frames, 1, PATCH_FRAMES, BANDS)
        return record.sound_shape(frames) or (frames, AUDIO_WIDTH)


def check_form(record: NetworkRecord, audio: AudioForm) -> None:
    """Raise an ExportError for a form of sound that a network does not have."""
    forms = [AudioForm.WAVEFORM, *((AudioForm.SPECTROGRAM,) if record.spectrogram else _OF_VGGISH)]
    if audio not in forms:
        asked, *names = (form.name.lower().replace("_", "-") for form in (audio, *forms))
        raise ExportError(f"{record.name} takes no sound as {asked}.", f"Choose --audio from: {', '.join(names)}.")


_OF_VGGISH = (AudioForm.LOG_MEL, AudioForm.EMBEDDING)


def needs_audio_encoder(variant: Variant, audio: AudioForm) -> bool:
    """Whether an audio encoder (VGGish, or the compact one) is part of a variant's graph."""
    return variant.audio and NETWORKS[variant.network].takes_embeddings and audio is not AudioForm.EMBEDDING


def clip_record(record: NetworkRecord, audio: AudioForm, shape: ClipShape) -> ClipRecord:
    """The manifest's record of a network's clips."""
    own = record.spectrogram
    rate = SAMPLE_RATE if own is None else own.sample_rate
    size = {"frames": shape.frames, "height": shape.height, "width": shape.width}
    return ClipRecord(**size, sample_rate=rate, audio=audio.value, shared_sound=own is not None)


def preprocessing_record(record: NetworkRecord) -> PreprocessingRecord:
    """The manifest's record of a network's frames."""
    return PreprocessingRecord(mean=record.normalisation.mean, std=record.normalisation.std)


class ClipGraph(nn.Module):
    """A network with everything that precedes and follows it in an exported graph."""

    BATCH: ClassVar[str] = "clips"  # the one dynamic dimension
    outputs: tuple[str, ...]  # names, in the order that `forward` returns
    scale: Tensor
    offset: Tensor

    def __init__(self, network: Network, audio: AudioForm, audio_encoder: AudioEncoder | None = None) -> None:
        """Wrap `network`, with the form in which the graph takes sound, even if the variant ignores it.

        The audio encoder is the one that the network was trained with; a ValueError says that it is needed and missing,
        an ExportError that the network does not have this form of sound.
        """
        super().__init__()
        check_form(network.record, audio)
        needed = needs_audio_encoder(network.variant, audio)
        if needed and audio_encoder is None:
            raise ValueError(f"the audio form {audio.value} needs an audio encoder")
        self.network = network
        self.outputs = OUTPUTS if network.variant.classes == 1 else (*OUTPUTS, *CLASS_OUTPUTS)
        self.audio = audio
        self.log_mel = LogMel() if needed and audio is AudioForm.WAVEFORM else None
        # Two names, so that an exported weight's name says which encoder it belongs to.
        self.vggish = audio_encoder if needed and isinstance(audio_encoder, VGGish) else None
        self.compact_audio = audio_encoder if needed and isinstance(audio_encoder, CompactAudioEncoder) else None
        own = network.record.spectrogram
        self.spectrogram: nn.Module | None = None
        if own is not None and audio is AudioForm.WAVEFORM:
            self.spectrogram = load_object(own.module)()
        preprocessing = preprocessing_record(network.record)
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        # (frames * scale - mean) / std as one multiplication and one addition.
        self.register_buffer("scale", preprocessing.scale / std, persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)
        self.eval()

    @property
    def audio_encoder(self) -> AudioEncoder | None:
        """The audio encoder that is part of the graph."""
        return self.compact_audio if self.vggish is None else self.vggish

    def network_inputs(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, ...]:
        """The graph's inputs as the network takes them.

        RGB frames, uint8 `[B, T, H, W, 3]`, are normalised to `[B, T, 3, H, W]`;
        sound, float32 `[B, *AudioForm.shape(T)]`, becomes audio embeddings `[B, T, 128]`, or the network's spectrogram.
        A network that knows no sound takes frames alone.
        """
        # TensorRT's parser knows no operation on uint8 but the cast to float.
        normalised = (frames.to(torch.float32) * self.scale + self.offset).permute(0, 1, 4, 2, 3)
        if "audio" not in self.network.record.switches:
            return (normalised,)
        if not self.network.variant.audio:
            return normalised, torch.zeros(*frames.shape[:2], AUDIO_WIDTH, device=frames.device)
        if self.log_mel is not None:
            sound = self.log_mel(sound, patches=frames.shape[1])
        if self.audio_encoder is not None:
            sound = self.audio_encoder(sound)
        if self.spectrogram is not None:
            sound = self.spectrogram(sound)[:, None]
        return normalised, sound

    def forward(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, ...]:
        """Args: as `network_inputs`. Returns: as `results`."""
        return self.results(self.network(*self.network_inputs(frames, sound)))

    def results(self, logits: Tensor) -> tuple[Tensor, ...]:
        """The graph's outputs from logits `[..., H, W]`: these, and probabilities of the same shape.

        With several classes, from logits `[..., classes, H, W]`: these; probabilities that a pixel sounds and numbers
        of classes (int32), both `[..., H, W]`; and the probability of each class.
        """
        results = (logits, self.network.probability(logits))
        if self.network.variant.classes == 1:
            return results
        return *results, logits.argmax(dim=-3).to(torch.int32), logits.softmax(dim=-3)

    def example(self, shape: ClipShape) -> dict[str, Tensor]:
        """Inputs by which PyTorch traces the graph. Two clips: a dynamic size of 1 would be taken for a constant."""
        frames = torch.zeros(2, shape.frames, shape.height, shape.width, 3, dtype=torch.uint8)
        return {"frames": frames, self.audio.value: self._silence(shape.frames)}

    def _silence(self, frames: int) -> Tensor:
        return torch.zeros(2, *self.audio.shape(frames, self.network.record))

    def dynamic_shapes(self, batch: dict[int, Any]) -> tuple[Any, ...]:
        """`batch` for each argument of `forward`, as `torch.export` wants it."""
        return (batch, batch)


class StreamGraph(ClipGraph):
    """Either graph of a stream: the clip graph's modules, and so its weights and their names.

    The dynamic dimension counts the streams that advance together by one frame. An ExportError says if the network
    mixes all frames of a clip, so that no frame can be computed before the last.
    """

    BATCH: ClassVar[str] = "streams"

    def __init__(self, clip: ClipGraph) -> None:
        check_streamable(clip.network.record)
        super().__init__(clip.network, clip.audio, clip.audio_encoder)
        stages = range(len(clip.network.feature_shapes(32, 32)))
        self.fused = tuple(f"fused.{stage}" for stage in stages)
        self.partner = tuple(f"partner.{stage}" for stage in stages) if clip.network.has_partners else ()


class EncodeGraph(StreamGraph):
    """From a frame and its sound to the input of `decode`: for AVS-BG the fused features of the four stages."""

    def __init__(self, clip: ClipGraph) -> None:
        super().__init__(clip)
        self.outputs = self.fused

    def forward(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, ...]:
        """Encode frames, uint8 `[N, H, W, 3]`, to the network's `feature_shapes`.

        Sound is float32, one patch each: waveform `[N, 15600]`, log-mel `[N, 1, 96, 64]`, or embedding `[N, 128]`.
        Where a clip's frames share it, it is the waveform or the spectrogram of T seconds.
        """
        # The cast comes first: TensorRT takes bytes as an input, and casts them, and does nothing else with them.
        clip = frames.to(torch.float32)[:, None]
        has_front_end = self.log_mel is not None or self.spectrogram is not None
        inputs = self.network_inputs(clip, sound if has_front_end else sound[:, None])
        return tuple(self.network.encode(*(one.flatten(0, 1) for one in inputs)))

    def example(self, shape: ClipShape) -> dict[str, Tensor]:
        """As in `ClipGraph`."""
        frames = torch.zeros(2, shape.height, shape.width, 3, dtype=torch.uint8)
        if self.audio is not AudioForm.WAVEFORM:
            sound = self._silence(shape.frames)[:, 0]
        elif self.network.record.spectrogram is not None:
            sound = self._silence(shape.frames)
        else:
            sound = torch.zeros(2, PATCH_SAMPLES)
        return {"frames": frames, self.audio.value: sound}


class DecodeGraph(StreamGraph):
    """The features of a frame and of its partner to the frame's logits and probabilities.

    Where frames have no partners, as in a variant without motion, the graph takes the frame's features alone.
    """

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """Args: features of the frames, then of their partners, `[N, ...]`. Returns: as `results`."""
        stages = len(self.fused)
        logits = self.network.decode(list(maps[:stages]), list(maps[stages:]) if self.partner else None)
        return self.results(logits)

    def example(self, shape: ClipShape) -> dict[str, Tensor]:
        """As in `ClipGraph`; each input is a tensor of its own, since the exporter takes equal objects for one."""
        shapes = self.network.feature_shapes(shape.height, shape.width)
        sized = zip((*self.fused, *self.partner), shapes * 2, strict=False)
        return {name: torch.zeros(2, *size) for name, size in sized}

    def dynamic_shapes(self, batch: dict[int, Any]) -> tuple[Any, ...]:
        """As in `ClipGraph`."""
        return ((batch,) * (len(self.fused) + len(self.partner)),)


def graph_module(clip: ClipGraph, graph: str) -> ClipGraph:
    """The module that a graph of a bundle was exported from, by the graph's name (`decode.plain`)."""
    return {"encode": EncodeGraph, "decode": DecodeGraph}.get(GraphName.parse(graph).role, lambda same: same)(clip)
