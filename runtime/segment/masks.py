"""Masks as files: PNG, a lossless video, or run lengths as COCO writes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg.runtime.media.container import VideoInfo
from avsbg.runtime.media.samples import Sample

Array = NDArray[Any]
MaskFormat = Literal["png", "video", "none"]

MASK_VIDEO, RLE = "masks.mkv", "masks.coco.json"


class MaskWriter(Protocol):
    """Writes the masks of a video, one after the other."""

    def add(self, sample: Sample, mask: Array) -> None:
        """Add the mask of a sample, bool `[h, w]` in the video's size."""


class PngMasks:
    """`00000.png` and so on in a directory of their own, one for each second: 255 where it sounds, else 0."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()

    def add(self, sample: Sample, mask: Array) -> None:
        """Write the PNG of a second."""
        save_grey(numbered(self._directory, sample.number), mask.astype(np.uint8) * 255)


class VideoMasks:
    """One lossless grey video (FFV1 in Matroska), a frame for each second at that second: 255 where it sounds."""

    def __init__(self, target: Any, video: VideoInfo) -> None:
        self._target = target
        self._stream = target.add_stream("ffv1", rate=1)
        self._stream.width, self._stream.height, self._stream.pix_fmt = video.width, video.height, "gray"

    def add(self, sample: Sample, mask: Array) -> None:
        """Encode the mask of a second."""
        frame = av.VideoFrame.from_ndarray(mask.astype(np.uint8) * 255, format="gray")
        frame.pts, frame.time_base = sample.number, Fraction(1)
        self._target.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Empty the encoder."""
        self._target.mux(self._stream.encode(None))


class CocoMasks:
    """A COCO annotation file with uncompressed run lengths; what waits to be written lies on disk.

    An image stands for each second, and an annotation for each in which something sounds.
    """

    def __init__(self, images: Any, annotations: Any, video: VideoInfo) -> None:
        self._images, self._annotations = images, annotations
        self._name = Path(video.path).name
        self._count = self._images_count = 0

    def add(self, sample: Sample, mask: Array) -> None:
        """Add a second's image and annotation."""
        height, width = mask.shape
        image = {
            "id": sample.number,
            "file_name": self._name,
            "height": height,
            "width": width,
            "second": sample.number,
            "time": round(float(sample.time), 6),
        }
        self._images.write((",\n" if self._images_count else "") + json.dumps(image))
        self._images_count += 1
        if not mask.any():
            return
        self._count += 1
        annotation = {
            "id": self._count,
            "image_id": sample.number,
            "category_id": 1,
            "iscrowd": 0,
            "area": int(mask.sum()),
            "bbox": bounding_box(mask),
            "segmentation": run_lengths(mask),
        }
        self._annotations.write((",\n" if self._count > 1 else "") + json.dumps(annotation))


def run_lengths(mask: Array) -> dict[str, list[int]]:
    """COCO's uncompressed run-length encoding: column by column, lengths of runs of 0, 1, 0, ... in turn.

    Args:
        mask: bool `[h, w]`.

    Returns:
        `{"size": [h, w], "counts": [...]}`, which `pycocotools.mask.frPyObjects` reads.
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)) if len(flat) else np.zeros(0, int)
    counts = np.diff(np.concatenate([[0], changes, [len(flat)]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def bounding_box(mask: Array) -> list[int]:
    """COCO's `[x, y, width, height]` of a mask that is true somewhere."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]


@contextmanager
def mask_writers(directory: Path, video: VideoInfo, masks: MaskFormat, rle: bool) -> Iterator[list[MaskWriter]]:
    """Yield the writers for the files asked for; they are complete when the block ends without an error.

    Args:
        directory: where they go: `masks/`, `masks.mkv` and `masks.coco.json`.
        video: what the masks belong to.
        masks: how they are written.
        rle: also write COCO's run lengths.
    """
    writers: list[MaskWriter] = []
    with ExitStack() as stack:
        lossless = None
        if masks == "png":
            writers.append(PngMasks(directory / "masks"))
        elif masks == "video":
            target = stack.enter_context(av.open(str(directory / MASK_VIDEO), "w", format="matroska"))
            lossless = VideoMasks(target, video)
            writers.append(lossless)
        parts = [directory / f".{RLE}.{part}" for part in ("images", "annotations")]
        if rle:
            images, annotations = (stack.enter_context(part.open("w", encoding="utf-8")) for part in parts)
            writers.append(CocoMasks(images, annotations, video))
        yield writers
        if lossless is not None:
            lossless.finish()
    if rle:
        _join_coco(directory / RLE, *parts)


def _join_coco(path: Path, images: Path, annotations: Path) -> None:
    info = {"description": "what sounds, by avsbg"}
    categories = [{"id": 1, "name": "sounding", "supercategory": "sound"}]
    with path.open("w", encoding="utf-8") as target:
        target.write(f'{{"info": {json.dumps(info)}, "licenses": [], "categories": {json.dumps(categories)},\n')
        for name, part in (("images", images), ("annotations", annotations)):
            target.write(f'"{name}": [\n')
            with part.open(encoding="utf-8") as source:
                shutil.copyfileobj(source, target)
            target.write("\n]" + (",\n" if name == "images" else "}\n"))
            part.unlink()


def save_grey(path: Path, pixels: Array) -> None:
    """Write uint8 `[h, w]` as a PNG; fast rather than smallest."""
    Image.fromarray(pixels).save(path, compress_level=1)


def numbered(directory: Path, second: int) -> Path:
    """The file of a second."""
    return directory / f"{second:05d}.png"
