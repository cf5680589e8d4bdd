"""Sounding stamps: clips in AVSBench's format, composed of photo cut-outs with real recordings on real backgrounds.

Each clip shows two or three objects. On S4 one of them sounds for all five seconds; on MS3 up to two sound, each for a
time of its own, so that some seconds may be silent and their masks empty. What does not sound is usually an object that
does in other clips, so that only the sound tells which one it is. A sounding object moves in 8 clips of 10, a silent
one in 3 of 10: motion is a hint and no proof. In training and validation a quarter of the objects are shown by photos
of distractors, whose class is none of those that sound: a test photo can be new, and is then found by exclusion.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from avsbg.atomic import atomic_directory
from avsbg.model.front_end import SAMPLE_RATE
from avsbg.model.training.data import clip_log_mel
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import FRAMES, SPLITS, TASK_FOLDERS, Clip, Split, Task
from avsbg.model.training.media import write_wav
from avsbg.model.training.stamps_library import Library, Stamp

Array = NDArray[Any]

_THIRD_OBJECT = 0.4  # chance of a third object
_NEVER_SOUNDS = 0.3  # chance that a silent object is one that never sounds
_DISTRACTOR = 0.25  # chance that an object, sounding or not, is shown by a distractor's photo: as new in a test
_SECOND_VOICE = 0.5  # chance of a second sounding object on MS3
_MOVES_SOUNDING, _MOVES_SILENT = 0.8, 0.3
_SPEED = (0.06, 0.14)  # per second, of the frame's side
_TREMBLE = 0.005  # of those that do not move, of the frame's side
_SIDE = (0.32, 0.52)  # an object's longer side, of the frame's
_LOUDNESS = (-12.0, 0.0)  # dB, against a root mean square of 0.1
_NOISE = 0.002  # root mean square
_FADE = 320  # samples


@dataclass(frozen=True)
class Actor:
    """An object of a scene: what it is, when it sounds (whole seconds, `[start, end)`), and where it is each second."""

    stamp: Stamp
    start: int
    end: int
    image: Image.Image
    corners: Array  # int [5, 2]: left and top

    def sounds(self, second: int) -> bool:
        return self.start <= second < self.end


@dataclass(frozen=True)
class Scene:
    """A clip: frames uint8 `[5, S, S, 3]`, masks bool `[5, S, S]`, int16 sound of 5 s, who takes part, and where."""

    frames: Array
    masks: Array
    sound: Array
    actors: list[Actor]
    background: Image.Image


def make_scene(library: Library, task: Task, split: Split, size: int, seed: tuple[int, int, int]) -> Scene:
    """Compose one clip; the same library and seed give the same clip."""
    rng = np.random.default_rng(seed)
    actors = _actors(rng, library, task, split, size)
    background = _background(rng, library.backgrounds[split], size)
    drawn = [draw_frame(background, actors, second) for second in range(FRAMES)]
    frames, masks = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
    return Scene(frames, masks, _mixture(rng, actors), actors, background)


def draw_frame(background: Image.Image, actors: list[Actor], second: float) -> tuple[Array, Array]:
    """Draw the scene as it is at a time, and the mask of what sounds then; between seconds, objects move evenly.

    Returns:
        uint8 `[S, S, 3]` and bool `[S, S]`.
    """
    frame, mask = background.copy(), np.zeros(background.size[::-1], bool)
    place = min(max(second, 0.0), FRAMES - 1)
    before = min(int(place), FRAMES - 2)
    for actor in actors:  # later ones hide earlier ones
        start, end = actor.corners[before], actor.corners[before + 1]
        left, top = (int(corner) for corner in np.rint(start + (end - start) * (place - before)))
        frame.paste(actor.image, (left, top), actor.image)
        covered = Image.new("L", frame.size)
        covered.paste(actor.image.getchannel("A"), (left, top))
        shape = np.asarray(covered) > 127
        mask = mask | shape if actor.sounds(int(place)) else mask & ~shape
    return np.asarray(frame), mask


def _actors(rng: np.random.Generator, library: Library, task: Task, split: Split, size: int) -> list[Actor]:
    count = 2 + int(rng.random() < _THIRD_OBJECT)
    voices = 1 if task == "s4" else 1 + int(rng.random() < _SECOND_VOICE)
    order = rng.permutation(len(library.sounding[split]))
    stamps = [library.sounding[split][i] for i in order[:count]]
    for index in range(voices, count):
        # One silent object at least is of a class that sounds elsewhere.
        if index > voices and rng.random() < _NEVER_SOUNDS:
            stamps[index] = library.silent[rng.integers(len(library.silent))]
    distractors = library.distractors[split]
    for index, stamp in enumerate(stamps):
        if distractors and rng.random() < _DISTRACTOR:
            stamps[index] = replace(stamp, photos=(distractors[rng.integers(len(distractors))],))
    actors: list[Actor] = []
    for index, stamp in enumerate(stamps):
        start, end = (0, 0) if index >= voices else _times(rng, task)
        moves = rng.random() < (_MOVES_SOUNDING if index < voices else _MOVES_SILENT)
        image = _image(rng, stamp, size)
        actors.append(Actor(stamp, start, end, image, _path(rng, image, size, moves=moves, others=actors)))
    return [actors[i] for i in rng.permutation(count)]


def _times(rng: np.random.Generator, task: Task) -> tuple[int, int]:
    if task == "s4":
        return 0, FRAMES
    start = int(rng.integers(0, 3))
    return start, int(rng.integers(start + 2, FRAMES + 1))


def _image(rng: np.random.Generator, stamp: Stamp, size: int) -> Image.Image:
    photo = stamp.photos[rng.integers(len(stamp.photos))]
    scale = size * rng.uniform(*_SIDE) / max(photo.size)
    width, height = (max(8, round(side * scale)) for side in photo.size)
    image = photo.resize((width, height), Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    colours = ImageEnhance.Brightness(image.convert("RGB")).enhance(rng.uniform(0.8, 1.2))
    colours.putalpha(image.getchannel("A"))
    return colours


def _path(rng: np.random.Generator, image: Image.Image, size: int, *, moves: bool, others: list[Actor]) -> Array:
    """Left and top corner in each second, inside the frame, as far from the others as a few tries find."""
    room = np.array([size - image.width, size - image.height], dtype=np.float64)
    angle, speed = rng.uniform(0, 2 * np.pi), size * rng.uniform(*_SPEED)
    step = speed * np.array([np.cos(angle), np.sin(angle)])
    best, least = np.zeros((FRAMES, 2)), np.inf
    for _ in range(20):
        start = rng.uniform(0, np.maximum(room, 1))
        tremble = rng.normal(0, _TREMBLE * size, (FRAMES, 2))
        corners = start + (step * np.arange(FRAMES)[:, None] if moves else tremble)
        period = 2 * np.maximum(room, 1)
        corners = period / 2 - np.abs(corners % period - period / 2)  # reflected at the borders
        overlap = sum(_overlap(corners, image, other) for other in others)
        if overlap < least:
            best, least = corners, overlap
    return best.round().astype(np.int64)


def _overlap(corners: Array, image: Image.Image, other: Actor) -> float:
    """Pixels that two objects' boxes share, summed over the seconds."""
    size, other_size = np.array(image.size), np.array(other.image.size)
    shared = np.minimum(corners + size, other.corners + other_size) - np.maximum(corners, other.corners)
    return float(np.prod(np.maximum(shared, 0), axis=1).sum())


def _background(rng: np.random.Generator, backgrounds: list[Image.Image], size: int) -> Image.Image:
    image = backgrounds[rng.integers(len(backgrounds))]
    side = round(min(image.size) * rng.uniform(0.5, 1.0))
    left, top = rng.integers(0, image.width - side + 1), rng.integers(0, image.height - side + 1)
    crop = image.crop((int(left), int(top), int(left) + side, int(top) + side)).resize((size, size))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _mixture(rng: np.random.Generator, actors: list[Actor]) -> Array:
    """The voices, each looped with pauses from a random place of its recording, and a little noise; int16."""
    total = FRAMES * SAMPLE_RATE
    mixture = rng.normal(0, _NOISE, total)
    for actor in actors:
        if actor.start == actor.end or actor.stamp.sound is None:
            continue
        pause = np.zeros(int(rng.uniform(0.0, 0.15) * SAMPLE_RATE))
        turn = np.concatenate([actor.stamp.sound, pause])
        played = np.resize(np.roll(turn, -int(rng.integers(len(turn)))), total)
        gate = np.zeros(total)
        gate[actor.start * SAMPLE_RATE : actor.end * SAMPLE_RATE] = 1.0
        gate = np.convolve(gate, np.full(_FADE, 1 / _FADE), mode="same")
        mixture += 0.1 * 10 ** (rng.uniform(*_LOUDNESS) / 20) * gate * played
    return np.rint(np.clip(mixture, -1.0, 1.0) * 32767).astype(np.int16)


def generate(
    out: Path,
    library: Library,
    *,
    task: Task,
    counts: dict[Split, int],
    size: int,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> Path:
    """Write a data set in AVSBench's layout with its record `SOURCES.json`; it appears when it is complete.

    Returns the task's folder in `out`; a `DatasetError` if it is there already. `counts` are clips per split, `size` is
    height and width of the frames; `advance` is called after each clip.
    """
    folder = out / TASK_FOLDERS[task]
    if folder.exists():
        raise DatasetError(f"{folder} exists already.", "Choose another folder, or remove it.")
    with atomic_directory(folder) as temporary:
        rows = [("name", "start", "category", "split") if task == "s4" else ("video_id", "split")]
        for split in SPLITS:
            for index in range(counts[split]):
                scene = make_scene(library, task, split, size, (seed, SPLITS.index(split), index))
                category = next(actor.stamp.name for actor in scene.actors if actor.end).replace(" ", "_")
                clip = Clip(temporary / f"{task}_data", task, split, f"{split}_{index:05d}", category * (task == "s4"))
                _write_clip(clip, scene)
                rows.append((clip.name, "0", category, split) if task == "s4" else (clip.name, split))
                advance()
        (temporary / f"{task}_meta_data.csv").write_text("".join(",".join(row) + "\n" for row in rows))
        record: dict[str, Any] = {"generator": "sounding stamps", "task": task, "seed": seed, "size": size}
        record |= {"clips": counts, "limits": library.limits, "sources": library.sources}
        (temporary / "SOURCES.json").write_text(json.dumps(record, indent=2) + "\n")
    return folder


def _write_clip(clip: Clip, scene: Scene) -> None:
    for k in range(1, FRAMES + 1):
        clip.frame(k).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.frames[k - 1]).save(clip.frame(k))
        if k <= clip.masks:
            clip.mask(k).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(scene.masks[k - 1], 255, 0).astype(np.uint8)).save(clip.mask(k))
    write_wav(clip.wav, scene.sound[:, None])
    clip.log_mel.parent.mkdir(parents=True, exist_ok=True)
    np.save(clip.log_mel, clip_log_mel(clip.wav).numpy(), allow_pickle=False)
