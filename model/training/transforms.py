"""How the files of AVSBench become tensors, exactly as the published loaders do it. Nothing is resized or augmented."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from avsbg.model.training.layout import Task

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalise(frames: Tensor) -> Tensor:
    """uint8 `[..., H, W, 3]`, RGB, to float32 `[..., 3, H, W]`, scaled to [0, 1] and normalised with ImageNet's mean
    and deviation."""
    mean, std = (torch.tensor(values, device=frames.device) for values in (_MEAN, _STD))
    return ((frames.to(torch.float32) / 255.0 - mean) / std).movedim(-1, -3)


def frame_array(image: Image.Image) -> Tensor:
    """An image file to uint8 `[H, W, 3]`, RGB."""
    return torch.from_numpy(np.array(image.convert("RGB")))


def mask_array(image: Image.Image, task: Task) -> Tensor:
    """A mask file to float32 `[H, W]`.

    S4 masks become 1-bit (grey values with error diffusion), so 0 or 1. MS3 masks become palette indices divided by
    255: grey and 1-bit files with the values 0 and 255 give 0 and 1. A colour file would give indices of whatever
    palette Pillow chooses, so it is refused.

    Raises:
        ValueError: an MS3 mask that is neither grey, 1-bit, nor a palette file with the indices 0 and 255.
    """
    if task == "s4":
        return torch.from_numpy(np.array(image.convert("1"))).to(torch.float32)
    indices = torch.from_numpy(np.array(image.convert("P")))
    if image.mode == "P" and not bool(((indices == 0) | (indices == 255)).all()):
        raise ValueError("a palette file whose indices are not 0 and 255")
    if image.mode not in ("1", "L", "P"):
        raise ValueError(f"an image of mode {image.mode}, neither grey nor 1-bit")
    return indices.to(torch.float32) / 255.0
