"""A picture of a data set to look at: clips in rows, seconds in columns, what sounds outlined and tinted."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from avsbg.model.training.dataset import AvsBenchDataset, Sample

_TINT = np.array([255.0, 40.0, 40.0])
_CAPTION = 16  # pixels


def contact_sheet(dataset: AvsBenchDataset, clips: int) -> Image.Image:
    """Draw clips spread evenly over a split; frames without annotation (S4's training split) are left as they are."""
    indices = np.unique(np.linspace(0, len(dataset) - 1, clips).round().astype(int))
    rows = [_row(dataset[int(index)]) for index in indices]
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(sample: Sample) -> Image.Image:
    frames = sample.frames.numpy().astype(np.float64)
    masks = sample.masks.numpy() > 0.5
    for frame, mask in zip(frames, masks, strict=False):
        inside = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
        frame[mask] = 0.65 * frame[mask] + 0.35 * _TINT
        frame[mask & ~inside] = _TINT
    strip = Image.fromarray(np.concatenate(list(frames), axis=1).round().astype(np.uint8))
    row = Image.new("RGB", (strip.width, strip.height + _CAPTION), "white")
    row.paste(strip, (0, _CAPTION))
    ImageDraw.Draw(row).text((4, 2), f"{sample.clip.name}  {sample.clip.category}".rstrip(), fill="black")
    return row
