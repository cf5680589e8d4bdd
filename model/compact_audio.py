"""A small audio encoder to train together with a network, where VGGish's 72 million weights are too many.

It takes VGGish's place: the same input, the same width, embeddings that are not negative. Neither publication uses it.
"""

from __future__ import annotations

from torch import Tensor, nn

from avsbg.model.clips import AUDIO_WIDTH

_WIDTHS = (24, 48, 96, 128)


class CompactAudioEncoder(nn.Module):
    """Four strided convolutions with batch norm, a mean over time, and a linear layer: 0.3 million weights."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in _WIDTHS:
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
