"""The visual-to-audio projection: the sound that the masked features would make (bidirectional generation).

Training only (paper, section 3.4 and equation 4): inference never runs it and exported graphs do not carry it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.clips import AUDIO_WIDTH

SIDE = 7  # of stage 3 at 224 x 224, the size the projection is published for


class VisualToAudio(nn.Module):
    """Project masked stage-3 features back to an audio embedding: three convolutions and one weight per position.

    Purely linear, as released. The weights belong to 7 x 7 positions, stage 3 at 224 x 224. At another size, which the
    release cannot train, the encoded map is pooled or repeated to 7 x 7 (adaptive average); at 224 nothing changes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask_encoder = nn.Sequential(
            nn.Conv2d(channels, 64, 1, bias=False),
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            nn.Conv2d(64, AUDIO_WIDTH, 1, bias=False),
        )
        self.project = nn.Linear(SIDE * SIDE, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Generate audio embeddings.

        Args:
            features: stage-3 features `[N, C, h, w]`.
            mask: `[N, 1, H, W]`: ground truth (MS3) or the network's own raw logits (S4).

        Returns:
            generated embeddings `[N, 128]`, not normalised.
        """
        size = features.shape[-2:]
        masked = features * F.adaptive_avg_pool2d(mask, (size[0], size[1]))
        encoded = self.mask_encoder(masked)
        if size.numel() != SIDE * SIDE:  # 112 x 448 has 49 positions too, and the release trains on them
            encoded = F.adaptive_avg_pool2d(encoded, (SIDE, SIDE))
        projected: Tensor = self.project(encoded.flatten(2))
        return projected.squeeze(2)


def latent_loss(audio: Tensor, generated: Tensor) -> Tensor:
    """Mean distance between the unit vectors of recorded and generated sound (paper, equation 4, without the square).

    Args: both `[N, 128]`. 1e-6 is added to each difference, as PyTorch's pairwise distance does.
    """
    return torch.mean(F.pairwise_distance(F.normalize(audio, dim=1), F.normalize(generated, dim=1)))
