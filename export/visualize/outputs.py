"""Files of a visualized video: the folder of a clip, and the slices of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.export.visualize.correlation_slice import VolumeSlicer
from avsbg.export.visualize.maps import ATTENTION, ClipMaps, MapReader
from avsbg.export.visualize.pictures import (
    Row,
    SlicePicture,
    colour_scale,
    heat,
    save_picture,
    save_sheet,
    save_slices,
    thumbnail,
)
from avsbg.runtime.media.container import VideoInfo
from avsbg.runtime.media.samples import Sample

Array = NDArray[Any]
Progress = Callable[[str, int, int | None], None]

_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def write_clip(
    directory: Path,
    number: int,
    samples: Sequence[Sample],
    maps: ClipMaps,
    *,
    reader: MapReader,
    threshold: float,
    progress: Progress,
) -> dict[str, Any]:
    """Write a clip's folder: sheet, a picture of each map, arrays.

    Args:
        directory: where the folder is made.
        number: of the clip.
        samples: the clip as it was read.
        maps: what was read of it.
        reader: that read it.
        threshold: of the mask.
        progress: called with `pictures`, what is done and how many there are.

    Returns:
        What `visualize.json` says of it.
    """
    folder = directory / f"clip{number:03d}"
    folder.mkdir()
    seconds = [sample.number for sample in samples]
    pictures = [thumbnail(sample.pixels) for sample in samples]
    rows, records = [], []
    total = sum(len(stages) for stages in maps.maps.values()) * len(seconds) + 1
    done = 0
    for kind, stages in maps.maps.items():
        for stage, whole in enumerate(stages):
            values = whole[: len(seconds)]  # the rest is of a frame that was repeated
            low, high = colour_scale(values)
            rows.append(Row(kind, stage, values, low, high))
            files = []
            for second, picture, one in zip(seconds, pictures, values, strict=True):
                file = folder / f"{kind}.stage{stage}.second{second:05d}.png"
                save_picture(file, heat(picture, one, low, high))
                files.append(file.relative_to(directory).as_posix())
                done += 1
                progress("pictures", done, total)
            records.append(
                {
                    "map": kind,
                    "stage": stage,
                    "tensors": list(reader.tensors[f"{kind}.{stage}"]),
                    "shape": list(values.shape),
                    "mean": float(values.mean()),
                    "quantiles": {f"{q:g}": float(np.quantile(values, q)) for q in _QUANTILES},
                    "colour_scale": [low, high],
                    "pictures": files,
                }
            )
    masks = maps.probability[: len(seconds)] > threshold
    title = f"{reader.name}: clip {number}, seconds {seconds[0]} to {seconds[-1]}"
    save_sheet(folder / "sheet.png", title, seconds=seconds, pictures=pictures, masks=masks, rows=rows)
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


def write_slices(
    directory: Path,
    samples: Sequence[Sample],
    maps: ClipMaps,
    video: VideoInfo,
    *,
    frame: int,
    stages: Sequence[int],
    pixels: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """Write the slices of pixels.

    Args:
        directory: where they are written.
        samples: the clip that the frame is in.
        maps: what was read of it.
        video: whose pixels they are.
        frame: the second whose frame they are in.
        stages: at which they are correlated.
        pixels: x and y of each.

    Returns:
        What `visualize.json` says of them; nothing where the clip ends before that second.
    """
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
        pictures, results = [], []
        arrays: dict[str, Array] = {}
        for stage in stages:
            features = maps.features[stage]
            height, width = features.shape[-2:]
            row, column = y * height // video.height, x * width // video.width
            values = slicer(features[own], features[other], row, column)
            positive = np.maximum(values, 0)
            best = np.unravel_index(int(values.argmax()), values.shape)
            pictures.append(SlicePicture(stage, positive, (row, column)))
            arrays[f"correlation.{stage}"] = values
            results.append(
                {
                    "stage": stage,
                    "position": {"row": row, "column": column, "of": [height, width]},
                    "mean_after_relu": float(positive.mean()),
                    "mean_correlation": float(maps.mean_correlation[stage][own, row, column]),
                    "correlation_attention": float(maps.maps[ATTENTION][stage][own, row, column]),
                    "negative_share": float((values < 0).mean()),
                    "quantiles": {f"{q:g}": float(np.quantile(values, q)) for q in _QUANTILES},
                    "highest": {
                        "x": float((best[1] + 0.5) * video.width / width),
                        "y": float((best[0] + 0.5) * video.height / height),
                    },
                }
            )
        name = f"slice.second{frame:05d}.x{x}.y{y}"
        save_slices(
            directory / f"{name}.png",
            f"correlation of pixel {x}, {y} of second {frame} with second {partner.number}, after the ReLU",
            frame=thumbnail(samples[own].pixels),
            partner=thumbnail(partner.pixels),
            labels=(f"second {frame}: the pixel, its position", f"second {partner.number}: correlation, its highest"),
            pixel=((x + 0.5) / video.width, (y + 0.5) / video.height),
            slices=pictures,
        )
        np.savez_compressed(directory / f"{name}.npz", **arrays)  # type: ignore[arg-type]
        records.append(
            {
                "pixel": {"x": x, "y": y},
                "second": frame,
                "partner": partner.number,
                "operator": "CorrelationVolume",
                "picture": f"{name}.png",
                "arrays": f"{name}.npz",
                "stages": results,
            }
        )
    return records
