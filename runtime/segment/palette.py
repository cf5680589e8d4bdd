"""Colours of classes, and the legend of those in a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

_LINE = 14  # pixels


def _class_colours() -> Array:
    """The palette of PASCAL VOC, which AVSS takes too: bits of the number, three at a time, from the highest down."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for place in range(3):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * place + channel) & 1) << (7 - place)).astype(np.uint8)
    return colours


COLOURS = _class_colours()  # uint8 `[256, 3]`, by class; the background, 0, is black


def make_legend(mask: Array, labels: tuple[str, ...]) -> Array:
    """A panel with the names and colours of a mask's classes, the largest area first: uint8 RGB `[h, w, 3]`.

    `mask` holds numbers of classes, uint8 `[h, w]`. As many are named as there is room for beside the mask; the panel
    is not larger, its height and width are even, and zero where there are no classes.
    """
    from PIL import ImageDraw

    areas = np.bincount(mask.ravel(), minlength=len(labels))[1 : len(labels)]
    found = [int(number) + 1 for number in np.argsort(-areas, kind="stable") if areas[number]]
    found = found[: mask.shape[0] // _LINE]
    width = max((ImageDraw.ImageDraw(Image.new("L", (1, 1))).textlength(labels[number]) for number in found), default=0)
    panel = Image.new("RGB", (min(int(width) + 2 * _LINE, mask.shape[1]) // 2 * 2 if found else 0, _LINE * len(found)))
    draw = ImageDraw.Draw(panel)
    for row, number in enumerate(found):
        top = row * _LINE
        draw.rectangle((2, top + 2, 11, top + 11), fill=tuple(COLOURS[number].tolist()))
        draw.text((16, top), labels[number], fill="white")
    return np.asarray(panel)


def show_legend(pixels: Array, mask: Array, labels: tuple[str, ...]) -> Array:
    """`pixels` (uint8 `[h, w, 3]`) with the legend of a mask of its size in the upper left corner."""
    legend, shown = make_legend(mask, labels), pixels.copy()
    shown[: legend.shape[0], : legend.shape[1]] = legend
    return shown
