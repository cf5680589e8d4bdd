"""LVS (arXiv 2104.02691), as its released code computes it: where a frame's features resemble the sound's.

Data flow: a ResNet-18 for frames and one for the spectrogram -> cosine similarity at each position -> heat map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.clips import check_frames, check_sound
from avsbg.model.network import Network, Stages
from avsbg.model.resnet18 import ResNet18
from avsbg.model.variants import Variant

# The tri-map of its training: a position sounds for certain where the similarity is above, within so much.
THRESHOLD, WIDTH_OF_EDGE = 0.65, 0.03
SECONDS, WINDOW, HOP = 10, 512, 238  # of sound; samples
BINS = WINDOW // 2 + 1


@dataclass
class LvsStages(Stages):
    """Intermediates of a forward pass; B * T = N rows, clip-major, S sounds a clip."""

    frame: list[Tensor]  # [N, C, h, w], after the first pool and each of four layers
    sound: list[Tensor]  # [B * S, C, h, w], likewise
    pooled: Tensor  # [B * S, 512], before normalisation
    heat: Tensor  # [B, T, H / 16, W / 16]


class LogSpectrogram(nn.Module):
    """The spectrogram of 10 seconds of sound: SciPy's power density, its logarithm divided by 12."""

    kernels: Tensor
    scale: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32, sample_rate: int = 16000) -> None:
        super().__init__()
        self.samples = SECONDS * sample_rate
        window = tukey_window(WINDOW, 0.25)
        phase = 2 * np.pi * np.outer(np.arange(BINS), np.arange(WINDOW)) / WINDOW
        kernels = np.concatenate([np.cos(phase), np.sin(phase)]) * window
        # SciPy subtracts each segment's mean before the window; the transform is linear, so its kernels can.
        kernels -= kernels.mean(axis=1, keepdims=True)
        scale = np.full((BINS, 1), 2.0 / (sample_rate * (window**2).sum()))
        scale[[0, -1]] /= 2  # the two bins that no negative frequency doubles
        self.register_buffer("kernels", torch.from_numpy(kernels[:, None]).to(dtype), persistent=False)
        self.register_buffer("scale", torch.from_numpy(scale).to(dtype), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Mono sound at 16 kHz `[B, n]` to `[B, 257, 671]`; sound of less than 10 s is repeated, longer sound is cut.

        The release repeats it from its beginning as often as it takes.
        """
        repeats = -(-self.samples // waveform.shape[1])
        sound = waveform.repeat(1, repeats)[:, : self.samples].clamp(-1.0, 1.0)
        transform = F.conv1d(sound[:, None], self.kernels, stride=HOP)
        real, imaginary = transform.split(BINS, dim=1)
        return torch.log((real * real + imaginary * imaginary) * self.scale + 1e-7) / 12.0


def tukey_window(length: int, alpha: float) -> np.ndarray:
    """The periodic Tukey window, float64 `[length]`: a cosine over the first and the last `alpha / 2`, 1 between."""
    place = np.arange(length) / length
    edge = np.minimum(1.0, np.minimum(place, 1.0 - place) / (alpha / 2))
    return 0.5 - 0.5 * np.cos(np.pi * edge)


class Lvs(Network):
    """The network; see the module's docstring. Any T, any H and W that are multiples of 32."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.imgnet = ResNet18(3, "conv1")
        self.audnet = ResNet18(1, "conv1_a")

    def forward(self, frames: Tensor, sound: Tensor) -> Tensor:
        """Locate sounds.

        Args:
            frames: `[B, T, 3, H, W]`, scaled to [0, 1] and normalised with ImageNet's mean and deviation.
            sound: log spectrograms `[B, S, 257, 671]`; S is T, or 1 where the clip's frames share its sound.

        Returns:
            logits `[B, T, H, W]`, `(heat - 0.65) / 0.03`.

        Raises:
            ClipShapeError: a shape that the network cannot work with.
        """
        return self.forward_stages(frames, sound).logits

    def forward_stages(self, frames: Tensor, sound: Tensor) -> LvsStages:
        """As `forward`, with everything computed on the way."""
        check_frames(frames)
        check_sound(frames, sound, rows=257)
        visual = self.imgnet(frames.flatten(0, 1))
        audio = self.audnet(sound.flatten(0, 1)[:, None])
        pooled = audio[-1].amax(dim=(2, 3))
        features = F.normalize(visual[-1], dim=1).unflatten(0, frames.shape[:2])  # [B, T, 512, h, w]
        query = F.normalize(pooled, dim=1).unflatten(0, sound.shape[:2])[..., None, None]  # [B, S, 512, 1, 1]
        heat = (features * query).sum(dim=2)
        enlarged = F.interpolate(heat, scale_factor=16.0, mode="bilinear", align_corners=False)
        logits = (enlarged - THRESHOLD) / WIDTH_OF_EDGE
        return LvsStages(logits, visual, audio, pooled, heat)
