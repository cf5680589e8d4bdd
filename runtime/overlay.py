"""Pictures for people: the video with its masks tinted in, sound kept, and a contact sheet of the seconds."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media import VideoInfo, decode, displayed, open_media, time_of, video_stream

Array = NDArray[Any]

TINT = np.array([255, 64, 0], np.uint8)
SOUND_RATE = 48000
# MPEG's unit of time, fine enough for variable frame rates.
TICKS = 90000


def tint(pixels: Array, mask: Array) -> Array:
    """`pixels` (uint8 `[h, w, 3]`) with the tint mixed in half where `mask` (bool `[h, w]`) is true."""
    tinted = pixels.copy()
    tinted[mask] = (tinted[mask] >> 1) + (TINT >> 1)
    return tinted


def write_overlay(
    video: VideoInfo, output: Path, seconds: int, mask_of: Callable[[int], Array], *, progress: Callable[[int], None]
) -> None:
    """Write the video as H.264 with each second's mask tinted in during that second, and its sound as AAC.

    Frame times are kept. Width and height are padded to even numbers, which H.264 needs.

    Args:
        video: what `probe` returned.
        output: an .mp4 file.
        seconds: how many seconds have a mask; what follows keeps the last one.
        mask_of: second -> bool mask in the video's size.
        progress: called with the number of seconds done.

    Raises:
        MediaError: the video cannot be decoded, or the overlay not be encoded or written.
    """
    try:
        _write_overlay(video, output, seconds, mask_of, progress)
    except av.FFmpegError as error:
        raise MediaError(f"the overlay of {video.path} cannot be written: {error.strerror}.") from error


def _write_overlay(
    video: VideoInfo, output: Path, seconds: int, mask_of: Callable[[int], Array], progress: Callable[[int], None]
) -> None:
    with open_media(video.path) as source, av.open(str(output), "w", format="mp4") as target:
        picture_in = video_stream(source, video.path)
        sound_in = source.streams.audio[0] if video.has_sound else None
        picture_out, sound_out = _add_streams(target, video)
        mask_second, mask, last = -1, np.zeros((0, 0), bool), -1
        for frame in decode(source, video.path, picture_in, *filter(None, [sound_in])):
            time = time_of(frame, video.path) - video.start
            is_sound = isinstance(frame, av.AudioFrame)
            if is_sound:
                frame.pts = round(time / frame.time_base)
                target.mux(sound_out.encode(frame))
                continue
            second = min(max(0, int(time)), seconds - 1)
            if second != mask_second:
                mask_second, mask = second, mask_of(second)
                progress(second)
            picture = av.VideoFrame.from_ndarray(_pad_to_even(tint(displayed(frame), mask)), format="rgb24")
            # Encoders refuse times that stand still, which damaged files have.
            last = max(last + 1, round(time * TICKS))
            picture.pts, picture.time_base = last, Fraction(1, TICKS)
            target.mux(picture_out.encode(picture))
        for stream in filter(None, [picture_out, sound_out]):
            target.mux(stream.encode(None))
        progress(seconds)


def _add_streams(target: Any, video: VideoInfo) -> tuple[Any, Any]:
    options = {"crf": "20", "preset": "veryfast"}
    picture: Any = target.add_stream("libx264", rate=video.rate or 30, options=options)
    picture.width, picture.height = video.width + video.width % 2, video.height + video.height % 2
    picture.pix_fmt = "yuv420p"
    picture.codec_context.time_base = Fraction(1, TICKS)
    if not video.has_sound:
        return picture, None
    sound: Any = target.add_stream("aac", rate=SOUND_RATE, layout="stereo")
    return picture, sound


def _pad_to_even(pixels: Array) -> Array:
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


class ContactSheet:
    """Small overlays of a video's seconds on one page; of a long video every second, fourth, eighth, ... of them."""

    COLUMNS, MOST_TILES, TILE_WIDTH = 5, 40, 320

    def __init__(self) -> None:
        self._tiles: list[tuple[int, Image.Image]] = []
        self._step = 1

    def add(self, second: int, pixels: Array, mask: Array) -> None:
        """Add a second's frame with its mask; both in the same size."""
        if second % self._step:
            return
        image = Image.fromarray(tint(pixels, mask))
        image.thumbnail((self.TILE_WIDTH, self.TILE_WIDTH))
        ImageDraw.Draw(image).text((6, 4), f"{second} s", fill="white", stroke_width=2, stroke_fill="black")
        self._tiles.append((second, image))
        if len(self._tiles) > self.MOST_TILES:
            self._step *= 2
            self._tiles = [tile for tile in self._tiles if tile[0] % self._step == 0]

    def save(self, path: Path) -> None:
        """Write the page as an image."""
        width, height = self._tiles[0][1].size
        columns = min(self.COLUMNS, len(self._tiles))
        rows = -(-len(self._tiles) // columns)
        page = Image.new("RGB", (columns * width, rows * height))
        for index, (_, image) in enumerate(self._tiles):
            page.paste(image, (index % columns * width, index // columns * height))
        page.save(path)
