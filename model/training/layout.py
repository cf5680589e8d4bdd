"""AVSBench's layout on disk: two tasks, three splits, a table of clips, and folders of frames, sound and masks."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avsbg.model.training.errors import DatasetError

Task = Literal["s4", "ms3"]  # single source, multiple sources
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
TASKS: tuple[Task, ...] = ("s4", "ms3")
FRAMES = 5  # per clip

TASK_FOLDERS: dict[Task, str] = {"s4": "Single-source", "ms3": "Multi-sources"}


@dataclass(frozen=True)
class Clip:
    """One row of the table and where its files lie; k counts frames from 1."""

    data: Path  # the folder `s4_data` or `ms3_data`
    task: Task
    split: Split
    name: str  # of the video, without suffix
    category: str = ""  # S4 alone
    start: float = 0.0  # S4 alone, seconds into the original video

    def _folder(self, kind: str) -> Path:
        """`<kind>/<split>/<category>` of S4, `<kind>/<split>` of MS3."""
        return self.data / kind / self.split / self.category

    def frame(self, k: int) -> Path:
        """The image of second k."""
        if self.task == "s4":
            return self._folder("visual_frames") / self.name / f"{self.name}_{k}.png"
        return self.data / "visual_frames" / self.name / f"{self.name}.mp4_{k}.png"

    def mask(self, k: int) -> Path:
        """The annotation of frame k."""
        return self._folder("gt_masks") / self.name / f"{self.name}_{k}.png"

    @property
    def log_mel(self) -> Path:
        """The log-mel patches, converted from `log_mel_pickle` or computed from `wav`."""
        return self._folder("audio_log_mel") / f"{self.name}.npy"

    @property
    def log_mel_pickle(self) -> Path:
        """The log-mel patches as AVSBench ships them."""
        return self.log_mel.with_suffix(".pkl")

    @property
    def wav(self) -> Path:
        return self._folder("audio_wav") / f"{self.name}.wav"

    @property
    def video(self) -> Path:
        """The clip's original."""
        if self.task == "s4":
            return self._folder("raw_videos") / f"{self.name}.mp4"
        return self.data / "raw_videos" / f"{self.name}.mp4"

    @property
    def masks(self) -> int:
        """Number of annotated frames: the first alone in S4's training split, else all."""
        return 1 if self.task == "s4" and self.split == "train" else FRAMES


def _task_folder(root: Path, task: Task) -> Path:
    """The folder of one task: `Single-source` or `Multi-sources` below `root`, or `root` itself."""
    table = f"{task}_meta_data.csv"
    for folder in (root / TASK_FOLDERS[task], root):
        if (folder / table).is_file():
            return folder
    hint = f"Give the folder that AVSBench was unpacked in, the one that holds {' and '.join(TASK_FOLDERS.values())}."
    raise DatasetError(f"there is no {table} in {root / TASK_FOLDERS[task]} or {root}.", hint)


def read_clips(root: Path, task: Task, split: Split | None = None) -> list[Clip]:
    """A task's clips in its table's order, of one split or all; a `DatasetError` if there is none, or a bad row."""
    folder = _task_folder(root, task)
    table = folder / f"{task}_meta_data.csv"
    clips = [clip for clip in _rows(table, folder / f"{task}_data", task) if split in (None, clip.split)]
    if not clips:
        raise DatasetError(f"{table} lists no clips{f' of the split {split}' if split else ''}.")
    return clips


def _rows(table: Path, data: Path, task: Task) -> Iterator[Clip]:
    needed = ("category", "split") if task == "s4" else ("split",)
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or ())
            if missing := [column for column in needed if column not in columns]:
                found = ", ".join(columns) or "none"
                raise DatasetError(f"{table} has no column {missing[0]!r}; its columns: {found}.")
            for row in reader:
                yield _clip(row, columns, data, task, f"{table}, line {reader.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table} cannot be read: {error}.") from error


def is_name(value: str) -> bool:
    """Whether a name from a table stays below its folder as part of a path."""
    return value not in ("", ".", "..") and "/" not in value and "\\" not in value


def _clip(row: dict[str, str | None], columns: list[str], data: Path, task: Task, where: str) -> Clip:
    name, split, category = row[columns[0]] or "", row["split"] or "", row.get("category") or ""
    if split not in SPLITS:
        raise DatasetError(f"{where}: the split is {split!r}, not one of {', '.join(SPLITS)}.")
    # The names become paths below the data folder and must not lead out of it.
    for label, value, may_be_empty in (("name", name, False), ("category", category, task == "ms3")):
        if not (is_name(value) or (may_be_empty and not value)):
            raise DatasetError(f"{where}: {value!r} cannot be the {label} of a clip.")
    if task == "ms3":
        return Clip(data, task, split, name)
    try:
        start = float(row[columns[1]] or "")
    except ValueError as error:
        raise DatasetError(f"{where}: the start time {row[columns[1]]!r} is no number of seconds.") from error
    return Clip(data, task, split, name, category, start)
