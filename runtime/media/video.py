"""Which frame stands for each second of a video, decoding no more than it takes to find it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.container import (
    VideoInfo,
    check_complete,
    decode_packets,
    displayed,
    frame_length,
    open_by_header,
    packets_of,
    ticks_of,
    time_of,
    video_stream,
)
from avsbg.runtime.media.needed_pictures import FrameSkipper, last_tick
from avsbg.runtime.threads import Prefetch, usable_cores

# Decoded frames that may wait to be used.
FRAMES_AHEAD = 2
# Of a decoder, as FFmpeg itself limits them: each holds pictures.
MOST_THREADS = 16


@dataclass(frozen=True)
class SampledFrame:
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


def frame_per_second(video: VideoInfo, *, window: int, offset: float = 15 / 16) -> Iterator[SampledFrame]:
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
        MediaError: the file cannot be decoded, or ends before what it states.
    """
    # Pictures are decoded in a thread of their own while the ones before are made RGB, and used.
    with Prefetch(_choose(video, window, offset), FRAMES_AHEAD) as chosen:
        for second, time, length, frame in chosen:
            yield SampledFrame(second, time, length, displayed(frame))


def _choose(video: VideoInfo, window: int, offset: float) -> Iterator[tuple[int, Fraction, Fraction, Any]]:
    """For each second: its number, when its frame begins, how much of the second is there, and the decoded frame."""

    def deadline(second: int) -> Fraction:
        return frame_deadline(second, window, video.rate, offset)

    with open_by_header(video.path) as container:
        stream = video_stream(container, video.path)
        # One for each processor. FFmpeg's own choice is one more, which is measurably slower.
        stream.codec_context.thread_count = min(MOST_THREADS, len(usable_cores()))
        second, limit, last = 0, 0, None
        needed = FrameSkipper(stream.codec_context, video.start, deadline)
        packets = needed.of(packets_of(container, video.path, stream))
        for frame in decode_packets(packets, video.path):
            ticks = ticks_of(frame, video.path)
            if last is None:
                limit = last_tick(video.start + deadline(0), frame.time_base)
            while last is not None and ticks > limit:
                yield second, time_of(last, video.path) - video.start, Fraction(1), last
                second += 1
                limit = last_tick(video.start + deadline(second), frame.time_base)
            last = frame
        if last is None:
            raise MediaError(f"{video.path} has a video track without a single picture.")
        shown = time_of(last, video.path) - video.start
        end = shown + frame_length(last, stream) if needed.end is None else needed.end
        check_complete(video, end)
        while second == 0 or second + Fraction(1, 2) <= end:
            whole = needed.end is not None and second < needed.passed
            yield second, shown, Fraction(1) if whole else min(Fraction(1), end - second), last
            second += 1


def frame_deadline(second: int, window: int, rate: Fraction | None, offset: float) -> Fraction:
    """The time by which a frame must have begun to be the one that stands for `second` (see `frame_per_second`)."""
    if rate is None or round(rate) == 0:
        return second + Fraction(offset)
    clip = second - second % window
    index = int((second - clip + Fraction(offset)) * round(rate))
    # Half a frame of slack: a stored time may be rounded either way.
    return clip + (index + Fraction(1, 2)) / rate
