"""What a step may see instead of the clips themselves: neither publication augments, our own small recipe does."""

from __future__ import annotations

import torch
from torch import Tensor


def jitter_colours(frames: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of each clip at random; one clip in ten turns grey.

    A data set with one photo for most classes would else be told apart by its colours alone. All frames of a clip
    change alike. The numbers are drawn from PyTorch's own generator of the CPU.

    Args:
        frames: uint8 `[B, T, H, W, 3]`.

    Returns:
        the same shape and type.
    """
    from torchvision.transforms import v2

    change = v2.Compose(
        [v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.6, hue=0.15), v2.RandomGrayscale(0.1)]
    )
    return torch.stack([change(clip.movedim(-1, -3)).movedim(-3, -1) for clip in frames])
