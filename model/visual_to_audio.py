"""The visual-to-audio projection: the sound that the masked features would make (bidirectional generation).

Training only (paper, section 3.4 and equation 4): inference never runs it and exported graphs do not carry it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.errors import AvsbgError
from avsbg.model.clips import AUDIO_WIDTH

POSITIONS = 49  # of stage 3 at 224 x 224, the size the projection is published for


class VisualToAudio(nn.Module):
    """Project masked stage-3 features back to an audio embedding: three convolutions and one weight per position.

    Purely linear, as released. It is tied to the number of positions at stage 3: 49, i.e. 224 x 224 input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask_encoder = nn.Sequential(
            nn.Conv2d(channels, 64, 1, bias=False),
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            nn.Conv2d(64, AUDIO_WIDTH, 1, bias=False),
        )
        self.project = nn.Linear(POSITIONS, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Generate audio embeddings.

        Args:
            features: stage-3 features `[N, C, h, w]` with h * w = 49.
            mask: `[N, 1, H, W]`: ground truth (MS3) or the network's own raw logits (S4).

        Returns:
            generated embeddings `[N, 128]`, not normalised.

        Raises:
            AvsbgError: stage 3 does not have 49 positions.
        """
        size = features.shape[-2:]
        if size.numel() != POSITIONS:
            raise AvsbgError(
                f"the visual-to-audio projection works on {POSITIONS} positions, not {size[0]} x {size[1]}.",
                "Train at 224 x 224, or use a variant without bidirectional generation.",
            )
        masked = features * F.adaptive_avg_pool2d(mask, (size[0], size[1]))
        projected: Tensor = self.project(self.mask_encoder(masked).flatten(2))
        return projected.squeeze(2)


def latent_loss(audio: Tensor, generated: Tensor) -> Tensor:
    """Mean distance between the unit vectors of heard and generated sound (paper, equation 4, without the square).

    Args:
        audio: VGGish embeddings `[N, 128]`. generated: `[N, 128]`.

    Returns:
        a scalar; 1e-6 is added to each difference, as PyTorch's pairwise distance does.
    """
    distance = F.pairwise_distance(F.normalize(audio, dim=1), F.normalize(generated, dim=1))
    return torch.mean(distance)
