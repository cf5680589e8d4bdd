"""AVSS, the semantic subset of AVSBench (arXiv 2301.13190), as its released loader reads it.

The layout is that of `avs_scripts/avss` in OpenNLPLab/AVSBench and of its data's release:

    ROOT/metadata.csv       columns uid, label (the subset: v1s, v1m, v2) and split, among others
    ROOT/label2idx.json     the classes, the background first
    ROOT/SUBSET/UID/frames/K.jpg, labels_rgb/K.png, audio.wav       K counts frames from 0

`v1s` and `v1m` are S4 and MS3, clips of five seconds; `v2` are clips of ten. Annotations are colours of PASCAL VOC's
palette by class.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from avsbg.model.avss import LABELS
from avsbg.model.front_end import log_mel
from avsbg.model.training.data import Sample, frame_array, open_image
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import SPLITS, Split, is_name
from avsbg.model.training.media import read_sound
from avsbg.runtime.segment.palette import COLOURS

# Frames of a clip by subset; the networks of AVSS are given ten, of which those that a clip lacks are black.
SUBSETS = {"v1s": 5, "v1m": 5, "v2": 10}
FRAMES = 10
SIZE = 224  # pixels, of the released loader


@dataclass(frozen=True)
class AvssClip:
    """One row of the table and where its files lie."""

    folder: Path
    name: str
    subset: str
    split: Split

    @property
    def category(self) -> str:
        """The subset, which is all that a clip is sorted by."""
        return self.subset

    @property
    def wav(self) -> Path:
        return self.folder / "audio.wav"

    @property
    def frames(self) -> int:
        """Number of frames."""
        return SUBSETS[self.subset]

    @property
    def masks(self) -> int:
        """Number of annotated frames: the first alone of S4's clips for training, else all."""
        return 1 if self.subset == "v1s" and self.split == "train" else self.frames


class AvssDataset:
    """A split of AVSS; clips are in the table's order, resized to one size.

    As in the released loader frames are resized bilinearly by Pillow and annotations to the nearest pixel, both without
    regard to their aspect, and where the sound is too short for a frame its log-mel patch is zero. A colour that
    belongs to no class is background; `unknown` counts the pixels of such so far. Sound is brought to 16 kHz by FFmpeg.
    """

    def __init__(self, root: Path, split: Split, *, height: int = SIZE, width: int = SIZE) -> None:
        """Open a split. A `DatasetError` if the table, the classes or its clips are not AVSS's; later, of files."""
        self.height, self.width = height, width
        self.clips, self.sound, self.unknown = read_avss_clips(root, split), "wav", 0
        _check_classes(root / "label2idx.json")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        """The clip; its masks are numbers of classes, int64 `[T, H, W]`."""
        clip, size = self.clips[index], (self.width, self.height)
        frames = [
            open_image(clip.folder / "frames" / f"{k}.jpg", lambda image: frame_array(_fit(image, size, smooth=True)))
            for k in range(clip.frames)
        ]
        labels = [
            open_image(clip.folder / "labels_rgb" / f"{k}.png", lambda image: self._labels(_fit(image, size)))
            for k in range(clip.masks)
        ]
        return Sample(clip, torch.stack(frames), _patches(clip), torch.stack(labels))

    def _labels(self, image: Image.Image) -> Tensor:
        numbers = class_numbers(np.array(image))
        self.unknown += int((numbers < 0).sum())
        return torch.from_numpy(np.maximum(numbers, 0))


def class_numbers(colours: Any) -> Any:
    """The classes of colours: uint8 `[..., 3]` to int64 `[...]`, -1 where a colour belongs to none."""
    codes = np.full(2**24, -1, np.int64)
    codes[_codes(COLOURS[: len(LABELS)])] = np.arange(len(LABELS))
    return codes[_codes(colours)]


def _codes(colours: Any) -> Any:
    red, green, blue = np.moveaxis(np.asarray(colours, np.int64), -1, 0)
    return (red << 16) + (green << 8) + blue


def _fit(image: Image.Image, size: tuple[int, int], *, smooth: bool = False) -> Image.Image:
    return image.convert("RGB").resize(size, Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST)


def _patches(clip: AvssClip) -> Tensor:
    """A log-mel patch for each frame, `[T, 1, 96, 64]`."""
    found = log_mel(read_sound(clip.wav))[: clip.frames]
    return F.pad(found, (0, 0, 0, 0, 0, 0, 0, clip.frames - len(found)))


def read_avss_clips(root: Path, split: Split) -> list[AvssClip]:
    """The clips of a split in the table's order; a `DatasetError` if there are none, or a row is no clip."""
    table, clips = root / "metadata.csv", []
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            for row in reader:
                clip = _clip(row, root, f"{table}, line {reader.line_num}")
                clips += [clip] if clip.split == split else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        hint = "Give the folder that AVSS was unpacked in: it holds metadata.csv, v1s, v1m and v2."
        raise DatasetError(f"{table} cannot be read: {error}.", hint) from error
    if not clips:
        raise DatasetError(f"{table} lists no clips of the split {split}.")
    return clips


def _clip(row: dict[str, str | None], root: Path, where: str) -> AvssClip:
    missing = [column for column in ("uid", "label", "split") if row.get(column) is None]
    if missing:
        raise DatasetError(f"{where}: there is no {missing[0]}.", "AVSS's table has the columns uid, label and split.")
    name, subset, found = row["uid"] or "", row["label"] or "", row["split"] or ""
    if not is_name(name):
        raise DatasetError(f"{where}: {name!r} cannot be the name of a clip.")
    if subset not in SUBSETS:
        raise DatasetError(f"{where}: the subset is {subset!r}, not one of {', '.join(SUBSETS)}.")
    for split in SPLITS:
        if split == found:
            return AvssClip(root / subset / name, name, subset, split)
    raise DatasetError(f"{where}: the split is {found!r}, not one of {', '.join(SPLITS)}.")


def _check_classes(path: Path) -> None:
    """Raise a `DatasetError` if the data's classes are not those whose numbers the networks know."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}.", "AVSS's release has it beside its table.") from error
    if not isinstance(found, dict) or not all(isinstance(number, int) for number in found.values()):
        raise DatasetError(f"{path} gives no number to each class.")
    names = tuple(sorted(found, key=lambda name: found[name]))  # from 0, or from 1
    if names != LABELS:
        known = next((pair for pair in zip(names, LABELS, strict=False) if pair[0] != pair[1]), None)
        difference = f"{known[0]!r} stands for {known[1]!r}" if known else f"{len(names)} for {len(LABELS)}"
        raise DatasetError(f"{path} has other classes than the networks know: {difference}.")
