"""The masks of a verification side by side, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from avsbg.atomic import atomic_file
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.verify.verify import DECISION, select_vectors

FLIPPED = (255, 64, 0)
_GAP, _LINE = 4, 16


def save_masks(
    bundle: Bundle, probabilities: Mapping[str, Mapping[str, NDArray[Any]]], clips: Sequence[int], path: Path
) -> None:
    """Write a PNG: the frames and PyTorch's masks of the first vectors' clips, below them each case's masks.

    A mask is white where it sounds; a pixel on the other side than PyTorch's is red.

    Args:
        probabilities: by label of the case, by file of vectors: `[B, T, H, W]`.
        clips: as for `select_vectors`.

    Raises:
        BundleError: the bundle has no such vectors.
    """
    vectors = next(iter(select_vectors(bundle, clips)))
    reference = _flat(vectors.outputs["probability"]) > DECISION
    frames = vectors.inputs["frames"]
    rows: list[tuple[str, NDArray[np.uint8]]] = [
        ("frames", frames.reshape(-1, *frames.shape[2:])),
        ("PyTorch", _grey(reference)),
    ]
    for case, by_file in probabilities.items():
        mask = _flat(by_file[vectors.record.file]) > DECISION
        marked = _grey(mask)
        marked[mask != reference] = FLIPPED
        flipped = float((mask != reference).mean())
        rows.append((f"{case}: {flipped:.3%} flipped", marked))
    count, height, width = rows[0][1].shape[:3]
    sheet = Image.new("RGB", (count * (width + _GAP) + _GAP, len(rows) * (height + _LINE + _GAP)), (32, 32, 32))
    draw = ImageDraw.Draw(sheet)
    for number, (label, images) in enumerate(rows):
        top = number * (height + _LINE + _GAP)
        draw.text((_GAP, top + 2), label, fill=(255, 255, 255))
        for column, pixels in enumerate(images):
            sheet.paste(Image.fromarray(pixels), (_GAP + column * (width + _GAP), top + _LINE))
    with atomic_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def _flat(probability: NDArray[Any]) -> NDArray[Any]:
    return probability.reshape(-1, *probability.shape[2:])


def _grey(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1)
