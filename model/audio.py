"""The audio encoders: VGGish of both publications (arXiv 1609.09430), and a small one in its place."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from avsbg.model.clips import AUDIO_WIDTH

_VGGISH_LAYERS: tuple[int | None, ...] = (64, None, 128, None, 256, 256, None, 512, 512, None)  # None: 2 x 2 max-pool
_COMPACT_WIDTHS = (24, 48, 96, 128)


class VGGish(nn.Module):
    """Six convolutions and three linear layers, each with a ReLU, the last one too: embeddings are not negative.

    Its keys are those of the public release, which `avsbg.model.load_checkpoint` reads. Both publications freeze it.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in _VGGISH_LAYERS:
            if width is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128), nn.ReLU()
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """`[N, 1, 96, 64]` (time, mel) to `[N, 128]`, or `[B, T, 1, 96, 64]` to `[B, T, 128]`."""
        patches = log_mel.flatten(0, 1) if log_mel.dim() == 5 else log_mel
        features = self.features(patches)  # [N, 512, 6, 4]
        embedding: Tensor = self.embeddings(features.permute(0, 2, 3, 1).flatten(1))  # channel fastest
        return embedding.unflatten(0, (-1, log_mel.shape[1])) if log_mel.dim() == 5 else embedding


class CompactAudioEncoder(nn.Module):
    """Four strided convolutions with batch norm, a mean over time, and a linear layer: 0.3 million weights.

    To be trained where VGGish's 72 million weights are too many: the same input, the same width, embeddings that are
    not negative. Neither publication uses it.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in _COMPACT_WIDTHS:
            convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Sequential(nn.Linear(channels * 4, AUDIO_WIDTH), nn.ReLU())

    def forward(self, log_mel: Tensor) -> Tensor:
        """`[N, 1, 96, 64]` (time, mel) to `[N, 128]`, or `[B, T, 1, 96, 64]` to `[B, T, 128]`."""
        patches = log_mel.flatten(0, 1) if log_mel.dim() == 5 else log_mel
        features = self.features(patches)  # [N, 128, 6, 4]
        embedding: Tensor = self.embedding(features.mean(dim=2).flatten(1))
        return embedding.unflatten(0, (-1, log_mel.shape[1])) if log_mel.dim() == 5 else embedding


class ZeroAudioEncoder(nn.Module):
    """An audio encoder's stand-in for networks that use no audio: all embeddings are zero."""

    def forward(self, log_mel: Tensor) -> Tensor:
        """`[B, T, 1, 96, 64]` to `[B, T, 128]`."""
        return log_mel.new_zeros(*log_mel.shape[:2], AUDIO_WIDTH)


AudioEncoderName = Literal["vggish", "compact"]
AudioEncoder: TypeAlias = VGGish | CompactAudioEncoder


def create_audio_encoder(name: AudioEncoderName) -> AudioEncoder:
    """Build `vggish`, as published, or `compact`, in evaluation mode; log-mel `[B, T, 1, 96, 64]` to `[B, T, 128]`."""
    encoder: AudioEncoder = VGGish() if name == "vggish" else CompactAudioEncoder()
    return encoder.eval()


def pca_quantise(embedding: Tensor, eigen_vectors: Tensor, means: Tensor) -> Tensor:
    """AudioSet's post-processing: PCA, clip to [-2, 2], quantise to 0..255. Neither publication applies it.

    Args: embedding `[N, 128]`; eigenvectors `[128, 128]`; means `[128, 1]`. Returns: `[N, 128]`, whole numbers.
    """
    projected = torch.matmul(eigen_vectors, embedding.T - means).T
    return torch.round((projected.clamp(-2.0, 2.0) + 2.0) * (255.0 / 4.0))
