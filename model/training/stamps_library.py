"""The media of sounding stamps: a catalogue of files, loaded and divided among the splits.

No media are part of this project. `apt-get install tuxpaint-stamps-default mate-backgrounds lomiri-wallpapers-16.04`
puts them into the folders below; the generator copies each file's name, hash and licence into the data set's record.
The test split shows and sounds something new wherever the files allow it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg.model.front_end import SAMPLE_RATE
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import SPLITS, Split
from avsbg.model.training.media import read_sound

Array = NDArray[Any]
HeldOut = Literal["scenes", "classes"]

STAMPS = Path("/usr/share/tuxpaint/stamps")
BACKGROUNDS = Path("/usr/share/backgrounds")
PACKAGES = "tuxpaint-stamps-default mate-backgrounds lomiri-wallpapers-16.04"
STAMPS_LICENCE = "GPL-2 (Bill Kendrick and contributors)"

_BACKGROUND_SIDE = 640  # pixels of the shorter side: enough for crops of 448
_DIVIDED_SECONDS = 3.0  # recordings at least this long are divided between training and test
_TRAINING_PART = 0.6  # of such a recording
_VALIDATION_STEP = 5  # every fifth distractor appears in the validation split, the others in training
_TRAIN_SHARE, _TEST_SHARE = 0.7, 0.15  # of held-out classes and of backgrounds; the rest is for validation


@dataclass(frozen=True)
class StampFiles:
    """A class of sounding object: photo cut-out and recording below the stamps' folder, without suffix."""

    name: str
    path: str  # of the photo and of the recording
    test_photo: str | None = None  # another of the same class, kept for the test split
    test_sound: str | None = None  # likewise
    more_photos: Sequence[str] = ()  # of the same class, shown like `path`'s own


_CATALOGUE = json.loads(Path(__file__).with_name("stamps.json").read_text(encoding="utf-8"))
SOUNDING = tuple(StampFiles(**files) for files in _CATALOGUE["sounding"])
# Objects that never sound, animals and instruments among them, so that to be one is not to sound.
SILENT: list[str] = _CATALOGUE["silent"]
# Photos that stand in for sounding and silent objects alike in training and, others, in validation, so that a photo
# which was never seen need not be passed over: what no known object in the picture can have sounded, it may have.
# Another photo of a test photo's own animal is not among them.
DISTRACTORS: list[str] = _CATALOGUE["distractors"]
# File below the backgrounds' folder -> licence, as the packages' copyright files state it.
BACKGROUND_LICENCES: dict[str, str] = _CATALOGUE["background_licences"]


@dataclass(frozen=True)
class Stamp:
    """A class as a split may use it."""

    name: str
    photos: tuple[Image.Image, ...]  # RGBA cut-outs
    sound: Array | None  # float64 [n], 16 kHz, mono, of root mean square 1; None if it never sounds


@dataclass
class Library:
    """The media that each split may use."""

    sounding: dict[Split, list[Stamp]] = field(default_factory=dict)
    silent: list[Stamp] = field(default_factory=list)
    # Photos of objects of no class, which may stand in for any; none in the test split.
    distractors: dict[Split, list[Image.Image]] = field(default_factory=dict)
    backgrounds: dict[Split, list[Image.Image]] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)  # what training and test share although one would wish otherwise
    sources: list[dict[str, str]] = field(default_factory=list)  # path, SHA-256 and licence of every file read


def load_library(stamps: Path, backgrounds: Path, *, held_out: HeldOut, seed: int) -> Library:
    """Load the catalogue's files from the Debian packages' folders; a `DatasetError` if one cannot be read.

    With `held_out` `scenes`, every split has every class, on backgrounds of its own, and the test split has photos and
    recordings of its own where there are two, or the later part of a long recording. With `classes`, every split has
    classes of its own, too. The seed decides which backgrounds and classes go where.
    """
    library = Library()
    _load_backgrounds(library, backgrounds, seed)
    parts = dict.fromkeys(SPLITS, SOUNDING) if held_out == "scenes" else _divide(SOUNDING, seed)
    shared = []
    for split in SPLITS:
        library.sounding[split] = []
        for files in parts[split]:
            stamp, is_shared = _load_stamp(library, stamps, files, split, divide=held_out == "scenes")
            library.sounding[split].append(stamp)
            if is_shared and split == "test":
                shared.append(files.name)
    if held_out == "scenes":
        heard = f"One short recording each, heard in every split, for {len(shared)} of {len(SOUNDING)} classes"
        one_photo = [files.name for files in parts["test"] if files.test_photo is None]
        if shared:
            library.limits.append(f"{heard}: {', '.join(shared)}.")
        library.limits.append(f"One photo each, seen in every split, for the classes {', '.join(one_photo)}.")
        library.limits.append("The validation split has backgrounds of its own, but the training split's recordings.")
    library.limits.append("Silent objects are the same in every split.")
    library.distractors = {"train": [], "val": [], "test": []}
    for index, path in enumerate(DISTRACTORS):
        split = "val" if index % _VALIDATION_STEP == 0 else "train"
        library.distractors[split].append(_photo(library, stamps, path))
    library.silent = [Stamp(Path(path).name, (_photo(library, stamps, path),), None) for path in SILENT]
    return library


def _divide(items: Sequence[Any], seed: int) -> dict[Split, Sequence[Any]]:
    """Divide items among the splits: 70, 15 and 15 per cent, by the seed."""
    order = np.random.default_rng([seed, 1]).permutation(len(items))
    first, second = (round(len(items) * part) for part in (_TRAIN_SHARE, 1 - _TEST_SHARE))
    bounds = {"train": (0, first), "val": (first, second), "test": (second, len(items))}
    return {split: [items[i] for i in sorted(order[slice(*bounds[split])])] for split in SPLITS}


def _load_backgrounds(library: Library, folder: Path, seed: int) -> None:
    parts = _divide(list(BACKGROUND_LICENCES), seed)
    for split in SPLITS:
        library.backgrounds[split] = []
        for name in parts[split]:
            image = _open(library, folder / name, BACKGROUND_LICENCES[name]).convert("RGB")
            scale = _BACKGROUND_SIDE / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            library.backgrounds[split].append(image.resize(size, Image.Resampling.LANCZOS))


def _load_stamp(library: Library, folder: Path, files: StampFiles, split: Split, *, divide: bool) -> tuple[Stamp, bool]:
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
    _record_source(library, path, STAMPS_LICENCE)
    if not np.any(samples):
        raise DatasetError(f"{path} is silent.", f"Install the Debian packages {PACKAGES}.")
    return np.asarray(samples)


def _photo(library: Library, folder: Path, path: str) -> Image.Image:
    image = _open(library, folder / f"{path}.png", STAMPS_LICENCE).convert("RGBA")
    return image.crop(image.getchannel("A").getbbox())


def _open(library: Library, path: Path, licence: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
    except OSError as error:
        hint = f"Install the Debian packages {PACKAGES}, or give their folders with --stamps and --backgrounds."
        raise DatasetError(f"{path} cannot be read: {error}.", hint) from error
    _record_source(library, path, licence)
    return image


def _record_source(library: Library, path: Path, licence: str) -> None:
    record = {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "licence": licence}
    if record not in library.sources:
        library.sources.append(record)
