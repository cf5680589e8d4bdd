"""Where calibration clips come from: a folder of videos, a split of AVSBench, or, if asked for, the test vectors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from avsbg.errors import AvsbgError
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import GraphRecord
from avsbg.runtime.bundle.quantisation_record import CalibrationFileRecord, CalibrationRecord
from avsbg.runtime.media.container import probe
from avsbg.runtime.media.samples import check_inputs, clip_inputs, read_clips, resize
from avsbg.runtime.media.sources import VIDEO_SUFFIXES

Inputs = dict[str, NDArray[Any]]
Report = Callable[[str], None]

VECTORS = "vectors"
_MOST_FILES = 4096
_SYNTAX = "Give a folder of videos, AVSBench's folder (or FOLDER:s4:val), or the word vectors."


class CalibrationError(AvsbgError):
    """Calibration clips are missing, or cannot be used."""


@dataclass(frozen=True)
class CalibrationClips:
    """Clips to calibrate on, one at a time.

    Attributes:
        record: where they come from.
        clips: the inputs of the graph for one clip each; read again whenever it is called.
    """

    record: CalibrationRecord
    clips: Callable[[], Iterator[Inputs]]


def open_clips(source: str, bundle: Bundle, count: int, seed: int) -> CalibrationClips:
    """Choose calibration clips for a bundle and read them once, so that what cannot be used shows before the work.

    Args:
        source: a folder of videos; a folder in AVSBench's layout, with `:TASK:SPLIT` or its training split without;
            or `vectors`, which are synthetic and say so in the record.
        bundle: whose `clip` graph takes the clips.
        count: the most clips to take.
        seed: of the choice.

    Raises:
        CalibrationError: the folder is not there or holds nothing to use, or a clip does not fit the bundle.
        MediaError: a video cannot be used, or the bundle's sound input cannot be made from a video.
        DatasetError: AVSBench's folder is not complete.
    """
    if count < 1:
        raise CalibrationError(
            f"the number of clips must be at least 1, not {count}.",
            "Give a larger --calibration-clips or --judge-clips.",
        )
    if source == VECTORS:
        return _from_vectors(bundle, count)
    folder, task, split = _parse(source)
    if not folder.exists():
        raise CalibrationError(f"there is no folder {folder} to take clips from.", _SYNTAX)
    if not folder.is_dir():
        raise CalibrationError(f"{folder} is a file; clips are taken from a folder.", _SYNTAX)
    graph = bundle.graph("clip")
    check_inputs(bundle.manifest, graph)
    if task or (found := _avsbench_task(folder)):
        return _from_avsbench(folder, task or found, split, bundle=bundle, count=count, seed=seed)
    return _from_videos(folder, bundle, graph, count, seed)


def _parse(source: str) -> tuple[Path, str, str]:
    from avsbg.model.training.layout import SPLITS, TASKS

    parts = source.rsplit(":", 2)
    if len(parts) == 3 and parts[1] in TASKS:
        if parts[2] not in SPLITS:
            raise CalibrationError(f"AVSBench has no split {parts[2]!r}.", f"Choose one of: {', '.join(SPLITS)}.")
        return Path(parts[0]), parts[1], parts[2]
    return Path(source), "", "train"


def _avsbench_task(folder: Path) -> str:
    from avsbg.model.training.layout import TASK_FOLDERS, TASKS

    for task in TASKS:
        if any((place / f"{task}_meta_data.csv").is_file() for place in (folder / TASK_FOLDERS[task], folder)):
            return task
    return ""


def _from_vectors(bundle: Bundle, count: int) -> CalibrationClips:
    records = bundle.manifest.vectors
    if not records:
        raise CalibrationError(f"{bundle.path} holds no test vectors to calibrate on.", _SYNTAX)
    files = tuple(
        CalibrationFileRecord(name=record.file, sha256=bundle.manifest.files[record.file].sha256) for record in records
    )
    total = min(count, sum(record.clips for record in records))

    def clips() -> Iterator[Inputs]:
        rows = (
            {name: array[index : index + 1] for name, array in vectors.inputs.items()}
            for vectors in bundle.vectors()
            for index in range(vectors.record.clips)
        )
        return islice(rows, total)

    return CalibrationClips(CalibrationRecord(source="vectors", files=files, clips=total), clips)


def _from_videos(folder: Path, bundle: Bundle, graph: GraphRecord, count: int, seed: int) -> CalibrationClips:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    # A link may lead anywhere, and a pipe would be waited for without end.
    files = [path for path in found if path.is_file() and not path.is_symlink()]
    if not files:
        raise CalibrationError(
            f"{folder} holds no videos.", f"Calibration reads files that end in {', '.join(sorted(VIDEO_SUFFIXES))}."
        )
    random.Random(seed).shuffle(files)
    files = files[: min(count, _MOST_FILES)]
    each = -(-count // len(files))
    manifest = bundle.manifest

    def clips() -> Iterator[Inputs]:
        rows = (
            clip_inputs(samples, manifest, graph)
            for path in files
            for samples in islice(read_clips(probe(path), manifest), each)
        )
        return islice(rows, count)

    total = sum(1 for _ in clips())
    record = CalibrationRecord(source="videos", files=_hashes(files, folder), clips=total, seed=seed)
    return CalibrationClips(record, clips)


def _from_avsbench(folder: Path, task: str, split: str, *, bundle: Bundle, count: int, seed: int) -> CalibrationClips:
    from avsbg.model.training.data import AvsBenchDataset
    from avsbg.model.training.layout import FRAMES, Split, Task
    from avsbg.model.training.media import read_sound
    from avsbg.runtime.media.samples import repeat_last_patch

    clip = bundle.manifest.clip
    if clip.frames != FRAMES:
        raise CalibrationError(
            f"AVSBench's clips have {FRAMES} seconds, and the bundle's {clip.frames}.", "Calibrate on videos instead."
        )
    assert task in get_args(Task) and split in get_args(Split)
    data = AvsBenchDataset(folder, cast("Task", task), cast("Split", split))
    order = list(range(len(data)))
    random.Random(seed).shuffle(order)
    order = order[: min(count, _MOST_FILES // (FRAMES + 1))]

    def sound(index: int) -> NDArray[Any]:
        if clip.audio == "log_mel":
            return data[index].log_mel.numpy()[None]
        samples = read_sound(data.clips[index].wav).astype(np.float32).mean(axis=1) / np.float32(32768)
        return repeat_last_patch(samples, clip.frames * clip.sample_rate)[None].astype(np.float32)

    def clips() -> Iterator[Inputs]:
        for index in order:
            frames = [resize(frame.numpy(), clip.width, clip.height) for frame in data[index].frames]
            yield {"frames": np.stack(frames)[None], clip.audio: sound(index)}

    files = []
    for chosen in (data.clips[index] for index in order):
        from_log_mel = clip.audio == "log_mel" and data.sound == "log-mel"
        files += [*(chosen.frame(k) for k in range(1, FRAMES + 1)), chosen.log_mel if from_log_mel else chosen.wav]
    for path in files:
        if not path.is_file():
            raise CalibrationError(f"{path} is missing.", "Make it with `avsbg data prepare`.")
    record = CalibrationRecord(source="avsbench", files=_hashes(files, folder), clips=len(order), seed=seed)
    return CalibrationClips(record, clips)


def _hashes(files: list[Path], folder: Path) -> tuple[CalibrationFileRecord, ...]:
    return tuple(CalibrationFileRecord(name=path.relative_to(folder).as_posix(), sha256=sha256(path)) for path in files)
