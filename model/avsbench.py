"""AVSBench's baseline with temporal pixel-wise audio-visual interaction (TPAVI), as its released code computes it.

Data flow: encoder -> neck of dilated convolutions -> TPAVI, each at four stages -> decoder -> logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.avs_bg import unit_norm
from avsbg.model.clips import AUDIO_WIDTH, check_clip, split_clips
from avsbg.model.encoders import Encoder
from avsbg.model.network import Network
from avsbg.model.variants import Variant
from avsbg.model.visual_to_audio import VisualToAudio

WIDTH = 256  # channels of every stage after the neck


@dataclass
class AvsBenchStages:
    """Intermediates of a forward pass; B * T = N rows, clip-major, one tensor per stage in each list."""

    encoder: list[Tensor]  # [N, C_i, h, w]
    neck: list[Tensor]  # [N, 256, h, w]
    attended: list[Tensor]  # [N, 256, h, w], what TPAVI returns
    decoder: list[Tensor]  # [N, 256, ...], in the order of execution: stage 3 first
    audio: list[Tensor]  # [B, T, 256], the aligned audio of each stage; empty without audio
    logits: Tensor  # [B, T, H, W]


class DilatedNeck(nn.Module):
    """One stage brought to another width: the sum of four parallel dilated convolutions, no activation."""

    def __init__(
        self, channels: int, width: int = WIDTH, dilations: tuple[int, ...] = (3, 6, 12, 18), *, bias: bool = True
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation, bias=bias) for dilation in dilations
        )
        for branch in self.branches:
            nn.init.normal_(branch.get_parameter("weight"), std=0.01)

    def forward(self, stage: Tensor) -> Tensor:
        """`[N, C, h, w]` to `[N, width, h, w]`."""
        total: Tensor = self.branches[0](stage)
        for branch in list(self.branches)[1:]:
            total = total + branch(stage)
        return total


class Tpavi(nn.Module):
    """Temporal pixel-wise audio-visual interaction: every position of a clip attends to every other, without softmax.

    `Y = (theta^T phi / N) g` over the N = T * h * w positions of a clip. There is no softmax, so the product may be
    taken in the other order, `theta^T (phi g^T / N)`, without the N x N matrix; and since the sound is one vector per
    frame, `phi g^T` is then a sum over T terms. Both orders are the same function; `materialise` picks the published
    one. AVS-BG's repository has its own TPAVI (`align=False`): inputs of unit norm and no alignment of the sound.
    """

    def __init__(self, channels: int, *, align: bool = True, materialise: bool = False) -> None:
        super().__init__()
        inner = channels // 2
        self.align = nn.Linear(AUDIO_WIDTH, channels) if align else None
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.out_norm = nn.BatchNorm3d(channels)
        self.norm = nn.LayerNorm(channels)
        nn.init.zeros_(self.out_norm.weight)
        nn.init.zeros_(self.out_norm.bias)
        self.materialise = materialise

    def forward(self, visual: Tensor, audio: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            visual: `[B, C, T, h, w]`.
            audio: `[B, T, 128]`, or None to attend from the visual features to themselves.

        Returns:
            attended features `[B, C, T, h, w]`; the (aligned) audio `[B, T, C]`, None without audio.
        """
        if self.align is None:
            visual = unit_norm(visual, dim=1)
            audio = None if audio is None else unit_norm(audio, dim=2)
        elif audio is not None:
            audio = self.align(audio)
        key = visual if audio is None else audio.transpose(1, 2)[:, :, :, None, None]
        theta, phi, g = self.theta(visual), self.phi(key), self.g(visual)
        attended = self._materialised(theta, phi, g) if self.materialise else self._factored(theta, phi, g)
        mixed = self.out_norm(self.out(attended)) + visual
        return self.norm(mixed.movedim(1, -1)).movedim(-1, 1), audio

    @staticmethod
    def _materialised(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        positions = theta[0, 0].numel()
        phi = phi.expand_as(theta)
        similarity = torch.matmul(theta.flatten(2).transpose(1, 2), phi.flatten(2)) / positions
        return torch.matmul(similarity, g.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(g.shape)

    @staticmethod
    def _factored(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        positions = theta[0, 0].numel()
        # The sound is constant over a frame, so g is added up over each frame first.
        g_sum = g.flatten(2) if phi.shape == g.shape else g.sum(dim=(3, 4))
        context = torch.matmul(g_sum, phi.flatten(2).transpose(1, 2)) / positions  # [B, inner (g), inner (phi)]
        return torch.matmul(context, theta.flatten(2)).reshape(theta.shape)


class ResidualUnit(nn.Module):
    """`relu(x) + conv(relu(conv(relu(x))))`: the published unit's activation works in place, so its skip is relu(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 256, h, w]` to the same."""
        x = F.relu(x)
        return x + self.conv2(F.relu(self.conv1(x)))


class DecoderBlock(nn.Module):
    """Join a stage with what came from the coarser one, refine, and double the size (bilinear, corners aligned)."""

    def __init__(self, *, joins: bool) -> None:
        super().__init__()
        self.lateral = ResidualUnit() if joins else None
        self.refine = ResidualUnit()

    def forward(self, stage: Tensor, coarser: Tensor | None) -> Tensor:
        """`[N, 256, h, w]` (both) to `[N, 256, 2h, 2w]`."""
        if self.lateral is not None and coarser is not None:
            stage = coarser + self.lateral(stage)
        return F.interpolate(self.refine(stage), scale_factor=2.0, mode="bilinear", align_corners=True)


class AvsBench(Network):
    """The network; see the module's docstring. Any T >= 2, any H and W that are multiples of 32."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.encoder = Encoder(variant.encoder)
        self.neck = nn.ModuleList(DilatedNeck(channels) for channels in self.encoder.channels)
        materialise = variant.form == "published"
        self.tpavi = nn.ModuleList(Tpavi(WIDTH, materialise=materialise) for _ in self.encoder.channels)
        self.decoder = nn.ModuleList(DecoderBlock(joins=index > 0) for index in range(len(self.encoder.channels)))
        self.head = nn.Sequential(
            nn.Conv2d(WIDTH, 128, 3, padding=1),
            nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False),
            nn.Conv2d(128, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
        )
        self.visual_to_audio = VisualToAudio(WIDTH) if variant.bidirectional else None

    def forward(self, frames: Tensor, audio: Tensor) -> Tensor:
        """Segment clips; arguments, result and error are those of `AvsBg.forward`."""
        return self.forward_stages(frames, audio).logits

    def forward_stages(self, frames: Tensor, audio: Tensor) -> AvsBenchStages:
        """As `forward`, with everything computed on the way."""
        check_clip(frames, audio)
        clip_length, height, width = frames.shape[1], frames.shape[3], frames.shape[4]
        encoded = self.encoder(frames.flatten(0, 1))
        neck = [reduce(stage) for reduce, stage in zip(self.neck, encoded, strict=True)]
        attended, aligned_audio = self._attend(neck, audio)

        decoded: list[Tensor] = []
        for block, stage in zip(self.decoder, reversed(attended), strict=True):
            decoded.append(block(stage, decoded[-1] if decoded else None))
        logits = self.head(decoded[-1]).reshape(-1, clip_length, height, width)
        return AvsBenchStages(encoded, neck, attended, decoded, aligned_audio, logits)

    def _attend(self, neck: list[Tensor], audio: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        sound = audio if self.variant.audio else None
        attended, aligned_audio = [], []
        for tpavi, stage in zip(self.tpavi, neck, strict=True):
            clips = split_clips(stage, audio.shape[1]).transpose(1, 2)  # [B, C, T, h, w]
            features, aligned = tpavi(clips, sound)
            attended.append(features.transpose(1, 2).flatten(0, 1))
            if aligned is not None:
                aligned_audio.append(aligned)
        return attended, aligned_audio
