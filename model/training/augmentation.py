"""What a step may see instead of the clips themselves: neither publication augments, our own small recipe does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Of sound, at most: mel bins up or down, the range of pitches and of tempo, the logarithm of a band's and of all bands'
# loudness (standard deviations).
_SHIFT, _RANGE, _TEMPO = 3.0, 0.1, 0.25
_BANDS, _BAND_GAIN, _GAIN = 8, 0.7, 0.7


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


def vary_sound(log_mel: Tensor) -> Tensor:
    """Play sound again as another recording of the same thing might have it: higher, slower, in another room.

    Pitch, tempo and beginning are changed by sampling the spectrogram anew, the spectrum by a smooth random curve over
    eight bands. All patches of a clip change alike. The numbers are drawn from PyTorch's own generator of the CPU.

    Args:
        log_mel: log-mel patches `[N, ..., 96, 64]` (time, mel), N clips or patches that change independently.

    Returns:
        the same shape.
    """
    count, height, width = len(log_mel), *log_mel.shape[-2:]
    patches = log_mel.reshape(count, -1, height, width)
    mapping = torch.zeros(count, 2, 3)  # of normalised coordinates: x is pitch, y is time
    mapping[:, 0, 0] = 1 + _RANGE * _uniform(count)
    mapping[:, 0, 2] = _SHIFT / (width / 2) * _uniform(count)
    mapping[:, 1, 1] = (_TEMPO * _uniform(count)).exp()
    mapping[:, 1, 2] = 0.2 * _uniform(count)
    grid = F.affine_grid(mapping, list(patches.shape), align_corners=False)
    moved = F.grid_sample(patches, grid, padding_mode="reflection", align_corners=False)
    curve = F.interpolate(_BAND_GAIN * torch.randn(count, 1, _BANDS), size=width, mode="linear", align_corners=True)
    return (moved + curve[:, :, None] + _GAIN * torch.randn(count, 1, 1, 1)).reshape(log_mel.shape)


def _uniform(count: int) -> Tensor:
    """`count` numbers between -1 and 1."""
    return 2 * torch.rand(count) - 1
