"""Tracks of a media file: the ones that are read, by number or as players choose them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from av.stream import Disposition

from avsbg.runtime.errors import MediaError

Kind = Literal["video", "audio"]

# A track with a single frame is a cover picture, also where nothing marks it as one; so is one of these codecs where no
# number of frames and no duration is stated.
STILL_CODECS = {"mjpeg", "png", "apng", "bmp", "gif", "webp", "tiff", "jpeg2000", "jpegxl"}

# A track beside another one that is shorter than this is a single frame, seconds.
SHORT = Fraction(1, 5)


@dataclass(frozen=True)
class Track:
    """A track that is read."""

    index: int  # among all streams of the file
    number: int  # among those of its kind, from 0 on, as FFmpeg counts them
    codec: str
    language: str | None = None


@dataclass(frozen=True)
class Tracks:
    """The tracks of a source that are read."""

    video: Track
    audio: Track | None = None


@dataclass(frozen=True)
class TrackNumbers:
    """The tracks that a user asks for, by their number among those of the kind; None for the usual choice."""

    video: int | None = None
    audio: int | None = None


USUAL = TrackNumbers()


def choose_tracks(container: Any, name: Path | str, numbers: TrackNumbers = USUAL) -> Tracks:
    """The tracks to read of an open file.

    Raises:
        MediaError: no video track can be decoded, or a track that was asked for is not there or cannot be decoded.
    """
    video = choose_track(container, "video", name, numbers.video)
    if video is None:
        unknown = [stream for stream in container.streams.video if stream.codec_context is None]
        if unknown:
            hint = "FFmpeg does not know its codec; convert the file with the program that made it."
            raise MediaError(f"{name} has no video track that can be decoded.", hint)
        raise MediaError(f"{name} has no video track.")
    return Tracks(video, choose_track(container, "audio", name, numbers.audio))


def choose_track(container: Any, kind: Kind, name: Path | str, number: int | None = None) -> Track | None:
    """The track of a kind to read: the one asked for, else as players do the default one of those that can be decoded.

    Cover pictures come last among video tracks, and one that is marked as such is none. Returns None where no track can
    be decoded; it is a `MediaError` if the one asked for is not there or cannot be.
    """
    streams = list(getattr(container.streams, kind))
    if number is not None:
        return _describe(_numbered(streams, kind, name, number), number)
    usable = [
        (_is_still(stream), not stream.disposition & Disposition.default, place, stream)
        for place, stream in enumerate(streams)
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    if not usable:
        return None
    *_, place, stream = min(usable, key=lambda one: one[:3])
    return _describe(stream, place)


def _numbered(streams: list[Any], kind: Kind, name: Path | str, number: int) -> Any:
    if not 0 <= number < len(streams):
        there = f"its {kind} tracks are 0 to {len(streams) - 1}" if streams else f"it has no {kind} track"
        raise MediaError(f"{name} has no {kind} track {number}: {there}.", f"See `ffprobe`, and --{kind}-track.")
    if streams[number].codec_context is None:
        problem = f"the {kind} track {number} of {name} cannot be decoded: FFmpeg does not know its codec."
        raise MediaError(problem, f"Choose another one with --{kind}-track.")
    return streams[number]


def _is_still(stream: Any) -> bool:
    """Whether a track is a single picture: it says so, or its codec is one of pictures and it says nothing."""
    if stream.type != "video" or stream.frames == 1:
        return bool(stream.type == "video")
    if (seconds := tagged_duration(stream)) is not None:  # Matroska states no number of frames
        return seconds < SHORT
    return stream.frames == 0 and stream.codec_context.name in STILL_CODECS


def tagged_duration(stream: Any) -> Fraction | None:
    """The end of a track in seconds, from its tag in Matroska; None without one."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)


def _describe(stream: Any, number: int) -> Track:
    language = stream.language if stream.language != "und" else None
    return Track(stream.index, number, stream.codec_context.name, language or None)
