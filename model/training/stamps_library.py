"""The catalogue's media, loaded and dealt out to the splits so that the test split shows and sounds something new."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg.model.front_end import SAMPLE_RATE
from avsbg.model.training import stamps_catalogue as catalogue
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import SPLITS, Split
from avsbg.model.training.media import read_sound

Array = NDArray[Any]
HeldOut = Literal["scenes", "classes"]

_BACKGROUND_SIDE = 640  # pixels of the shorter side: enough for crops of 448
_DIVIDED_SECONDS = 3.0  # recordings at least this long are divided between training and test
_TRAINING_PART = 0.6
_STRANGERS_VALIDATION = 5  # every fifth distractor appears in the validation split, the others in training
_CLASS_PARTS = {"train": 0.7, "val": 0.15, "test": 0.15}


@dataclass(frozen=True)
class Stamp:
    """A class as a split may use it.

    Attributes:
        photos: RGBA cut-outs.
        sound: float64 `[n]`, 16 kHz, mono, of root mean square 1; None if it never sounds.
    """

    name: str
    photos: tuple[Image.Image, ...]
    sound: Array | None


@dataclass
class Library:
    """What each split may show and play.

    Attributes:
        distractors: photos of objects of no class, which may stand in for any; none in the test split.
        limits: what training and test share although one would wish otherwise, in words.
        sources: path, SHA-256 and licence of every file that was read.
    """

    sounding: dict[Split, list[Stamp]] = field(default_factory=dict)
    silent: list[Stamp] = field(default_factory=list)
    distractors: dict[Split, list[Image.Image]] = field(default_factory=dict)
    backgrounds: dict[Split, list[Image.Image]] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)
    sources: list[dict[str, str]] = field(default_factory=list)


def load_library(stamps: Path, backgrounds: Path, *, held_out: HeldOut, seed: int) -> Library:
    """Load the catalogue's files.

    Args:
        stamps, backgrounds: the folders that the Debian packages install.
        held_out: `scenes`: every split has every class, on backgrounds of its own, and the test split has photos and
            recordings of its own where there are two, or the later part of a long recording. `classes`: every split
            has classes of its own, too.
        seed: decides which backgrounds and classes go where.

    Raises:
        DatasetError: a file is missing or cannot be read.
    """
    library = Library()
    _load_backgrounds(library, backgrounds, seed)
    parts: dict[Split, Sequence[catalogue.StampFiles]] = dict.fromkeys(SPLITS, catalogue.SOUNDING)
    if held_out == "classes":
        parts = _divide(catalogue.SOUNDING, seed)
    shared = []
    for split in SPLITS:
        library.sounding[split] = []
        for files in parts[split]:
            stamp, is_shared = _load_stamp(library, stamps, files, split, divide=held_out == "scenes")
            library.sounding[split].append(stamp)
            if is_shared and split == "test":
                shared.append(files.name)
    if shared and held_out == "scenes":
        library.limits.append(
            f"One short recording each, heard in every split, for {len(shared)} of {len(catalogue.SOUNDING)} classes: "
            f"{', '.join(shared)}."
        )
    one_photo = [files.name for files in parts["test"] if files.test_photo is None]
    if held_out == "scenes":
        library.limits.append(f"One photo each, seen in every split, for the classes {', '.join(one_photo)}.")
        library.limits.append("The validation split has backgrounds of its own, but the training split's recordings.")
    library.limits.append("Silent objects are the same in every split.")
    distractors = [_photo(library, stamps, path) for path in catalogue.STRANGERS]
    library.distractors = {"train": [], "val": [], "test": []}
    for index, photo in enumerate(distractors):
        library.distractors["val" if index % _STRANGERS_VALIDATION == 0 else "train"].append(photo)
    library.silent = [Stamp(Path(path).name, (_photo(library, stamps, path),), None) for path in catalogue.SILENT]
    return library


def _divide(items: Sequence[Any], seed: int) -> dict[Split, Sequence[Any]]:
    """Deal items out to the splits: 70, 15 and 15 per cent, by the seed."""
    order = np.random.default_rng([seed, 1]).permutation(len(items))
    first, second = (round(len(items) * part) for part in (_CLASS_PARTS["train"], 1 - _CLASS_PARTS["test"]))
    bounds = {"train": (0, first), "val": (first, second), "test": (second, len(items))}
    return {split: [items[i] for i in sorted(order[slice(*bounds[split])])] for split in SPLITS}


def _load_backgrounds(library: Library, folder: Path, seed: int) -> None:
    parts = _divide(list(catalogue.BACKGROUND_LICENCES), seed)
    for split in SPLITS:
        library.backgrounds[split] = []
        for name in parts[split]:
            image = _open(library, folder / name, catalogue.BACKGROUND_LICENCES[name]).convert("RGB")
            scale = _BACKGROUND_SIDE / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            library.backgrounds[split].append(image.resize(size, Image.Resampling.LANCZOS))


def _load_stamp(
    library: Library, folder: Path, files: catalogue.StampFiles, split: Split, *, divide: bool
) -> tuple[Stamp, bool]:
    """A class as `split` may use it, and whether its recording is the same in all splits."""
    in_test = split == "test" and divide
    paths = (files.test_photo,) if in_test and files.test_photo else (files.path, *files.more_photos)
    photos = tuple(_photo(library, folder, path) for path in paths)
    other = files.test_sound if in_test else None
    sound = _sound(library, folder / f"{other or files.path}.ogg")
    shared = files.test_sound is None
    if divide and files.test_sound is None and len(sound) >= _DIVIDED_SECONDS * SAMPLE_RATE:
        cut = round(len(sound) * _TRAINING_PART)
        # A recording that fades away has nothing to test with in its end.
        if np.std(sound[cut:]) > 0.3 * np.std(sound[:cut]):
            sound, shared = sound[cut:] if in_test else sound[:cut], False
    return Stamp(files.name, photos, sound / np.sqrt(np.mean(sound**2))), shared


def _sound(library: Library, path: Path) -> Array:
    samples = read_sound(path).astype(np.float64).mean(axis=1) / 32768.0
    _remember(library, path, catalogue.STAMPS_LICENCE)
    if not np.any(samples):
        raise DatasetError(f"{path} is silent.", f"Install the Debian packages {catalogue.PACKAGES}.")
    return np.asarray(samples)


def _photo(library: Library, folder: Path, path: str) -> Image.Image:
    image = _open(library, folder / f"{path}.png", catalogue.STAMPS_LICENCE).convert("RGBA")
    return image.crop(image.getchannel("A").getbbox())


def _open(library: Library, path: Path, licence: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error}.",
            f"Install the Debian packages {catalogue.PACKAGES}, or give their folders with --stamps and --backgrounds.",
        ) from error
    _remember(library, path, licence)
    return image


def _remember(library: Library, path: Path, licence: str) -> None:
    record = {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "licence": licence}
    if record not in library.sources:
        library.sources.append(record)
