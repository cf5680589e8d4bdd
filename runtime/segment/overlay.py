"""Masks shown to people: the video with its masks tinted in, sound kept, and a contact sheet of the seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray
from PIL import Image

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.appearance import BT709, LIMITED, RGB, ColourTags
from avsbg.runtime.media.audio import order_frames
from avsbg.runtime.media.container import (
    SWSCALE_MATRICES,
    Damage,
    VideoInfo,
    decode,
    displayed,
    fit_frame,
    open_media,
    open_track,
    time_of,
)
from avsbg.runtime.media.orientation import orientation_of
from avsbg.runtime.media.places import Places
from avsbg.runtime.segment.interpolation import InterpolatedMasks
from avsbg.runtime.segment.palette import COLOURS, make_legend, show_legend

Array = NDArray[Any]
Masks = Iterator[tuple[int, Array]]

TINT = np.array([255, 64, 0], np.uint8)
SOUND_RATE = 48000
# MPEG's unit of time, fine enough for variable frame rates.
TICKS = 90000


def tint(pixels: Array, mask: Array) -> Array:
    """`pixels` (uint8 `[h, w, 3]`) with the tint mixed in half where `mask` (bool `[h, w]`) is true.

    Where it holds numbers of classes, uint8, the tint is the class's colour.
    """
    tinted, where = pixels.copy(), mask > 0
    colour = TINT if mask.dtype == np.bool_ else COLOURS[mask[where]]
    tinted[where] = (tinted[where] >> 1) + (colour >> 1)
    return tinted


class _Tinter:
    """Tints decoded frames in the YUV that they are in, which keeps all other colours as they are."""

    def __init__(self, video: VideoInfo, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._is_rgb, self._orientation = video.colour.matrix == RGB, video.orientation
        self.colour = replace(video.colour, matrix=BT709, range=LIMITED) if self._is_rgb else video.colour
        # By what a mask holds: false and true, or numbers of classes.
        colours = COLOURS if labels else np.stack([TINT, TINT])
        squares = np.repeat(np.repeat(colours[None], 2, axis=0), 2, axis=1)
        self._tints = [plane[0, :: plane.shape[1] // len(colours)] for plane in self._as_planes(squares)]
        self._legend: tuple[Array | None, list[Array]] = (None, [])  # of the last mask, in planes

    def __call__(self, frame: Any, mask: Array) -> Any:
        """A frame tinted where its mask, `[h, w]` in the size displayed, is not 0; in yuv420p of even size."""
        given = mask
        is_upright = orientation_of(frame, self._orientation).is_upright
        if self._is_rgb or not is_upright or frame.width % 2 or frame.height % 2:
            odd = [(0, size % 2) for size in mask.shape]
            mask = np.pad(mask, odd, mode="edge")
            planar = self._from_rgb(np.pad(displayed(frame, self._orientation), [*odd, (0, 0)], mode="edge"))
        else:
            planar = frame if frame.format.name == "yuv420p" else _to_yuv420p(frame)
        pixels, halved = planar.to_ndarray(), mask[::2, ::2]
        planes = _planes(pixels)
        for plane, tints, chosen in zip(planes, self._tints, (mask, halved, halved), strict=True):
            value = tints[chosen] if self._labels else tints[1]
            np.copyto(plane, (plane >> 1) + (value >> 1), where=chosen > 0)
        for plane, legend in zip(planes, self._legend_of(given), strict=False):
            plane[: legend.shape[0], : legend.shape[1]] = legend
        return av.VideoFrame.from_ndarray(pixels, format="yuv420p")

    def _legend_of(self, mask: Array) -> list[Array]:
        """The legend of a mask in planes, none without classes; made once while the mask stays."""
        if self._legend[0] is not mask:
            legend = make_legend(mask, self._labels) if self._labels else np.zeros((0, 0, 3), np.uint8)
            self._legend = mask, list(self._as_planes(legend)) if legend.size else []
        return self._legend[1]

    def _as_planes(self, pixels: Array) -> tuple[Array, Array, Array]:
        return _planes(self._from_rgb(pixels).to_ndarray())

    def _from_rgb(self, pixels: Array) -> Any:
        """A frame in yuv420p, of the overlay's matrix and range, of uint8 RGB `[h, w, 3]` of even size."""
        matrix, spread = SWSCALE_MATRICES.get(self.colour.matrix, self.colour.matrix), self.colour.range or LIMITED
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=spread)


def _to_yuv420p(frame: Any) -> Any:
    try:
        return frame.reformat(format="yuv420p")
    except (av.FFmpegError, ValueError) as error:
        problem = f"frames in the colour matrix {frame.colorspace} cannot be converted: {error}."
        raise MediaError(problem, "Use --no-overlay.") from error


def _planes(pixels: Array) -> tuple[Array, Array, Array]:
    """Y `[h, w]`, U and V `[h / 2, w / 2]` of yuv420p as PyAV has it, one below the other."""
    height, width = len(pixels) * 2 // 3, pixels.shape[1]
    chroma_u, chroma_v = pixels[height:].reshape(2, height // 2, width // 2)
    return pixels[:height], chroma_u, chroma_v


class _CurrentMask:
    """The mask of a second, or of a place, of masks that come in order and are waited for."""

    def __init__(self, video: VideoInfo, masks: Masks, progress: Callable[[int], None], *, labelled: bool) -> None:
        self._masks, self._progress = masks, progress
        self._mask: Array = np.zeros((video.height, video.width), np.uint8 if labelled else bool)
        self._coming: tuple[int, Array] | None = None
        self._ended = False
        self.number = -1  # of the mask

    def at(self, _: Fraction, number: int) -> Array:
        """The last mask by that number; no earlier one is asked for afterwards."""
        while self.number < number and not self._ended:
            self._coming = self._coming or next(self._masks, None)
            if self._coming is None or (self._coming[0] > number and self.number >= 0):
                self._ended = self._coming is None
                break
            (self.number, self._mask), self._coming = self._coming, None
            self._progress(self.number)
        return self._mask


class Timetable:
    """The number of the mask that is displayed at each time: a second's during it, or a place's from its frame on."""

    def __init__(self, places: Places | None) -> None:
        self._places, self._next = places, 0

    def pieces(self, begin: Fraction, end: Fraction) -> list[tuple[Fraction, int]]:
        """The times from which a frame that is displayed from `begin` to `end` shows which mask; times increase."""
        if self._places is None:
            first = max(0, int(begin))
            return [(begin, first), *((Fraction(second), second) for second in range(first + 1, math.ceil(end)))]
        found: list[tuple[Fraction, int]] = []
        while (deadline := self._places[self._next].deadline) < end:
            # The first of the places that this frame stands for has it from its beginning on.
            if deadline > begin and found:
                found.append((deadline, self._next))
            else:
                found = [(begin, self._next)]
            self._next += 1
        return found or [(begin, max(0, self._next - 1))]


def show_masks(
    video: VideoInfo, frames: Iterable[Any], masks: _CurrentMask | InterpolatedMasks, places: Places | None
) -> Iterator[tuple[Any, Fraction, Fraction, Array | None]]:
    """Frames and sound with when they begin and end, and a frame's mask; once for each mask while it is displayed."""
    timetable = Timetable(places)
    for frame, begin, end in _times(frames, video):
        if isinstance(frame, av.AudioFrame):
            yield frame, begin, end, None
            continue
        for (start, number), (stop, _) in pairwise([*timetable.pieces(begin, end), (end, 0)]):
            yield frame, start, stop, masks.at(start, number)


def write_overlay(
    video: VideoInfo,
    frames: Iterable[Any],
    output: Path,
    masks: Masks | InterpolatedMasks,
    *,
    progress: Callable[[int], None],
    fragments: bool = False,
    labels: tuple[str, ...] = (),
    places: Places | None = None,
    keep: Callable[[Fraction, Array], object] | None = None,
) -> None:
    """Write a video as H.264 with each second's mask tinted in during that second, and its sound as AAC.

    At several masks a second, each is tinted in from its own frame on, until that of the next. Frame times, colours and
    their tags, and the shape of pixels are kept; a frame that is displayed during several masks is repeated for each.
    Width and height are padded to even numbers, which H.264 needs.

    Args:
        video: the video, of which `frames` are the decoded frames and sound, each with its time stamp.
        output: an .mp4 file.
        masks: (number, mask in the video's size, as of `tint`), numbers increasing; waited for. Numbers are of seconds,
            or of `places`. One without a mask keeps the one before, and so does what follows the last one. Or those
            between the network's.
        progress: called with the number of seconds done.
        labels: names of the masks' classes, for the legend; none where masks are bool.
        fragments: write MP4 in fragments. Its index is then not held in memory; old players show no duration.
        places: of the masks, at several a second; None for a mask for each second.
        keep: called with each time and mask as it is shown.

    Raises:
        MediaError: the video cannot be decoded, or the overlay not be encoded or written.
    """
    try:
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if fragments else {}
        with av.open(str(output.resolve()), "w", format="mp4", options=options) as target:
            _write_overlay(video, frames, target, masks, progress, labels=labels, places=places, keep=keep)
    except OSError:
        raise
    except (av.FFmpegError, ValueError) as error:
        reason = error.strerror if isinstance(error, av.FFmpegError) else error
        raise MediaError(f"the overlay of {video.path} cannot be written: {reason}.") from error


def decode_all(video: VideoInfo, damage: Damage | None = None) -> Iterator[Any]:
    """The decoded frames and sound of a file, in its order; with `damage`, less what cannot be decoded."""
    with open_media(video.path, video.hwaccel) as source:
        wanted = filter(None, (video.tracks.video, video.tracks.audio))
        tracks = [open_track(source, track, video.hwaccel) for track in wanted]
        for frame in order_frames(decode(source, video, *tracks, damage=damage), str(video.path)):
            yield frame if isinstance(frame, av.AudioFrame) else fit_frame(frame, video)


def _write_overlay(
    video: VideoInfo,
    frames: Iterable[Any],
    target: Any,
    masks: Masks | InterpolatedMasks,
    progress: Callable[[int], None],
    *,
    labels: tuple[str, ...],
    places: Places | None,
    keep: Callable[[Fraction, Array], object] | None,
) -> None:
    phases = 1 if places is None else places.phases
    shown: _CurrentMask | InterpolatedMasks
    if isinstance(masks, InterpolatedMasks):
        shown = masks
    else:
        shown = _CurrentMask(video, masks, lambda number: progress(number // phases), labelled=bool(labels))
    tinter, last = _Tinter(video, labels), -1
    video_out, audio_out = _add_streams(target, video, tinter.colour)
    for frame, begin, end, mask in show_masks(video, frames, shown, places):
        if mask is None:
            frame.pts = round(begin / (frame.time_base or Fraction(1, TICKS)))
            target.mux(audio_out.encode(frame))
            continue
        if keep is not None:
            keep(begin, mask)
        tinted = tinter(frame, mask)
        # Encoders refuse times that stand still, which damaged files have.
        last = max(last + 1, round(begin * TICKS))
        tinted.pts, tinted.time_base = last, Fraction(1, TICKS)
        tinted.duration = max(1, round(end * TICKS) - last)
        target.mux(video_out.encode(tinted))
    for stream in filter(None, [video_out, audio_out]):
        target.mux(stream.encode(None))
    progress(shown.number // phases + 1)


def _times(frames: Iterable[Any], video: VideoInfo) -> Iterator[tuple[Any, Fraction, Fraction]]:
    """Frames and sound with when they begin and, of a frame, when it ends: with the next one, the last by its length.

    Seconds from the first frame of the video; sound overtakes the frame that waits for the next one.
    """
    waiting: tuple[Any, Fraction] | None = None
    for frame in frames:
        begin = time_of(frame, video.path) - video.start
        if isinstance(frame, av.AudioFrame):
            yield frame, begin, begin
            continue
        if waiting is not None:
            yield *waiting, begin
        waiting = frame, begin
    if waiting is not None:
        frame, begin = waiting
        length = frame.duration * frame.time_base if frame.duration else 1 / (video.rate or Fraction(30))
        yield frame, begin, begin + length


def _add_streams(target: Any, info: VideoInfo, colour: ColourTags) -> tuple[Any, Any]:
    # With B frames, decoding runs ahead by some frames, and MP4 states the length by the times of decoding.
    options = {"crf": "20", "preset": "veryfast", "bf": "0"}
    video: Any = target.add_stream("libx264", rate=info.rate or 30, options=options)
    video.width, video.height = info.width + info.width % 2, info.height + info.height % 2
    video.pix_fmt = "yuv420p"
    codec = video.codec_context
    codec.time_base, codec.sample_aspect_ratio = Fraction(1, TICKS), info.pixel_aspect
    codec.color_primaries, codec.color_trc = colour.primaries, colour.transfer
    codec.colorspace, codec.color_range = colour.matrix, colour.range
    codec.flags |= Flags.frame_duration  # or the last frame lasts as long as the one before
    audio = target.add_stream("aac", rate=SOUND_RATE, layout="stereo") if info.has_audio else None
    return video, audio


class ContactSheet:
    """Small overlays of a video's seconds on one page; of a long video every second, fourth, eighth, ... of them."""

    COLUMNS, MOST_TILES, TILE_WIDTH = 5, 40, 320

    def __init__(self, pixel_aspect: Fraction = Fraction(1), labels: tuple[str, ...] = ()) -> None:
        self._labels = labels  # of masks of classes
        self._pixel_aspect = pixel_aspect
        self._tiles: list[tuple[int, Image.Image]] = []
        self._step = 1

    def add(self, second: int, pixels: Array, mask: Array) -> None:
        """Add a second's frame with its mask; both in the same size."""
        from PIL import ImageDraw  # with its fonts, which the first mask need not wait for

        if second % self._step:
            return
        tinted = tint(pixels, mask)
        image = Image.fromarray(show_legend(tinted, mask, self._labels) if self._labels else tinted)
        if self._pixel_aspect != 1:
            image = image.resize(self._squared(*image.size))
        image.thumbnail((self.TILE_WIDTH, self.TILE_WIDTH))
        # In the corner that a legend of classes leaves free.
        place = image.width - 6, 4
        ImageDraw.Draw(image).text(place, f"{second} s", "white", anchor="ra", stroke_width=2, stroke_fill="black")
        self._tiles.append((second, image))
        if len(self._tiles) > self.MOST_TILES:
            self._step *= 2
            # A live source that lost seconds may have tiles of odd ones alone: the first stays.
            self._tiles = [tile for tile in self._tiles if tile[0] % self._step == 0] or self._tiles[:1]

    def _squared(self, width: int, height: int) -> tuple[int, int]:
        """The size with square pixels, within a tile's."""
        shown = width * self._pixel_aspect
        scale = min(Fraction(1), self.TILE_WIDTH / max(shown, Fraction(height)))
        return max(1, round(shown * scale)), max(1, round(height * scale))

    def save(self, path: Path) -> None:
        """Write the page as an image."""
        width, height = self._tiles[0][1].size
        columns = min(self.COLUMNS, len(self._tiles))
        rows = -(-len(self._tiles) // columns)
        page = Image.new("RGB", (columns * width, rows * height))
        for index, (_, image) in enumerate(self._tiles):
            page.paste(image, (index % columns * width, index // columns * height))
        page.save(path)
