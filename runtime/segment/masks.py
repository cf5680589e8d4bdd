"""Masks as files: PNG, a lossless video, or run lengths as COCO writes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg.runtime.media.container import VideoInfo
from avsbg.runtime.media.samples import Sample
from avsbg.runtime.segment.palette import COLOURS

Array = NDArray[Any]
MaskFormat = Literal["png", "video", "none"]

# Writes the mask of a sample in the video's size, one after the other: bool `[h, w]`, or uint8 numbers of classes.
MaskWriter = Callable[[Sample, Array], None]

MILLISECOND = Fraction(1, 1000)
MASK_VIDEO, RLE = "masks.mkv", "masks.coco.json"


@contextmanager
def mask_writers(
    directory: Path, video: VideoInfo, masks: MaskFormat, rle: bool, labels: tuple[str, ...] = ()
) -> Iterator[list[MaskWriter]]:
    """Yield the writers for `masks/` or `masks.mkv`, and with `rle` for `masks.coco.json` too.

    The files are complete when the block ends without an error. With `labels`, masks are of classes.
    """
    with ExitStack() as stack:
        writers: list[MaskWriter] = []
        if masks == "png":
            writers.append(_png_writer(directory / "masks"))
        elif masks == "video":
            write = stack.enter_context(mask_video(directory, video))
            writers.append(lambda sample, mask: write(_time_in_video(sample), mask))
        if rle:
            writers.append(stack.enter_context(_coco_writer(directory, video, labels)))
        yield writers


def _png_writer(directory: Path) -> MaskWriter:
    """A file for each mask in a directory of their own (`file_name`): 255 where it sounds, else 0.

    Of classes, their numbers, which a palette colours.
    """
    directory.mkdir()
    return lambda sample, mask: _save(directory, sample, _grey(mask), COLOURS if mask.dtype == np.uint8 else None)


def _grey(mask: Array) -> Array:
    """A mask's pixels as they are stored."""
    return mask if mask.dtype == np.uint8 else mask.astype(np.uint8) * 255


def _time_in_video(sample: Sample) -> Fraction:
    """A mask's time in `masks.mkv`: its second; at several masks a second, the time of its frame."""
    return Fraction(sample.number) if sample.place is None else sample.time


@contextmanager
def mask_video(directory: Path, video: VideoInfo) -> Iterator[Callable[[Fraction, Array], None]]:
    """Yield the writer of `masks.mkv`, one lossless grey video (FFV1 in Matroska), which takes times and masks.

    Of several masks at one time each is 1 ms after the one before.
    """
    path = directory / MASK_VIDEO
    with av.open(str(path.resolve()), "w", format="matroska") as target:
        stream = target.add_stream("ffv1", rate=1)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "gray"
        stream.codec_context.time_base = MILLISECOND
        last = -1

        def write(time: Fraction, mask: Array) -> None:
            nonlocal last
            last = max(last + 1, round(time / MILLISECOND))
            frame = av.VideoFrame.from_ndarray(_grey(mask), format="gray")
            frame.pts, frame.time_base = last, MILLISECOND
            target.mux(stream.encode(frame))

        yield write
        target.mux(stream.encode(None))


@contextmanager
def _coco_writer(directory: Path, video: VideoInfo, labels: tuple[str, ...]) -> Iterator[MaskWriter]:
    """A COCO annotation file with uncompressed run lengths; what waits to be written lies on disk.

    An image stands for each mask, and an annotation for each in which something sounds, or for each class in it.
    """
    parts = {name: directory / f".{RLE}.{name}" for name in ("images", "annotations")}
    with ExitStack() as stack:
        images, annotations = (stack.enter_context(part.open("w", encoding="utf-8")) for part in parts.values())
        annotation_ids = count(1)

        def write(sample: Sample, mask: Array) -> None:
            height, width = mask.shape
            image = {"id": sample.number, "file_name": Path(video.path).name, "height": height, "width": width}
            image |= {"second": sample.second, "time": round(float(sample.time), 6)}
            images.write((",\n" if images.tell() else "") + json.dumps(image))
            for category in np.unique(mask[mask > 0]).tolist():
                of_category = mask == category
                annotation = {
                    "id": next(annotation_ids),
                    "image_id": sample.number,
                    "category_id": int(category),
                    "iscrowd": 0,
                    "area": int(of_category.sum()),
                    "bbox": bounding_box(of_category),
                    "segmentation": run_lengths(of_category),
                }
                annotations.write((",\n" if annotations.tell() else "") + json.dumps(annotation))

        yield write
    info = {"description": "what sounds, by avsbg"}
    names = labels[1:] or ("sounding",)
    categories = [{"id": number, "name": name, "supercategory": "sound"} for number, name in enumerate(names, start=1)]
    with (directory / RLE).open("w", encoding="utf-8") as target:
        target.write(f'{{"info": {json.dumps(info)}, "licenses": [], "categories": {json.dumps(categories)},\n')
        for name, part in parts.items():
            target.write(f'"{name}": [\n')
            with part.open(encoding="utf-8") as source:
                shutil.copyfileobj(source, target)
            target.write("\n]" + (",\n" if name == "images" else "}\n"))
            part.unlink()


def run_lengths(mask: Array) -> dict[str, list[int]]:
    """COCO's uncompressed run-length encoding of a bool mask `[h, w]`: column by column, runs of 0, 1, 0, ... in turn.

    Returns `{"size": [h, w], "counts": [...]}`, which `pycocotools.mask.frPyObjects` reads.
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)) if len(flat) else np.zeros(0, int)
    counts = np.diff(np.concatenate([[0], changes, [len(flat)]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def bounding_box(mask: Array) -> list[int]:
    """COCO's `[x, y, width, height]` of a mask that is true somewhere."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]


def save_grey(directory: Path, sample: Sample, pixels: Array) -> None:
    """Write uint8 `[h, w]` as a sample's PNG (`file_name`); fast rather than smallest."""
    _save(directory, sample, pixels, None)


def _save(directory: Path, sample: Sample, pixels: Array, palette: Array | None) -> None:
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(directory / file_name(sample), compress_level=1)


def file_name(sample: Sample) -> str:
    """`00000.png` for the second 0; at several masks a second `000012_1.438s.png`, mask 12 of the frame at 1.438 s."""
    return f"{sample.number:05d}.png" if sample.place is None else f"{sample.number:06d}_{float(sample.time):.3f}s.png"
