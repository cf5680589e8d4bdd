"""Calibration: clips from videos, a split of AVSBench or the test vectors, and the ranges of activations on them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from avsbg.errors import AvsbgError
from avsbg.export.precision.quantize import quantizable_layers
from avsbg.export.sessions import split_by_size, temporary_session
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import GraphRecord
from avsbg.runtime.bundle.precision import quantization_of
from avsbg.runtime.bundle.quantisation_record import CalibrationFileRecord, CalibrationRecord
from avsbg.runtime.media.container import probe
from avsbg.runtime.media.samples import check_inputs, clip_inputs, read_clips, resize
from avsbg.runtime.media.sources import VIDEO_SUFFIXES, list_videos

Inputs = dict[str, NDArray[Any]]
# Called with a description, the steps done and the steps there are.
Progress = Callable[[str, int, int], None]

VECTORS = "vectors"
BINS = 2048
# Candidate ranges that the smallest error is looked for among.
_CANDIDATES = 256
# Bytes of activations that are taken out of a graph in one run.
_MAX_BYTES = 512 * 2**20
_MAX_FILES = 4096
_SYNTAX = "Give a folder of videos, AVSBench's folder (or FOLDER:s4:val), or the word vectors."


class CalibrationError(AvsbgError):
    """Calibration clips are missing, or cannot be used."""


@dataclass(frozen=True)
class ClipSource:
    """A source of at most `count` clips, chosen among a folder's by `seed`.

    `source` is a folder of videos; a folder in AVSBench's layout, with `:TASK:SPLIT` or its training split without; or
    `vectors`, which are synthetic and say so in the record.
    """

    source: str
    count: int = 16
    seed: int = 0


@dataclass(frozen=True)
class CalibrationClips:
    """Clips to calibrate on, and the record of where they come from.

    `clips` returns the inputs of the graph for one clip at a time, and reads them again whenever it is called.
    """

    record: CalibrationRecord
    clips: Callable[[], Iterator[Inputs]]


def open_clips(source: ClipSource, bundle: Bundle) -> CalibrationClips:
    """Choose clips for a bundle's `clip` graph and read them once, so that unusable ones show before the work.

    Raises:
        CalibrationError: the folder is not there or holds nothing to use, or a clip does not fit the bundle.
        MediaError: a video cannot be used, or the bundle's sound input cannot be made from a video.
        DatasetError: AVSBench's folder is not complete.
    """
    count = source.count
    if count < 1:
        raise CalibrationError(
            f"the number of clips must be at least 1, not {count}.",
            "Give a larger --calibration-clips or --accuracy-clips.",
        )
    if source.source == VECTORS:
        return _from_vectors(bundle, count)
    folder, task, split = _parse(source.source)
    if not folder.exists():
        raise CalibrationError(f"there is no folder {folder} to take clips from.", _SYNTAX)
    if not folder.is_dir():
        raise CalibrationError(f"{folder} is a file; clips are taken from a folder.", _SYNTAX)
    graph = bundle.graph("clip")
    check_inputs(bundle.manifest, graph)
    if task or (found := _avsbench_task(folder)):
        return _from_avsbench(folder, task or found, split, bundle=bundle, count=count, seed=source.seed)
    return _from_videos(folder, bundle, graph, count, source.seed)


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
    hashes = bundle.manifest.files
    files = tuple(CalibrationFileRecord(name=one.file, sha256=hashes[one.file].sha256) for one in records)
    record = CalibrationRecord(source="vectors", files=files, clips=min(count, sum(one.clips for one in records)))
    return CalibrationClips(record, lambda: islice(vector_clips(bundle), record.clips))


def vector_clips(bundle: Bundle) -> Iterator[Inputs]:
    """The inputs of a bundle's test vectors, clip by clip."""
    for vectors in bundle.vectors():
        for index in range(vectors.record.clips):
            yield {name: array[index : index + 1] for name, array in vectors.inputs.items()}


def _from_videos(folder: Path, bundle: Bundle, graph: GraphRecord, count: int, seed: int) -> CalibrationClips:
    files = [path for path in list_videos(folder) if not path.is_symlink()]  # which may lead anywhere
    if not files:
        raise CalibrationError(
            f"{folder} holds no videos.", f"Calibration reads files that end in {', '.join(sorted(VIDEO_SUFFIXES))}."
        )
    random.Random(seed).shuffle(files)
    files = files[: min(count, _MAX_FILES)]
    each = -(-count // len(files))
    manifest = bundle.manifest

    def clips() -> Iterator[Inputs]:
        walks = (islice(read_clips(probe(path), manifest), each) for path in files)
        return islice((clip_inputs(samples, manifest, graph) for walk in walks for samples in walk), count)

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
    data = AvsBenchDataset(folder, cast("Task", task), cast("Split", split))
    order = list(range(len(data)))
    random.Random(seed).shuffle(order)
    order = order[: min(count, _MAX_FILES // (FRAMES + 1))]

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


def calibrate(model: ir.Model, precision: str, clips: CalibrationClips, progress: Progress) -> dict[str, float]:
    """The range of each quantizable layer's input; a CalibrationError where an activation is not finite.

    The model is the float32 `clip` graph, with batch normalisations folded; it is changed only in its outputs. Memory
    holds one clip's activations at most, 512 MiB of them at a time.
    """
    values: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for layer, node in quantizable_layers(model.graph, precision).items():
        taken = node.inputs[0]
        assert taken is not None
        values[layer] = str(taken.name)
        sizes[values[layer]] = _bytes(taken)
        if not taken.is_graph_output():
            model.graph.outputs.append(taken)
    histograms = {value: MagnitudeHistogram() for value in sizes}
    portions = list(split_by_size(sizes, sizes.__getitem__, _MAX_BYTES))
    total = clips.record.clips
    with temporary_session(model) as session:
        for done, inputs in enumerate(clips.clips()):
            progress("reading the ranges of activations", done, total)
            for portion in portions:
                for value, array in session.run(inputs, portion).items():
                    try:
                        histograms[value].add(array)
                    except ValueError:
                        raise CalibrationError(
                            f"the activation {value} of calibration clip {done + 1} is not finite.",
                            "Leave that clip out; if it is so with every clip, check the weights.",
                        ) from None
        progress("reading the ranges of activations", total, total)
    spec = quantization_of(precision)
    by_value = {name: histogram.range(spec.calibration, spec.max_level) for name, histogram in histograms.items()}
    return {layer: by_value[value] for layer, value in values.items()}


def _bytes(value: ir.Value) -> int:
    """The size for one clip. A symbol counts frames of all clips: more than a clip has means smaller portions."""
    if value.shape is None:
        return _MAX_BYTES
    return 4 * math.prod(size if isinstance(size, int) else 8 for size in value.shape)


class MagnitudeHistogram:
    """Counts of |x| in `BINS` equal bins; when a larger value comes, bins are merged in pairs until it fits.

    ONNX Runtime's calibrators keep the bin width of the first values that they see and add bins without bound, so a
    silent first clip can exhaust the memory; they are not a public interface either.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.largest = 0.0

    def add(self, array: NDArray[np.float32]) -> None:
        """Count an array's magnitudes; a ValueError where one is not finite."""
        magnitudes = np.abs(array.reshape(-1).astype(np.float32, copy=False))
        largest = float(magnitudes.max(initial=0.0))
        if not np.isfinite(largest):
            raise ValueError("a value is not finite")
        self.largest = max(self.largest, largest)
        if self.limit == 0.0:
            # Zeros alone have no scale: they wait in the first bin.
            self.limit = largest
        while self.limit and largest > self.limit:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        if self.limit == 0.0:
            self.counts[0] += magnitudes.size
            return
        bins = (magnitudes * np.float32(BINS / self.limit)).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def range(self, method: str, levels: float) -> float:
        """The largest magnitude that `levels` steps on each side of zero should tell apart; 1 if there were only zeros.

        The method is `max`, or `mse`: where rounding and clipping together have the least mean square error.
        """
        if self.largest == 0.0:
            return 1.0
        if method == "max":
            return self.largest
        centres = (np.arange(BINS) + 0.5) * (self.limit / BINS)
        candidates = self.largest * np.arange(1, _CANDIDATES + 1) / _CANDIDATES
        clipped = np.maximum(centres[None] - candidates[:, None], 0.0) ** 2
        rounding = (candidates[:, None] / levels) ** 2 / 12 * (centres[None] <= candidates[:, None])
        return float(candidates[int(((clipped + rounding) @ self.counts).argmin())])
