"""VGGish, the frozen audio encoder of both publications: log-mel patch to a 128-vector (arXiv 1609.09430)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LAYERS: tuple[int | None, ...] = (64, None, 128, None, 256, 256, None, 512, 512, None)  # None: 2 x 2 max-pool


class VGGish(nn.Module):
    """Six convolutions and three linear layers, each with a ReLU, the last one too: embeddings are not negative.

    Its keys are those of the public release, which `avsbg.model.load_checkpoint` reads.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in _LAYERS:
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


def pca_quantise(embedding: Tensor, eigen_vectors: Tensor, means: Tensor) -> Tensor:
    """AudioSet's post-processing: PCA, clip to [-2, 2], quantise to 0..255. Neither publication applies it.

    Args:
        embedding: `[N, 128]`. eigen_vectors: `[128, 128]`. means: `[128, 1]`.

    Returns:
        `[N, 128]`, whole numbers from 0 to 255.
    """
    projected = torch.matmul(eigen_vectors, embedding.T - means).T
    return torch.round((projected.clamp(-2.0, 2.0) + 2.0) * (255.0 / 4.0))
