"""A contact sheet of a data set: clips in rows, seconds in columns, sounding objects outlined and tinted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from avsbg.atomic import atomic_file
from avsbg.model.training.data import AvsBenchDataset, Sample

_TINT = np.array([255.0, 40.0, 40.0])
_OUTLINE = np.array([255.0, 255.0, 255.0])  # of the annotation where a prediction is tinted
_CAPTION = 16  # pixels
_LEAST_WIDTH = 160  # of a frame; smaller ones are enlarged

Masks = NDArray[Any]


def write_contact_sheet(
    path: Path, dataset: AvsBenchDataset, clips: int, predict: Callable[[Sample], Masks] | None = None
) -> Image.Image:
    """Draw clips spread evenly over a split; frames without annotation (S4's training split) are left as they are.

    With `predict`, a clip to masks bool `[5, H, W]`, its masks are tinted and the annotation is outlined in white.
    """
    indices = np.unique(np.linspace(0, len(dataset) - 1, clips).round().astype(int))
    rows = [_row(sample, predict and predict(sample)) for sample in (dataset[int(index)] for index in indices)]
    sheet = Image.fromarray(np.concatenate([np.asarray(row) for row in rows]))
    with atomic_file(path) as temporary:
        sheet.save(temporary)
    return sheet


def _row(sample: Sample, predicted: Masks | None) -> Image.Image:
    enlarge = -(-_LEAST_WIDTH // sample.frames.shape[2])
    frames = _enlarged(sample.frames.numpy().astype(np.float64), enlarge)
    masks = _enlarged(sample.masks.numpy() > 0.5, enlarge)
    if predicted is not None:
        _tint(frames, _enlarged(predicted, enlarge))
    for frame, mask in zip(frames, masks, strict=False):
        inside = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
        if predicted is None:
            _tint(frame, mask)
        frame[mask & ~inside] = _TINT if predicted is None else _OUTLINE
    strip = Image.fromarray(np.concatenate(list(frames), axis=1).round().astype(np.uint8))
    row = Image.new("RGB", (strip.width, strip.height + _CAPTION), "white")
    row.paste(strip, (0, _CAPTION))
    ImageDraw.Draw(row).text((4, 2), f"{sample.clip.name}  {sample.clip.category}".rstrip(), fill="black")
    return row


def _enlarged(frames: Masks, by: int) -> Masks:
    """`[T, H, W, ...]`, each pixel repeated in both directions."""
    return frames.repeat(by, axis=1).repeat(by, axis=2)


def _tint(frame: Masks, mask: Masks) -> None:
    frame[mask] = 0.65 * frame[mask] + 0.35 * _TINT
