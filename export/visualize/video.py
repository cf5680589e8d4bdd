"""Visualizing a video: its clips' attention maps as pictures, arrays and a summary, in a directory of their own."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg import __version__
from avsbg.export.visualize import pictures
from avsbg.export.visualize.maps import ATTENTION, TITLES, ClipMaps, MapReader, VisualizeError, VolumeSlicer
from avsbg.runtime.backends.base import check_accuracy
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.media.container import VideoInfo, probe
from avsbg.runtime.media.samples import Sample, check_inputs, clip_inputs, read_clips
from avsbg.runtime.segment.run import check_output, output_directory

Array = NDArray[Any]
Progress = Callable[[str, int, int | None], None]

SUMMARY = "visualize.json"
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class VisualizeOptions:
    """The parts of a video to visualize, and how."""

    graph: str = "clip"
    start: int | None = None  # a second in the first clip; by default that of `frame`, or 0
    clips: int = 1
    pixels: tuple[tuple[int, int], ...] = ()  # x and y in the video, for slices of the correlation volume
    frame: int | None = None  # the second that the pixels are in; by default the first
    stage: int | None = None  # of the slices; by default all
    silent: bool = False  # give the network silence, not the soundtrack
    threshold: float = 0.5  # a pixel sounds where its probability exceeds this
    ignore_accuracy: bool = False  # run a graph that missed its accuracy threshold


def visualize_video(
    bundle: Bundle,
    path: Path,
    output: Path,
    options: VisualizeOptions,
    *,
    replace: bool = False,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Write what a network attends to in a video to the directory `output`, and return the summary.

    Written are, for each clip, `clip000/sheet.png` (frames, masks and all maps), a picture of each map over its frame,
    such as `clip000/fusion_gate.stage0.second00003.png`, and `clip000/maps.npz` with the maps themselves; for each
    pixel `slice.second00000.x640.y360.png` and `.npz`; and the summary, `visualize.json`. The directory appears only
    when complete; with `replace`, it takes the place of an earlier visualization.

    Raises:
        BackendError: the graph missed its accuracy threshold.
        VisualizeError: the network has no such map, or a pixel, frame, stage or clip lies outside.
        MediaError: the video cannot be read, lacks the sound that the network uses, or `output` exists or cannot be
            written.
    """
    pictures.check_matplotlib()
    check_output(output, replace=replace, holds=SUMMARY)
    contract = bundle.graph(options.graph)
    check_inputs(bundle.manifest, contract)
    accuracy, check = bundle.accuracy(options.graph), {}
    if accuracy is not None:
        check = check_accuracy(f"the graph {options.graph}", accuracy, allow_failed=options.ignore_accuracy)
    video = probe(path)
    length = bundle.manifest.clip.frames
    first = (options.start if options.start is not None else options.frame or 0) // length
    frame = first * length if options.frame is None else options.frame
    _check(options, video, range(first * length, (first + options.clips) * length), frame)
    reader = MapReader(bundle, options.graph)
    stages = _stages(options, reader)
    silent = options.silent or not bundle.manifest.uses_audio
    walk = read_clips(video, bundle.manifest, silent=silent)
    clips: list[dict[str, Any]] = []
    slices: list[dict[str, Any]] = []
    with output_directory(output, replace=replace) as directory:
        for number, samples in _select_clips(walk, first, options.clips, progress):
            maps = reader.read(clip_inputs(samples, bundle.manifest, contract))
            _check_finite(maps, number)
            threshold = options.threshold
            clips.append(
                _write_clip(directory, number, samples, maps, reader=reader, threshold=threshold, progress=progress)
            )
            if options.pixels and number == frame // length:
                slices = _write_slices(
                    directory, samples, maps, video, frame=frame, stages=stages, pixels=options.pixels
                )
        if not clips or (options.pixels and frame > clips[-1]["seconds"][-1]):
            end = clips[-1]["seconds"][-1] if clips else None
            asked = frame if clips or options.start is None else options.start
            raise VisualizeError(
                f"there is no second {asked} in {path}"
                + (f": the last one is {end}." if end is not None else ": it ends before."),
                "Seconds count from 0.",
            )
        summary = {
            "bundle": {"name": bundle.manifest.name, "manifest_sha256": bundle.manifest_sha256},
            "graph": {
                "name": options.graph, "file": contract.file,
                "sha256": bundle.manifest.files[contract.file].sha256, "precision": contract.precision, **check,
            },
            "video": {
                "file": path.name, "sha256": sha256(path), "width": video.width, "height": video.height,
                "sound": "silence" if silent else "its own",
            },
            "ran": _ran(),
            "tensors": {stage: list(names) for stage, names in reader.tensors.items()},
            "missing": reader.missing,
            "difference_from_pytorch": reader.differences or "not checked: the vectors hold no such stage",
            "threshold": options.threshold,
            "clips": clips,
            "slices": slices,
        }  # fmt: skip
        (directory / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _ran() -> dict[str, str]:
    import matplotlib
    import onnxruntime

    return {
        "backend": f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider, operator as its function body",
        "avsbg": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "matplotlib": matplotlib.__version__,
    }


def _check(options: VisualizeOptions, video: VideoInfo, seconds: range, frame: int) -> None:
    """Refuse what lies outside of the video before work begins."""
    if options.start is not None and options.start < 0:
        raise VisualizeError(f"the start {options.start} is negative.", "Seconds count from 0.")
    if frame not in seconds:
        raise VisualizeError(
            f"the frame {frame} is not in the seconds {seconds[0]} to {seconds[-1]}, which are visualized.",
            "Frames are counted in seconds from the video's start; choose others with --start and --limit.",
        )
    if (options.frame is not None or options.stage is not None) and not options.pixels:
        raise VisualizeError("a frame or a stage was given without a pixel.", "They say where --pixel X,Y lies.")
    for x, y in options.pixels:
        if not (0 <= x < video.width and 0 <= y < video.height):
            raise VisualizeError(
                f"the pixel {x},{y} is outside of {video.path}, whose pictures have {video.width} x {video.height}.",
                f"X is 0 to {video.width - 1} from the left, Y 0 to {video.height - 1} from the top.",
            )


def _stages(options: VisualizeOptions, reader: MapReader) -> Sequence[int]:
    if not options.pixels:
        return ()
    if ATTENTION in reader.missing:
        raise VisualizeError(
            f"there is no correlation volume to slice: {reader.missing[ATTENTION]}.", "Leave --pixel out."
        )
    count = sum(name.startswith(f"{ATTENTION}.") for name in reader.tensors)
    if options.stage is not None and not 0 <= options.stage < count:
        raise VisualizeError(f"there is no stage {options.stage}.", f"Stages are 0 (the finest) to {count - 1}.")
    return range(count) if options.stage is None else (options.stage,)


def _select_clips(
    walk: Iterator[list[Sample]], first: int, count: int, progress: Progress
) -> Iterator[tuple[int, list[Sample]]]:
    for number, samples in enumerate(islice(walk, first + count)):
        progress("clips", number, first + count)
        if number >= first:
            yield number, samples
        progress("clips", number + 1, first + count)


def _check_finite(maps: ClipMaps, number: int) -> None:
    for kind, stages in maps.maps.items():
        for stage, values in enumerate(stages):
            if not np.isfinite(values).all():
                raise VisualizeError(
                    f"the {TITLES[kind]} of stage {stage} holds NaN or infinity in clip {number}.",
                    "Check the bundle with `avsbg verify`; a lower precision may overflow.",
                )


def _write_clip(
    directory: Path,
    number: int,
    samples: Sequence[Sample],
    maps: ClipMaps,
    *,
    reader: MapReader,
    threshold: float,
    progress: Progress,
) -> dict[str, Any]:
    """Write a clip's folder: sheet, a picture of each map, arrays. Returns its entry in `visualize.json`."""
    folder = directory / f"clip{number:03d}"
    folder.mkdir()
    seconds = [sample.number for sample in samples]
    frames = [pictures.thumbnail(sample.pixels) for sample in samples]
    rows: list[pictures.Row] = []
    records: list[dict[str, Any]] = []
    done = 0
    total = sum(len(stages) for stages in maps.maps.values()) * len(seconds) + 1
    for kind, stages in maps.maps.items():
        for stage, whole in enumerate(stages):
            values = whole[: len(seconds)]  # the rest is of a frame that was repeated
            low, high = pictures.colour_scale(values)
            rows.append(pictures.Row(kind, stage, values, low, high))
            files = []
            for second, frame, one in zip(seconds, frames, values, strict=True):
                file = folder / f"{kind}.stage{stage}.second{second:05d}.png"
                Image.fromarray(pictures.heat(frame, one, low, high)).save(file)
                files.append(file.relative_to(directory).as_posix())
                done += 1
                progress("pictures", done, total)
            record: dict[str, Any] = {"map": kind, "stage": stage, "tensors": list(reader.tensors[f"{kind}.{stage}"])}
            record |= {"shape": list(values.shape), "mean": float(values.mean()), "quantiles": _quantiles(values)}
            records.append(record | {"colour_scale": [low, high], "pictures": files})
    masks = maps.probability[: len(seconds)] > threshold
    title = f"{reader.name}: clip {number}, seconds {seconds[0]} to {seconds[-1]}"
    pictures.save_sheet(folder / "sheet.png", title, seconds=seconds, pictures=frames, masks=masks, rows=rows)
    progress("pictures", total, total)
    arrays = {f"{row.kind}.{row.stage}": row.maps for row in rows}
    arrays |= {f"mean_correlation.{i}": one[: len(seconds)] for i, one in enumerate(maps.mean_correlation)}
    arrays["probability"] = maps.probability[: len(seconds)]
    np.savez_compressed(folder / "maps.npz", **arrays)  # type: ignore[arg-type]
    return {
        "clip": number,
        "seconds": seconds,
        "sheet": f"{folder.name}/sheet.png",
        "arrays": f"{folder.name}/maps.npz",
        "sounding_share": float(masks.mean()),
        "maps": records,
    }


def _quantiles(values: Array) -> dict[str, float]:
    return {f"{q:g}": float(np.quantile(values, q)) for q in _QUANTILES}


def _write_slices(
    directory: Path,
    samples: Sequence[Sample],
    maps: ClipMaps,
    video: VideoInfo,
    *,
    frame: int,
    stages: Sequence[int],
    pixels: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """Write the slices of pixels of the frame of a second, if the clip holds it. Returns their entries."""
    seconds = [sample.number for sample in samples]
    if frame not in seconds:
        return []  # the caller says so, once it knows where the video ends
    own, frames = seconds.index(frame), len(maps.probability)
    other = own + 1 if own + 1 < frames else own - 1
    # The last frame of a clip that is too short was repeated, and is then its own partner.
    partner = samples[min(other, len(seconds) - 1)]
    slicer = VolumeSlicer()
    records = []
    for x, y in pixels:
        slices, results = [], []
        arrays: dict[str, Array] = {}
        for stage in stages:
            features = maps.features[stage]
            height, width = features.shape[-2:]
            row, column = y * height // video.height, x * width // video.width
            values = slicer(features[own], features[other], row, column)
            positive = np.maximum(values, 0)
            best = np.unravel_index(int(values.argmax()), values.shape)
            slices.append(pictures.SlicePicture(stage, positive, (row, column)))
            arrays[f"correlation.{stage}"] = values
            x_best, y_best = (best[1] + 0.5) * video.width / width, (best[0] + 0.5) * video.height / height
            result = {
                "stage": stage,
                "position": {"row": row, "column": column, "of": [height, width]},
                "mean_after_relu": float(positive.mean()),
                "mean_correlation": float(maps.mean_correlation[stage][own, row, column]),
                "correlation_attention": float(maps.maps[ATTENTION][stage][own, row, column]),
                "negative_share": float((values < 0).mean()),
                "quantiles": _quantiles(values),
                "highest": {"x": float(x_best), "y": float(y_best)},
            }
            results.append(result)
        name = f"slice.second{frame:05d}.x{x}.y{y}"
        pictures.save_slices(
            directory / f"{name}.png",
            f"correlation of pixel {x}, {y} of second {frame} with second {partner.number}, after the ReLU",
            frame=pictures.thumbnail(samples[own].pixels),
            partner=pictures.thumbnail(partner.pixels),
            labels=(f"second {frame}: the pixel, its position", f"second {partner.number}: correlation, its highest"),
            pixel=((x + 0.5) / video.width, (y + 0.5) / video.height),
            slices=slices,
        )
        np.savez_compressed(directory / f"{name}.npz", **arrays)  # type: ignore[arg-type]
        record: dict[str, Any] = {"pixel": {"x": x, "y": y}, "second": frame, "partner": partner.number}
        record |= {"operator": "CorrelationVolume", "picture": f"{name}.png", "arrays": f"{name}.npz"}
        records.append(record | {"stages": results})
    return records
