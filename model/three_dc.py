"""3DC (arXiv 2008.11516), ir-CSN-152 with a decoder of 3-D convolutions, as its released code computes it; no sound.

Data flow: encoder over frames and time -> global convolutions at its coarsest level -> refinement level by level ->
scores of background and object, whose difference are the logits. All frames of a clip are mixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.clips import check_frames
from avsbg.model.network import Network
from avsbg.model.variants import Variant

WIDTH = 256
_MEAN = (114.7748, 107.7354, 99.4750)  # of 255, red first


@dataclass
class ThreeDcStages:
    """Intermediates of a forward pass: time and sides are halved from level to level, rounded up."""

    stem: Tensor  # [B, 64, T, H / 2, W / 2]
    encoder: list[Tensor]  # [B, C_i, t, h, w], strides 4 to 32
    context: Tensor  # [B, 256, t, h, w] of the coarsest level
    decoder: list[Tensor]  # [B, 256, t, h, w], in the order of execution: the coarsest first
    logits: Tensor  # [B, T, H, W]


class Bottleneck(nn.Module):
    """1 x 1 x 1, depth-wise 3 x 3 x 3, and 1 x 1 x 1 convolution, beside a skip."""

    def __init__(self, channels: int, planes: int, stride: int, *, projects: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, stride, padding=1, groups=planes, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * planes)
        self.downsample = (
            nn.Sequential(nn.Conv3d(channels, 4 * planes, 1, stride, bias=False), nn.BatchNorm3d(4 * planes))
            if projects
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, t, h, w]` to `[B, 4 * planes, ...]`, every axis divided by the stride and rounded up."""
        skip = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + skip)


def _layer(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, planes, stride, projects=True)
    return nn.Sequential(first, *(Bottleneck(4 * planes, planes, 1, projects=False) for _ in range(1, blocks)))


class IrCsn(nn.Module):
    """The interaction-reduced channel-separated network of 152 layers (arXiv 1904.02811), without classifier."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(3, 1, 1, 1) / 255, persistent=False)
        self.conv1 = nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), padding=(1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.layer1 = _layer(64, 64, 3, 1)
        self.layer2 = _layer(256, 128, 8, 2)
        self.layer3 = _layer(512, 256, 36, 2)
        self.layer4 = _layer(1024, 512, 3, 2)

    def forward(self, clips: Tensor) -> tuple[Tensor, list[Tensor]]:
        """RGB in [0, 1] `[B, 3, T, H, W]` to the stem's output and four levels."""
        stem = F.relu(self.bn1(self.conv1(clips - self.mean)))
        levels = [F.max_pool3d(stem, (1, 3, 3), (1, 2, 2), padding=(0, 1, 1))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            levels.append(layer(levels[-1]))
        return stem, levels[1:]


def _convolution(channels: int, width: int = WIDTH, kernel: tuple[int, int, int] = (3, 3, 3)) -> nn.Conv3d:
    return nn.Conv3d(channels, width, kernel, padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2))


class GlobalContext(nn.Module):
    """A large kernel of height and width as the sum of its two separable orders."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        column, row = (1, 7, 1), (1, 1, 7)
        self.conv_l1, self.conv_l2 = _convolution(channels, kernel=column), _convolution(WIDTH, kernel=row)
        self.conv_r1, self.conv_r2 = _convolution(channels, kernel=row), _convolution(WIDTH, kernel=column)

    def forward(self, level: Tensor) -> Tensor:
        """`[B, C, t, h, w]` to `[B, 256, t, h, w]`."""
        result: Tensor = self.conv_l2(self.conv_l1(level)) + self.conv_r2(self.conv_r1(level))
        return result


class Refinement(nn.Module):
    """Join a level with what came from the coarser one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convFS1 = _convolution(channels)
        self.convFS2, self.convFS3, self.convMM1, self.convMM2 = (_convolution(WIDTH) for _ in range(4))

    def forward(self, level: Tensor, coarser: Tensor) -> Tensor:
        """Args: level `[B, C, t, h, w]`; coarser `[B, 256, ...]`. Returns: `[B, 256, t, h, w]`."""
        level = self.convFS1(level)
        level = level + self.convFS3(F.relu(self.convFS2(F.relu(level))))
        level = level + F.interpolate(coarser, level.shape[2:], mode="trilinear", align_corners=False)
        result: Tensor = level + self.convMM2(F.relu(self.convMM1(F.relu(level))))
        return result


class Decoder(nn.Module):
    """From the coarsest level to the finest; in the published form with scores of every level, of which one is used."""

    def __init__(self, *, all_scores: bool) -> None:
        super().__init__()
        self.GC = GlobalContext(2048)
        self.convG1, self.convG2 = _convolution(WIDTH), _convolution(WIDTH)
        self.RF4, self.RF3, self.RF2 = (Refinement(channels) for channels in (1024, 512, 256))
        self.pred2 = _convolution(WIDTH, 2)
        self.unused = nn.ModuleDict({f"pred{level}": _convolution(WIDTH, 2) for level in (5, 4, 3) if all_scores})

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Four levels to the context, four decoded ones, and scores `[B, 2, T, H / 4, W / 4]`."""
        context = self.GC(levels[-1])
        decoded = [context + self.convG2(F.relu(self.convG1(F.relu(context))))]
        for refine, level in zip((self.RF4, self.RF3, self.RF2), levels[-2::-1], strict=True):
            decoded.append(refine(level, decoded[-1]))
        for score, features in zip(self.unused.values(), decoded, strict=False):
            score(F.relu(features))
        return context, decoded, self.pred2(F.relu(decoded[-1]))


class ThreeDc(Network):
    """The network; see the module's docstring. Any T, any H and W that are multiples of 32."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.encoder = IrCsn()
        self.decoder = Decoder(all_scores=variant.form == "published")

    def forward(self, frames: Tensor) -> Tensor:
        """Segment clips.

        Args:
            frames: `[B, T, 3, H, W]`, scaled to [0, 1] and not normalised.

        Returns:
            logits `[B, T, H, W]`; their sigmoid is the softmax of both classes.

        Raises:
            ClipShapeError: a shape that the network cannot work with.
        """
        return self.forward_stages(frames).logits

    def forward_stages(self, frames: Tensor) -> ThreeDcStages:
        """As `forward`, with what is computed on the way."""
        check_frames(frames)
        stem, levels = self.encoder(frames.transpose(1, 2))
        context, decoded, scores = self.decoder(levels)
        scores = F.interpolate(scores, scale_factor=(1.0, 4.0, 4.0), mode="trilinear", align_corners=False)
        return ThreeDcStages(stem, levels, context, decoded, scores[:, 1] - scores[:, 0])
