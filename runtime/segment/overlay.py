"""Masks shown to people: the video with its masks tinted in, sound kept, and a contact sheet of the seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.audio import order_frames
from avsbg.runtime.media.container import Damage, VideoInfo, decode, displayed, open_media, open_track, time_of
from avsbg.runtime.media.orientation import Orientation, orientation_of

Array = NDArray[Any]
Masks = Iterator[tuple[int, Array]]

TINT = np.array([255, 64, 0], np.uint8)
# The same in limited-range YUV of BT.601; of BT.709 it differs by less than an eye sees at half strength.
TINT_YUV = np.array([114, 72, 216], np.uint8)
SOUND_RATE = 48000
# MPEG's unit of time, fine enough for variable frame rates.
TICKS = 90000


def tint(pixels: Array, mask: Array) -> Array:
    """`pixels` (uint8 `[h, w, 3]`) with the tint mixed in half where `mask` (bool `[h, w]`) is true."""
    tinted = pixels.copy()
    tinted[mask] = (tinted[mask] >> 1) + (TINT >> 1)
    return tinted


def _tint_frame(frame: Any, mask: Array, orientation: Orientation) -> Any:
    """`tint` of a decoded frame, displayed in that orientation: an `av.VideoFrame` of even width and height in yuv420p.

    Planar YUV is tinted as it is, which takes a third of the time of going through RGB and keeps the colours.
    """
    if not orientation_of(frame, orientation).is_upright or frame.width % 2 or frame.height % 2:
        pixels = tint(displayed(frame, orientation), mask)
        height, width = mask.shape
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    planar = frame if frame.format.name == "yuv420p" else frame.reformat(format="yuv420p")
    pixels, height, halved = planar.to_ndarray(), frame.height, mask[::2, ::2]
    planes = pixels[:height], *pixels[height:].reshape(2, height // 2, frame.width // 2)
    for plane, value, where in zip(planes, TINT_YUV, (mask, halved, halved), strict=True):
        np.copyto(plane, (plane >> 1) + (value >> 1), where=where)
    tinted = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
    tinted.colorspace, tinted.color_range = planar.colorspace, planar.color_range
    return tinted


def write_overlay(
    video: VideoInfo,
    frames: Iterable[Any],
    output: Path,
    masks: Masks,
    *,
    progress: Callable[[int], None],
    fragments: bool = False,
) -> None:
    """Write a video as H.264 with each second's mask tinted in during that second, and its sound as AAC.

    Frame times are kept. Width and height are padded to even numbers, which H.264 needs.

    Args:
        video: the video, of which `frames` are the decoded frames and sound, each with its time stamp.
        output: an .mp4 file.
        masks: (second, bool mask in the video's size), seconds increasing; waited for. A second without a mask keeps
            the one before, and so does what follows the last one.
        progress: called with the number of seconds done.
        fragments: write MP4 in fragments. Its index is then not held in memory; old players show no duration.

    Raises:
        MediaError: the video cannot be decoded, or the overlay not be encoded or written.
    """
    try:
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if fragments else {}
        with av.open(str(output), "w", format="mp4", options=options) as target:
            _write_overlay(video, frames, target, masks, progress)
    except OSError:
        raise
    except (av.FFmpegError, ValueError) as error:
        reason = error.strerror if isinstance(error, av.FFmpegError) else error
        raise MediaError(f"the overlay of {video.path} cannot be written: {reason}.") from error


def decode_all(video: VideoInfo, damage: Damage | None = None) -> Iterator[Any]:
    """The decoded frames and sound of a file, in its order; with `damage`, less what cannot be decoded."""
    with open_media(video.path) as source:
        tracks = [open_track(source, track) for track in (video.tracks.video, video.tracks.audio) if track is not None]
        yield from order_frames(decode(source, video, *tracks, damage=damage), str(video.path))


def _write_overlay(
    video: VideoInfo, frames: Iterable[Any], target: Any, masks: Masks, progress: Callable[[int], None]
) -> None:
    video_out, audio_out = _add_streams(target, video)
    mask, last = np.zeros((0, 0), bool), -1
    current, coming, ended = -1, None, False
    for frame in frames:
        time = time_of(frame, video.path) - video.start
        if isinstance(frame, av.AudioFrame):
            frame.pts = round(time / (frame.time_base or Fraction(1, TICKS)))
            target.mux(audio_out.encode(frame))
            continue
        second = max(0, int(time))
        while current < second and not ended:
            coming = coming or next(masks, None)
            if coming is None or (coming[0] > second and current >= 0):
                ended = coming is None
                break
            (current, mask), coming = coming, None
            progress(current)
        tinted = _tint_frame(frame, mask, video.orientation)
        # Encoders refuse times that stand still, which damaged files have.
        last = max(last + 1, round(time * TICKS))
        tinted.pts, tinted.time_base = last, Fraction(1, TICKS)
        target.mux(video_out.encode(tinted))
    for stream in filter(None, [video_out, audio_out]):
        target.mux(stream.encode(None))
    progress(current + 1)


def _add_streams(target: Any, info: VideoInfo) -> tuple[Any, Any]:
    options = {"crf": "20", "preset": "veryfast"}
    video: Any = target.add_stream("libx264", rate=info.rate or 30, options=options)
    video.width, video.height = info.width + info.width % 2, info.height + info.height % 2
    video.pix_fmt = "yuv420p"
    video.codec_context.time_base = Fraction(1, TICKS)
    audio = target.add_stream("aac", rate=SOUND_RATE, layout="stereo") if info.has_audio else None
    return video, audio


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
