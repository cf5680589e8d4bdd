"""Reading videos: what a file holds, a frame for each second, and the sound; memory does not grow with length."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from avsbg.runtime.errors import MediaError

# Fixed-rate files store times rounded to their time base, and drop the odd last frame; a cut file misses more.
MISSING_SECONDS = Fraction(1, 2)
# The average also counts how long the last frame is shown, which files state loosely.
RATE_TOLERANCE = Fraction(1, 100)


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        width, height: pixels, as displayed (rotation applied).
        rate: frames per second if constant, else None.
        start: the time stamp of the first picture, seconds; all other times count from it.
        duration: seconds of picture, if the file states it.
        has_sound: whether there is an audio track.
    """

    path: Path
    width: int
    height: int
    rate: Fraction | None
    start: Fraction
    duration: Fraction | None
    has_sound: bool


@dataclass(frozen=True)
class SecondFrame:
    """The frame that stands for a second of the video.

    Attributes:
        second: 0 for the first one.
        time: when the frame begins, seconds from the first picture.
        length: how much of the second is there, 1 except at the video's end.
        pixels: uint8 `[height, width, 3]`, RGB, in the video's size.
    """

    second: int
    time: Fraction
    length: Fraction
    pixels: NDArray[Any]


def probe(path: Path) -> VideoInfo:
    """What the file at `path` holds.

    Raises:
        MediaError: it is missing, cannot be read as a video, or has no pictures.
    """
    with open_media(path) as container:
        stream = video_stream(container, path)
        first = next(decode(container, path, stream), None)
        if first is None:
            raise MediaError(f"{path} has a video track without a single picture.")
        height, width = displayed(first).shape[:2]
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            rate=_constant_rate(stream),
            start=time_of(first, path),
            duration=_stated_duration(container, stream),
            has_sound=bool(container.streams.audio),
        )


def frame_per_second(video: VideoInfo, *, window: int, offset: float = 15 / 16) -> Iterator[SecondFrame]:
    """The frame that stands for each second of the video, decoding straight through.

    The published preparation cuts a video into clips, rounds the frame rate to an integer f and keeps, for second l
    of a clip, the frame of index int(l * f + 15/16 * f). Here clips follow each other every `window` seconds, so that
    sound and picture stay together at rates such as 29.97. At a variable rate it is the frame shown at l + 15/16.

    A last second counts if at least half of it is there, and the first one always does; where the wanted frame is
    beyond the end, the last frame stands for it.

    Args:
        video: what `probe` returned.
        window: seconds per clip, T.
        offset: the place in the second.

    Raises:
        MediaError: the file cannot be decoded, or ends long before the duration that it states.
    """
    with open_media(video.path) as container:
        stream = video_stream(container, video.path)
        second, shown, last = 0, Fraction(0), None
        for frame in decode(container, video.path, stream):
            time = time_of(frame, video.path) - video.start
            while last is not None and time > frame_deadline(second, window, video.rate, offset):
                yield SecondFrame(second, shown, Fraction(1), displayed(last))
                second += 1
            last, shown = frame, time
        if last is None:
            raise MediaError(f"{video.path} has a video track without a single picture.")
        end = shown + _length(last, stream)
        _check_complete(video, end)
        while second == 0 or second + Fraction(1, 2) <= end:
            yield SecondFrame(second, shown, min(Fraction(1), end - second), displayed(last))
            second += 1


def frame_deadline(second: int, window: int, rate: Fraction | None, offset: float) -> Fraction:
    """The time by which a frame must have begun to be the one that stands for `second` (see `frame_per_second`)."""
    if rate is None or round(rate) == 0:
        return second + Fraction(offset)
    clip = second - second % window
    index = int((second - clip + Fraction(offset)) * round(rate))
    # Half a frame of slack: a stored time may be rounded either way.
    return clip + (index + Fraction(1, 2)) / rate


class Sound:
    """The sound of a video from its first picture on: mono float32, channels averaged as in the published preparation.

    Args:
        video: what `probe` returned.
        sample_rate: Hz.

    Raises:
        MediaError: the file has no audio track; when reading, its sound cannot be decoded.
    """

    def __init__(self, video: VideoInfo, sample_rate: int) -> None:
        if not video.has_sound:
            raise MediaError(
                f"{video.path} has no audio track, and the network listens.",
                "Use --silent to run it with silence instead, or give a video with sound.",
            )
        self._blocks = _sound_blocks(video, sample_rate)
        self._rest = np.zeros(0, np.float32)

    def read(self, samples: int) -> NDArray[Any]:
        """The next `samples` samples, float32 `[samples]`; silence where the track has ended."""
        blocks, have = [self._rest], len(self._rest)
        while have < samples and (block := next(self._blocks, None)) is not None:
            blocks.append(block)
            have += len(block)
        joined = np.concatenate(blocks)
        taken, self._rest = joined[:samples], joined[samples:]
        return np.pad(taken, (0, samples - len(taken)))

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()


def _sound_blocks(video: VideoInfo, sample_rate: int) -> Generator[NDArray[Any], None, None]:
    with open_media(video.path) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", rate=sample_rate)
        early: int | None = None  # samples before the first picture, still to be dropped
        for frame in chain(decode(container, video.path, stream), [None]):
            if early is None:
                begin = Fraction(0) if frame is None else time_of(frame, video.path) - video.start
                early = max(0, -round(begin * sample_rate))
                yield np.zeros(max(0, round(begin * sample_rate)), np.float32)
            for piece in _resample(resampler, frame, video.path):
                block = piece.to_ndarray().mean(axis=0, dtype=np.float32)
                yield block[early:]
                early = max(0, early - len(block))


def open_media(path: Path) -> Any:
    """Open a media file: an `av` input container, with FFmpeg's protocols other than plain files switched off.

    Raises:
        MediaError: it is missing or not a media file.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError(f"there is no video at {path}.")
    if not path.is_file():
        raise MediaError(f"{path} is not a file.")
    try:
        return av.open(str(path.resolve()), options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise MediaError(
            f"{path} cannot be read as a video: {error.strerror}.",
            "It may be truncated or of a kind that FFmpeg does not know.",
        ) from error


def video_stream(container: Any, path: Path) -> Any:
    """The first video track that is not a cover picture.

    Raises:
        MediaError: there is none.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            stream.thread_type = "AUTO"
            return stream
    raise MediaError(f"{path} has no video track.")


def displayed(frame: Any) -> NDArray[Any]:
    """A decoded picture as uint8 RGB `[height, width, 3]`, turned the way it is shown (phones record sideways)."""
    pixels: NDArray[Any] = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, frame.rotation // 90) if frame.rotation % 360 else pixels


def _resample(resampler: av.AudioResampler, frame: Any, path: Path) -> list[Any]:
    try:
        return list(resampler.resample(frame))
    except ValueError as error:  # PyAV's for a change of format, and FFmpeg's for what it cannot resample.
        raise MediaError(f"the sound of {path} cannot be resampled: {error}", _REPAIR) from error


def decode(container: Any, path: Path, *streams: Any) -> Iterator[Any]:
    """The decoded frames of one or more tracks, in the file's order.

    Raises:
        MediaError: the data cannot be decoded; says how far it got.
    """
    reached = 0.0
    try:
        for frame in container.decode(*streams):
            reached = frame.time or reached
            yield frame
    except av.FFmpegError as error:
        raise MediaError(f"{path} cannot be decoded past {reached:.2f} s: {error.strerror}.", _REPAIR) from error


def time_of(frame: Any, path: Path) -> Fraction:
    """The time stamp of a decoded frame in seconds.

    Raises:
        MediaError: it has none, as in raw streams without a container.
    """
    if frame.pts is None:
        raise MediaError(f"{path} has no time stamps.", "Put it into a container: `ffmpeg -i FILE -c copy NEW.mp4`.")
    return Fraction(frame.pts * frame.time_base)


_REPAIR = "Fetch or record the file again; `ffmpeg -i FILE NEW.mp4` keeps what is left of it."


def _check_complete(video: VideoInfo, end: Fraction) -> None:
    if video.duration is not None and end < video.duration - MISSING_SECONDS:
        raise MediaError(
            f"{video.path} is truncated: it states {float(video.duration):.2f} s of pictures, "
            f"but they end at {float(end):.2f} s.",
            _REPAIR,
        )


def _length(frame: Any, stream: Any) -> Fraction:
    """How long a frame is shown, seconds."""
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
    """Seconds of picture as the track, its tags (Matroska) or, for a lone track, the container states them."""
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    if match := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = match.groups()
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    if container.duration is not None and not container.streams.audio:
        return Fraction(container.duration, av.time_base)
    return None
