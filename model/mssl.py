"""MSSL (arXiv 2007.06355) in the simplified version that its authors released: which of seven classes sounds where.

Data flow: a ResNet-18 for frames and one for the log-mel spectrogram -> the sound's features of each class -> their
similarity to each position -> heat map, weighted by how likely each class is to sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.clips import check_frames, check_sound
from avsbg.model.network import Network, Stages
from avsbg.model.resnet18 import WIDTH, ResNet18
from avsbg.model.variants import Variant

CLASSES = 7  # of AudioSet's first level
LEAST_PROBABILITY = 0.3  # of a class that takes part in the heat map; the most likely one always does
SAMPLE_RATE, WINDOW, HOP, BANDS = 22050, 882, 441, 64
BINS = WINDOW // 2 + 1
EPSILON = 2.220446e-16  # float64's, as released


@dataclass
class MsslStages(Stages):
    """Intermediates of a forward pass; B * T = N rows, clip-major, R = B * S sounds."""

    frame: list[Tensor]  # [N, C, h, w], after the first pool and each of four layers
    sound: list[Tensor]  # [R, C, h, w], likewise
    class_map: Tensor  # [R, 7, h, w], the sound's, after its ReLU
    class_score: Tensor  # [R, 7], of the sound, before the sigmoid
    class_feature: Tensor  # [R, 128, 7], unit norm
    frame_feature: Tensor  # [N, 128, h * w], unit norm
    similarity: Tensor  # [B, T, 7, H / 16, W / 16]


class LogMelSpectrogram(nn.Module):
    """The log-mel spectrogram of librosa 0.7, whose windows are centred and whose ends are reflected."""

    kernels: Tensor
    mel: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
        phase = 2 * np.pi * np.outer(np.arange(BINS), np.arange(WINDOW)) / WINDOW
        kernels = (np.concatenate([np.cos(phase), np.sin(phase)]) * window)[:, None]
        self.register_buffer("kernels", torch.from_numpy(kernels).to(dtype), persistent=False)
        self.register_buffer("mel", torch.from_numpy(slaney_matrix()).to(dtype), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Mono sound at 22,050 Hz `[B, n]` to `[B, 1 + n // 441, 64]` (time, mel), whatever its loudness."""
        sound = waveform / (waveform.abs().amax(dim=1, keepdim=True) + EPSILON)
        padded = F.pad(sound[:, None], (WINDOW // 2, WINDOW // 2), mode="reflect")
        real, imaginary = F.conv1d(padded, self.kernels, stride=HOP).split(BINS, dim=1)
        power = torch.matmul((real * real + imaginary * imaginary).transpose(1, 2), self.mel)
        # The release adds the number. Adding it is a rounding error away from this, and silence stays finite even where
        # an optimiser takes so small a summand for zero.
        return torch.log(power.clamp(min=EPSILON))


def slaney_matrix() -> np.ndarray:
    """The Slaney mel matrix of 0 to 11,025 Hz, float64 `[442, 64]`: triangles linear in Hz, each of unit area."""
    step, knee = 200 / 3, 1000.0  # Hz a mel below the knee; logarithmic above
    top = knee / step + np.log(SAMPLE_RATE / 2 / knee) / (np.log(6.4) / 27)
    mels = np.linspace(0.0, top, BANDS + 2)
    hertz = np.where(mels < knee / step, mels * step, knee * np.exp((mels - knee / step) * np.log(6.4) / 27))
    lower, centre, upper = hertz[:-2], hertz[1:-1], hertz[2:]
    bins = np.linspace(0.0, SAMPLE_RATE / 2, BINS)[:, None]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    matrix: np.ndarray = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (upper - lower))
    return matrix


def project() -> nn.Sequential:
    """Two 1 x 1 convolutions without biases, 512 to 128 channels."""
    return nn.Sequential(nn.Conv1d(WIDTH, 1024, 1, bias=False), nn.ReLU(), nn.Conv1d(1024, 128, 1, bias=False))


def heat_map(similarity: Tensor, class_score: Tensor, size: tuple[int, int]) -> Tensor:
    """The heat map in [0, 1], `[N, *size]`, of similarities `[N, 7, h, w]` and the classes' scores `[N, 7]`."""
    probability = torch.sigmoid(class_score)
    classes = torch.arange(CLASSES, device=probability.device)
    most_likely = classes == probability.argmax(dim=1, keepdim=True)
    weight = torch.where(
        torch.logical_or(probability > LEAST_PROBABILITY, most_likely), probability, torch.zeros_like(probability)
    )
    weight = weight / weight.sum(dim=1, keepdim=True)
    mixed = (similarity * weight[..., None, None]).sum(dim=1, keepdim=True)
    heat = F.interpolate(mixed, size, mode="bilinear", align_corners=False)[:, 0]
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)  # a map of zeros stays one


class Mssl(Network):
    """The network; see the module's docstring. Any T, any H and W that are multiples of 32."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.vision = ResNet18(3, "conv1")
        self.audio = ResNet18(1, "conv1_a")
        self.class_a = nn.Conv2d(WIDTH, CLASSES, 1, bias=False)
        self.project_a, self.project_v = project(), project()

    def probability(self, logits: Tensor) -> Tensor:
        """The heat map, of the shape of the logits."""
        return logits + 0.5

    def forward(self, frames: Tensor, sound: Tensor) -> Tensor:
        """Locate sounds.

        Args:
            frames: `[B, T, 3, H, W]`, scaled to [0, 1] and normalised with ImageNet's mean and deviation.
            sound: log-mel spectrograms `[B, S, 251, 64]`; S is T, or 1 where the clip's frames share its sound.

        Returns:
            logits `[B, T, H, W]`: the heat map less 0.5, no sigmoid's.

        Raises:
            ClipShapeError: a shape that the network cannot work with.
        """
        return self.forward_stages(frames, sound).logits

    def forward_stages(self, frames: Tensor, sound: Tensor) -> MsslStages:
        """As `forward`, with everything computed on the way."""
        check_frames(frames)
        check_sound(frames, sound, columns=64)
        visual = self.vision(frames.flatten(0, 1))
        audio = self.audio(sound.flatten(0, 1)[:, None])
        class_map = F.relu(self.class_a(audio[-1]))
        pooled = torch.matmul(audio[-1].flatten(2), class_map.flatten(2).transpose(1, 2))  # [R, 512, 7]
        if self.variant.form == "published":
            positions = class_map[0, 0].numel()
            pooled = pooled / positions / (class_map.sum(dim=(2, 3))[:, None] + 1e-10)
        # Else both factors, which are positive, are left to the normalisation: `project_a` is linear but for a ReLU. So
        # a class without a sound has a map of zeros, even where an optimiser takes 1e-10 for zero.
        class_feature = F.normalize(self.project_a(pooled), dim=1)
        frame_feature = F.normalize(self.project_v(visual[-1].flatten(2)), dim=1)
        class_score = self.class_a(audio[-1].mean(dim=(2, 3), keepdim=True))[:, :, 0, 0]

        batch, length = frames.shape[:2]
        of_class = class_feature.transpose(1, 2).unflatten(0, (-1, sound.shape[1]))  # [B, S, 7, 128]
        product = torch.matmul(of_class, frame_feature.unflatten(0, (-1, length)))  # [B, T, 7, h * w]
        similarity = F.relu(product).unflatten(3, visual[-1].shape[2:])
        scores = class_score.unflatten(0, (-1, sound.shape[1])).expand(batch, length, CLASSES)
        heat = heat_map(similarity.flatten(0, 1), scores.flatten(0, 1), (frames.shape[3], frames.shape[4]))
        logits = heat.unflatten(0, (-1, length)) - 0.5
        return MsslStages(logits, visual, audio, class_map, class_score, class_feature, frame_feature, similarity)
