"""AVS-BG (arXiv 2308.08288), as its released code computes it.

Data flow: encoder -> neck -> audio-visual fusion -> correlation attention, each at four stages -> decoder -> logits.
The visual-to-audio projection (bidirectional generation) takes part in training alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.clips import check_clip, split_clips
from avsbg.model.encoders import STAGE_STRIDES, Encoder
from avsbg.model.network import Network
from avsbg.model.operators import correlation_volume, mean_correlation
from avsbg.model.variants import Variant
from avsbg.model.visual_to_audio import VisualToAudio

WIDTH = 128  # channels of every stage after the neck, and of the audio embedding


@dataclass
class AvsBgStages:
    """Intermediates of a forward pass, for losses, verification and attention maps; B * T = N rows, clip-major.

    Where only the first frames are decoded, everything from `fused` on has the rows of those frames alone. Lists hold
    one tensor per stage, strides 4 to 32; h x w is the stage's size.
    """

    encoder: list[Tensor]  # [N, C_i, h, w]
    neck: list[Tensor]  # [N, 128, h, w]
    fusion_gate: list[Tensor]  # [N, 1, h, w], after the sigmoid; empty without audio
    fused: list[Tensor]  # [N, 128, h, w], before the correlation attention
    mean_correlation: list[Tensor]  # [N, 1, h, w]; empty without motion
    correlation_attention: list[Tensor]  # [N, 1, h, w], after the sigmoid; empty without motion
    correlated: list[Tensor]  # [N, 128, h, w]
    decoder: list[Tensor]  # [N, 128, 2h, 2w], in the order of execution: stage 3 first
    audio: Tensor  # [N, 128], the normalised audio embedding
    logits: Tensor  # [B, T, H, W]


def unit_norm(x: Tensor, dim: int) -> Tensor:
    """L2 normalisation as the fusion does it: the epsilon is added inside the root."""
    return x / torch.sqrt((x * x).sum(dim=dim, keepdim=True) + 1e-6)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, no activation."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)


class Neck(nn.Sequential):
    """A stage of the encoder brought to the common width: a purely linear chain, `[N, C, h, w] -> [N, width, h, w]`."""

    def __init__(self, channels: int, width: int = WIDTH) -> None:
        super().__init__(ConvNorm(channels, width, 1), ConvNorm(width, width, 3), ConvNorm(width, width, 3))


class AudioVisualFusion(nn.Module):
    """Gate the normalised visual features by their agreement with the sound (paper, section 3.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, 32, 1, bias=False)
        self.conv2 = nn.Conv2d(32, 32, 7, padding=3, bias=False)
        self.conv3 = nn.Conv2d(32, 1, 1, bias=False)

    def forward(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Args: visual `[N, 128, h, w]`; audio `[N, 128]`, unit norm. Returns: fused features, gate `[N, 1, h, w]`."""
        visual = unit_norm(visual, dim=1)
        agreement = visual * audio[:, :, None, None]
        gate = torch.sigmoid(self.conv3(self.conv2(self.conv1(agreement))))
        return visual + visual * gate, gate


class CorrelationAttention(nn.Module):
    """Attend where a frame resembles its neighbour (paper, section 3.3 and equation 2).

    Frame t is correlated with frame t + 1, the last frame with its predecessor. That last volume is the transpose of
    the pair's before it, so T - 1 products serve T frames: `mean_a` of each pair and `mean_b` of the last one.
    """

    def __init__(self, *, materialise: bool = False) -> None:
        """With `materialise`, hold all T volumes at once as the released code does (the benchmarks' reference)."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1))
        self.materialise = materialise

    def forward(
        self, features: Tensor, frames_per_clip: int = 1, partner: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend.

        Args:
            features: `[N, 128, h, w]`.
            frames_per_clip: T >= 2; the partners are found among the rows, which are clip-major.
            partner: the features of the N rows' partners instead, as a stream has them.

        Returns:
            attended features, attention and mean correlation, the latter two `[N, 1, h, w]`.
        """
        descriptors = features.flatten(2).transpose(1, 2)  # [N, h*w, 128]
        if partner is None:
            clips = split_clips(descriptors, frames_per_clip)
            mean = self._materialised(clips) if self.materialise else self._fused(clips)
        elif self.materialise:
            mean = correlation_volume(descriptors, partner.flatten(2).transpose(1, 2), relu=True).mean(dim=-1)
        else:
            mean = mean_correlation(descriptors, partner.flatten(2).transpose(1, 2))[0]
        mean = mean.to(features.dtype).reshape(-1, 1, *features.shape[-2:])
        attention = torch.sigmoid(mean * self.weight + self.bias)
        return features + features * attention, attention, mean

    @staticmethod
    def _fused(descriptors: Tensor) -> Tensor:
        _, frames, positions, channels = descriptors.shape
        first = descriptors[:, :-1].reshape(-1, positions, channels)
        second = descriptors[:, 1:].reshape(-1, positions, channels)
        mean_first, mean_second = mean_correlation(first, second)
        mean_first = mean_first.reshape(-1, frames - 1, positions)
        mean_second = mean_second.reshape(-1, frames - 1, positions)
        return torch.cat([mean_first, mean_second[:, -1:]], dim=1)

    @staticmethod
    def _materialised(descriptors: Tensor) -> Tensor:
        partners = torch.cat([descriptors[:, 1:], descriptors[:, -2:-1]], dim=1)
        volumes = [
            correlation_volume(descriptors[:, t], partners[:, t], relu=True) for t in range(descriptors.shape[1])
        ]
        return torch.stack(volumes, dim=1).mean(dim=-1)


class ResidualUnit(nn.Module):
    """`x + relu(norm(conv(relu(norm(conv(x))))))`, with no activation after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvNorm(WIDTH, WIDTH, 3)
        self.second = ConvNorm(WIDTH, WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 128, h, w]` to the same."""
        return x + F.relu(self.second(F.relu(self.first(x))))


class DecoderBlock(nn.Module):
    """Join a stage with what came from the coarser one, refine, and double the size (nearest neighbour)."""

    def __init__(self, *, joins: bool) -> None:
        super().__init__()
        self.lateral = ResidualUnit() if joins else None
        self.refine = ResidualUnit()

    def forward(self, stage: Tensor, coarser: Tensor | None) -> Tensor:
        """`[N, 128, h, w]` (both) to `[N, 128, 2h, 2w]`."""
        if self.lateral is not None and coarser is not None:
            stage = coarser + self.lateral(stage)
        return F.interpolate(self.refine(stage), scale_factor=2.0, mode="nearest")


class AvsBg(Network):
    """The network; see the module's docstring. Any T >= 2, any H and W that are multiples of 32."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.encoder = Encoder(variant.encoder)
        self.neck = nn.ModuleList(Neck(channels) for channels in self.encoder.channels)
        stages = range(len(self.encoder.channels))
        self.fusion = nn.ModuleList(AudioVisualFusion() for _ in stages) if variant.audio else None
        materialise = variant.form == "published"
        self.correlation = (
            nn.ModuleList(CorrelationAttention(materialise=materialise) for _ in stages) if variant.motion else None
        )
        self.decoder = nn.ModuleList(DecoderBlock(joins=index > 0) for index in stages)
        self.head = nn.Sequential(
            nn.Conv2d(WIDTH, 64, 3, padding=1),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
        )
        self.visual_to_audio = VisualToAudio(WIDTH) if variant.bidirectional else None

    def forward(self, frames: Tensor, audio: Tensor) -> Tensor:
        """Segment clips.

        Args:
            frames: `[B, T, 3, H, W]`, scaled to [0, 1] and normalised with ImageNet's mean and deviation.
            audio: audio embeddings `[B, T, 128]` of VGGish.

        Returns:
            logits `[B, T, H, W]`.

        Raises:
            ClipShapeError: a shape that the network cannot work with.
        """
        return self.forward_stages(frames, audio).logits

    def forward_stages(self, frames: Tensor, audio: Tensor, *, decoded: int | None = None) -> AvsBgStages:
        """As `forward`, with everything computed on the way.

        Args:
            frames, audio: as of `forward`.
            decoded: how many frames of each clip are decoded, from the first on; by default all. The logits of those
                are the same then, since frames meet before the decoder alone.
        """
        check_clip(frames, audio)
        clip_length, height, width = frames.shape[1], frames.shape[3], frames.shape[4]
        encoded = self.encoder(frames.flatten(0, 1))
        neck = [reduce(stage) for reduce, stage in zip(self.neck, encoded, strict=True)]

        sound = unit_norm(audio.flatten(0, 1), dim=1)
        fused, gates = self._fuse(neck, sound)
        correlated, attention, mean = self._correlate(fused, clip_length)
        length = clip_length
        if decoded is not None:
            length = min(decoded, clip_length)

            def first(rows: Tensor) -> Tensor:
                return rows.unflatten(0, (-1, clip_length))[:, :length].flatten(0, 1)

            parts = (fused, mean, attention, correlated)
            fused, mean, attention, correlated = ([first(rows) for rows in stages] for stages in parts)
            sound = first(sound)
        maps = self._decode(correlated)
        logits = self.head(maps[-1]).reshape(-1, length, height, width)
        return AvsBgStages(encoded, neck, gates, fused, mean, attention, correlated, maps, sound, logits)

    @property
    def has_partners(self) -> bool:
        """Whether neighbouring frames meet, which they do in the correlation attention alone."""
        return self.correlation is not None

    def feature_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """The four shapes of `encode`'s features of one frame."""
        return [(WIDTH, height // stride, width // stride) for stride in STAGE_STRIDES]

    def encode(self, frames: Tensor, audio: Tensor) -> list[Tensor]:
        """Compute the fused features of single frames, which later frames of a stream need too.

        Args:
            frames: `[N, 3, H, W]`, normalised as `forward` takes them.
            audio: audio embeddings `[N, 128]`.

        Returns:
            four maps `[N, 128, h, w]`, strides 4 to 32.
        """
        encoded = self.encoder(frames)
        neck = [reduce(stage) for reduce, stage in zip(self.neck, encoded, strict=True)]
        return self._fuse(neck, unit_norm(audio, dim=1))[0]

    def decode(self, features: list[Tensor], partner: list[Tensor] | None) -> Tensor:
        """The logits of frames from what `encode` returned for them and for their partners.

        The partner of a frame is the one after it; the last frame's is its predecessor. Then the logits are those of
        `forward` on the whole clip.

        Args:
            features: four maps `[N, 128, h, w]`, fused with the sound.
            partner: the same of the N partners; None for a variant without motion, in which frames have none.

        Returns:
            logits `[N, H, W]`.
        """
        fused = features
        if self.correlation is not None:
            assert partner is not None
            triples = zip(self.correlation, fused, partner, strict=True)
            fused = [attend(stage, partner=other)[0] for attend, stage, other in triples]
        logits: Tensor = self.head(self._decode(fused)[-1])
        return logits[:, 0]

    def _decode(self, correlated: list[Tensor]) -> list[Tensor]:
        decoded: list[Tensor] = []
        for block, stage in zip(self.decoder, reversed(correlated), strict=True):
            decoded.append(block(stage, decoded[-1] if decoded else None))
        return decoded

    def _fuse(self, neck: list[Tensor], sound: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        if self.fusion is None:  # the ablation keeps the normalisation, so that what follows sees the same scale
            return [unit_norm(stage, dim=1) for stage in neck], []
        pairs = [fusion(stage, sound) for fusion, stage in zip(self.fusion, neck, strict=True)]
        return [fused for fused, _ in pairs], [gate for _, gate in pairs]

    def _correlate(self, fused: list[Tensor], clip_length: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        if self.correlation is None:
            return fused, [], []
        results = [attend(stage, clip_length) for attend, stage in zip(self.correlation, fused, strict=True)]
        return [r[0] for r in results], [r[1] for r in results], [r[2] for r in results]
