"""Media files: what one holds, its packets and its decoded frames, in memory that does not grow with the length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from avsbg.runtime.errors import MediaError

# Fixed-rate files store times rounded to their time base, and drop the odd last frame; a cut file misses more.
MISSING_SECONDS = Fraction(1, 2)
# The average also counts how long the last frame lasts, which files state loosely.
RATE_TOLERANCE = Fraction(1, 100)
# Codecs whose parameters an MP4 header holds, with the order in which frames are displayed.
HEADER_CODECS = {"h264", "hevc"}
REPAIR = "Fetch or record the file again; `ffmpeg -i FILE NEW.mp4` keeps what is left of it."
# From 17.0 on PyAV converts a frame with a thread for each processor, and starts them anew for every one: that takes
# longer than converting it, and all that is there works already.
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


@dataclass(frozen=True)
class VideoInfo:
    """A description of a video file or a live source."""

    path: Path | str  # the file, or how the user names the live source
    width: int  # in pixels, as displayed
    height: int
    rate: Fraction | None  # frames per second if constant
    start: Fraction  # the time stamp of the first frame, seconds; all other times count from it
    duration: Fraction | None  # seconds of video, if the file states it
    has_audio: bool
    # Whether the file's header tells all that FFmpeg must know to decode it.
    header_suffices: bool = field(default=False, compare=False)


def probe(path: Path) -> VideoInfo:
    """Describe the video file at `path`; a `MediaError` if it is missing, is not a video, or has no frames."""
    container, header_suffices = _open_by_header(path)
    with container:
        stream = video_stream(container, path)
        stream.thread_type = "NONE"  # threads would decode several frames before they return the first
        first = next(decode(container, path, stream), None)
        if first is None:
            raise MediaError(f"{path} has a video track without a single picture.")
        rate, duration = _constant_rate(stream), _stated_duration(container, stream)
        has_audio, start = bool(container.streams.audio), time_of(first, path)
        return VideoInfo(path, *displayed_size(first), rate, start, duration, has_audio, header_suffices)


def open_media(path: Path | str) -> Any:
    """Open a media file as an `av` input container, with FFmpeg's protocols other than plain files switched off.

    It is a `MediaError` if it is missing or not a media file.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError(f"there is no video at {path}.")
    if not path.is_file():
        raise MediaError(f"{path} is not a file.")
    return _open(path)


def open_video(video: VideoInfo) -> Any:
    """Open a file that was probed as `open_media` does, or faster, by its header alone, where that suffices."""
    return _open(Path(video.path), by_header=True) if video.header_suffices else open_media(video.path)


def _open_by_header(path: Path) -> tuple[Any, bool]:
    """A container, and whether it was opened by its header: an MP4 file of H.264 or H.265 whose header lists all.

    FFmpeg otherwise decodes the first frames to find out what the header says as well, which is most of what opening
    costs. The decoded frames and sound are the same.
    """
    if path.is_file():
        with path.open("rb") as file:
            is_mp4 = file.read(8)[4:] == b"ftyp"
        if is_mp4:
            container = _open(path, by_header=True)
            videos = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
            # Of a fragmented file it lists nothing.
            if videos and all(one.frames and one.codec_context.name in HEADER_CODECS for one in videos):
                return container, True
            container.close()
    return open_media(path), False


def _open(path: Path, *, by_header: bool = False) -> Any:
    options = {"protocol_whitelist": "file", **({"probesize": "32"} if by_header else {})}
    try:
        return av.open(str(path.resolve()), format="mp4" if by_header else None, options=options)
    except av.FFmpegError as error:
        hint = "It may be truncated or of a kind that FFmpeg does not know."
        raise MediaError(f"{path} cannot be read as a video: {error.strerror}.", hint) from error


def video_stream(container: Any, path: Path | str) -> Any:
    """The first video track that is not a cover picture; it is an error if there is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            stream.thread_type = "AUTO"
            return stream
    raise MediaError(f"{path} has no video track.")


def displayed(frame: Any) -> NDArray[Any]:
    """A decoded frame as uint8 RGB `[height, width, 3]`, turned the way it is displayed (phones record sideways)."""
    pixels: NDArray[Any] = frame.to_ndarray(format="rgb24", **_ONE_THREAD)
    return np.rot90(pixels, frame.rotation // 90) if frame.rotation % 360 else pixels


def displayed_size(frame: Any) -> tuple[int, int]:
    """The width and height that `displayed` gives a decoded frame."""
    return (frame.height, frame.width) if frame.rotation // 90 % 2 else (frame.width, frame.height)


def decode(container: Any, path: Path | str, *streams: Any) -> Iterator[Any]:
    """The decoded frames of one or more tracks, in the file's order; errors as of the two below."""
    return decode_packets(packets_of(container, path, *streams), path)


def packets_of(container: Any, path: Path | str, *streams: Any) -> Iterator[Any]:
    """The packets of one or more tracks; an empty one at the end of each, which empties its decoder.

    It is a `MediaError` if the file ends inside a packet, or before the last one that its index lists.
    """
    counts = dict.fromkeys((stream.index for stream in streams), 0)
    whole = True
    try:
        for packet in container.demux(*streams):
            if packet.size:
                counts[packet.stream_index] += 1
                whole = not packet.is_corrupt
            yield packet
    except av.FFmpegError as error:
        raise MediaError(f"{path} cannot be read to its end: {error.strerror}.", REPAIR) from error
    # The index of MP4 lists every packet that is to be read, edit lists applied; that of others only some. PyAV has it
    # from 17.0 on: before that, a file cut exactly between two packets is not recognised.
    indexed = [stream for stream in streams if "mp4" in container.format.name and hasattr(stream, "index_entries")]
    if not whole or any(counts[stream.index] < len(stream.index_entries) for stream in indexed):
        raise MediaError(f"{path} is truncated: it ends within the data that it states.", REPAIR)


def decode_packets(packets: Iterable[Any], path: Path | str) -> Iterator[Any]:
    """Decode packets with the decoders of their container; an error says how far it got."""
    reached = 0.0
    for packet in packets:
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            raise MediaError(f"{path} cannot be decoded past {reached:.2f} s: {error.strerror}.", REPAIR) from error
        for frame in frames:
            reached = frame.time or reached
            yield frame


def time_of(frame: Any, path: Path | str) -> Fraction:
    """The time stamp of a decoded frame in seconds."""
    return Fraction(ticks_of(frame, path) * frame.time_base)


def ticks_of(frame: Any, path: Path | str) -> int:
    """The time stamp of a decoded frame in its own unit, `time_base`, which is the same for all of a track.

    It is an error if it has none, as in raw streams without a container.
    """
    if frame.pts is None:
        raise MediaError(f"{path} has no time stamps.", "Put it into a container: `ffmpeg -i FILE -c copy NEW.mp4`.")
    return int(frame.pts)


def check_complete(video: VideoInfo, end: Fraction) -> None:
    """Check that the frames, which end at `end`, reach the duration that the file states, to half a second."""
    if video.duration is not None and end < video.duration - MISSING_SECONDS:
        stated = f"it states {float(video.duration):.2f} s of pictures, but they end at {float(end):.2f} s"
        raise MediaError(f"{video.path} is truncated: {stated}.", REPAIR)


def frame_length(frame: Any, stream: Any) -> Fraction:
    """The time that a frame is displayed, seconds."""
    if frame.duration:
        return Fraction(frame.duration * frame.time_base)
    return 1 / Fraction(stream.average_rate) if stream.average_rate else Fraction(0)


def _constant_rate(stream: Any) -> Fraction | None:
    """The frame rate, if the average agrees with the one that the time stamps fit; else it varies."""
    average, fitting = stream.average_rate, stream.base_rate
    if not average or not fitting or abs(average / fitting - 1) > RATE_TOLERANCE:
        return None
    return Fraction(fitting)


def _stated_duration(container: Any, stream: Any) -> Fraction | None:
    """Seconds of video as the track, its tags (Matroska) or, for a lone track, the container states them."""
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    if match := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = match.groups()
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    if container.duration is not None and not container.streams.audio:
        return Fraction(container.duration, av.time_base)
    return None
