"""The parts that the salient object detectors iGAN and LGVT share: Swin-B, decoder blocks, inputs and outputs.

Both work on frames of 384 x 384, each on its own, and on a latent vector that stands for what a picture leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.clips import ClipShapeError, check_frames
from avsbg.model.network import Network

SIDE = 384  # pixels; the windows of Swin-B and their masks are made for this size
CHANNELS = (128, 256, 512, 1024, 1024)
WIDTH = 32  # channels of the decoders


class SwinEncoder(nn.Module):
    """timm's Swin-B (stochastic depth 0.1 in training) without final norm and classifier.

    A map is taken before each stage, after the merging of patches, and unlike timm's is not normalised:
    `[N, 128, 96, 96]`, `[N, 256, 48, 48]`, `[N, 512, 24, 24]`, `[N, 1024, 12, 12]`. The last stage's output is a fifth,
    `[N, 1024, 12, 12]`, where the encoder has that stage.
    """

    def __init__(self, *, last_stage: bool) -> None:
        super().__init__()
        import timm

        self.last_stage = last_stage
        # timm's own initial weights take ten seconds to draw.
        options = {"num_classes": 0, "drop_path_rate": 0.1, "weight_init": "skip"}
        self.network = timm.create_model("swin_base_patch4_window12_384", **options)
        self.network.norm = nn.Identity()
        if not last_stage:
            self.network.layers[-1].blocks = nn.Identity()

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Normalised frames `[N, 3, 384, 384]` to four or five maps."""
        features = self.network.patch_embed(frames)  # [N, h, w, C]
        maps = [features]
        for index, stage in enumerate(self.network.layers):
            if index:
                features = stage.downsample(features)
                maps.append(features)
            features = stage.blocks(features)
        if self.last_stage:
            maps.append(features)
        return [one.permute(0, 3, 1, 2) for one in maps]


class ChannelAttention(nn.Module):
    """Weigh channels by what the means of all say of each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // 16
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        """`[N, C, h, w]` to the same."""
        weighed: Tensor = features * self.conv_du(features.mean(dim=(2, 3), keepdim=True))
        return weighed


class ResidualChannelAttention(nn.Module):
    """Two convolutions and channel attention beside a skip: RCAB (arXiv 1807.02758)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(first, nn.ReLU(), second, ChannelAttention(channels))

    def forward(self, features: Tensor) -> Tensor:
        """`[N, C, h, w]` to the same."""
        result: Tensor = features + self.body(features)
        return result


def enlarge(features: Tensor, factor: int) -> Tensor:
    """`[N, C, h, w]` to `[N, C, factor * h, factor * w]`, bilinear with corners aligned."""
    if factor == 1:
        return features
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=True)


def append_latent(features: Tensor, latent: Tensor) -> Tensor:
    """Features `[N, C, h, w]` with a latent `[N, L]` at every position: `[N, C + L, h, w]`."""
    return torch.cat([features, latent[:, :, None, None].expand(-1, -1, *features.shape[2:])], dim=1)


@dataclass
class SalientStages:
    """Intermediates of a forward pass; B * T = N rows, clip-major."""

    encoder: list[Tensor]  # [N, C_i, h, w]
    reduced: list[Tensor]  # [N, 32, h, w]
    latent: Tensor  # [N, 32, 12, 12], the coarsest map with the latent
    decoder: list[Tensor]  # [N, C, h, w], in the order of execution
    logits: Tensor  # [B, T, H, W]


class SalientNetwork(Network):
    """Inputs and outputs of both; a network adds `segment`."""

    @property
    def latent_width(self) -> int:
        """The width of the latent."""
        assert self.record.latent is not None
        return self.record.latent.width

    def segment(self, frames: Tensor, latent: Tensor) -> SalientStages:
        """Frames `[N, 3, 384, 384]` and latents `[N, latent_width]` to stages with logits `[N, 1, 384, 384]`."""
        raise NotImplementedError

    def forward(self, frames: Tensor, latent: Tensor | None = None) -> Tensor:
        """Segment clips.

        Args:
            frames: `[B, T, 3, H, W]` of any size, scaled to [0, 1] and normalised with ImageNet's mean and deviation.
                They are resized to 384 x 384, bilinear with half-pixel centres, and logits back.
            latent: `[B, T, latent_width]`, normally distributed in the release's test; by default zero, the mean.

        Returns:
            logits `[B, T, H, W]`.

        Raises:
            ClipShapeError: a shape that the network cannot work with.
        """
        return self.forward_stages(frames, latent).logits

    def forward_stages(self, frames: Tensor, latent: Tensor | None = None) -> SalientStages:
        """As `forward`, with what is computed on the way."""
        check_frames(frames, multiple=1)
        batch, length = frames.shape[:2]
        if latent is None:
            latent = frames.new_zeros(batch, length, self.latent_width)
        elif latent.shape != (batch, length, self.latent_width):
            wanted = f"[B, T, {self.latent_width}] with the frames' B = {batch} and T = {length}"
            raise ClipShapeError(f"latents must be {wanted}, not {list(latent.shape)}.")
        stages = self.segment(_resize(frames.flatten(0, 1), (SIDE, SIDE)), latent.flatten(0, 1))
        stages.logits = _resize(stages.logits, (frames.shape[3], frames.shape[4])).unflatten(0, (-1, length))[:, :, 0]
        return stages


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False)
