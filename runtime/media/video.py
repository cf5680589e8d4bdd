"""The frame that stands for each second of a video, found by decoding no more than it takes.

The choice is the same to the bit as by decoding everything, but for what a decoder makes up where a file is damaged.
Wanted are the last frame by each deadline, and the last of all if it stands for a second. Decoders of H.264, H.265 and
MPEG-1, 2 and 4 leave out, on request, frames that no other one refers to, and get nothing after the last wanted one.
Where every frame stands for itself (MJPEG, ProRes, raw video), only the wanted ones are sent.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media import container as media
from avsbg.runtime.media.container import Damage, VideoInfo, ticks_of, time_of
from avsbg.runtime.media.places import Place, Places
from avsbg.runtime.threads import usable_cores

# Of a decoder, as FFmpeg itself limits them: each holds frames.
MOST_THREADS = 16
# Decoders that heed a change of `skip_frame` between packets, and that know which frames no other one refers to.
SKIPPING_DECODERS = {"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video"}
# Side data of a packet that concern the packets after it.
PERSISTENT_DATA = ("palette", "new_extradata", "param_change")
# Packets of a second and a bit, at any frame rate that a camera has.
MOST_WAITING = 1000


class ChosenFrame(NamedTuple):
    """The decoded frame that stands for a place of a video."""

    number: int  # of the place
    place: Place
    time: Fraction  # when the frame begins, seconds from the first frame of the video
    length: Fraction  # how much of the place's second is there
    frame: Any


def choose_frames(
    video: VideoInfo,
    *,
    clip_seconds: int,
    offset: float,
    least: int = 1,
    damage: Damage | None = None,
    rate: Fraction = Fraction(1),
) -> Iterator[ChosenFrame]:
    """The frame that stands for each second of the video, decoding straight through, or for each second of each phase.

    A last second counts if at least half of it is there, and the first `least` of the video itself always do; where the
    wanted frame is beyond the end, the last frame stands for it.

    Args:
        video: what `probe` returned.
        clip_seconds: seconds per clip, T.
        offset: the place in the second, 15/16 in the published preparation.
        least: seconds that are there in any case.
        damage: pass over what cannot be decoded, and count it there.
        rate: of masks a second.
    """
    places = Places(rate, clip_seconds, offset, video.rate)
    with media.open_video(video, video.hwaccel) as container:
        stream = media.open_track(container, video.tracks.video, video.hwaccel)
        # One for each processor. FFmpeg's own choice is one more, which is measurably slower.
        stream.codec_context.thread_count = min(MOST_THREADS, len(usable_cores()))
        number, limit, last = 0, 0, None
        # If phases overlap, some of them may need the last frame even if the first one does not.
        needs_end = sys.maxsize if places.phases > 1 else least
        skipper = FrameSkipper(stream.codec_context, video.start, lambda wanted: places[wanted].deadline, needs_end)
        packets = skipper.needed(media.packets_of(container, video, stream, damage=damage))
        for frame in media.decode_packets(packets, video.path, damage):
            ticks = ticks_of(frame, video.path)
            if last is None:
                limit = last_tick(video.start + places[0].deadline, frame.time_base)
            while last is not None and ticks > limit:
                yield ChosenFrame(number, places[number], time_of(last, video.path) - video.start, Fraction(1), last)
                number += 1
                limit = last_tick(video.start + places[number].deadline, frame.time_base)
            last = frame
        if last is None:
            raise MediaError(f"{video.path} has a video track without a single picture.")
        time = time_of(last, video.path) - video.start
        end = time + media.frame_length(last, stream) if skipper.end is None else skipper.end
        try:
            media.check_complete(video, end)
        except MediaError:
            if damage is None:
                raise
            damage.cut_short = True
        for place, length in last_places(places, number, end, least):
            whole = skipper.end is not None and number < skipper.passed
            yield ChosenFrame(number, place, time, Fraction(1) if whole else length, last)
            number += 1


def last_places(places: Places, number: int, end: Fraction, least: int = 1) -> Iterator[tuple[Place, Fraction]]:
    """The places from `number` on that count in a source that ends at `end`, and how much of each second is there."""
    for following in itertools.count(number):
        place = places[following]
        is_needed = place.phase == 0 and place.second < least
        if is_needed or place.begin + Fraction(1, 2) <= end:
            yield place, max(Fraction(0), min(Fraction(1), end - place.begin))
        elif place.begin > end + 1:  # not sooner: deadlines that are rounded to frames are in another order than begins
            return


def last_tick(time: Fraction, unit: Fraction) -> int:
    """The last time stamp in `unit`, seconds, that is not after `time`: whole numbers compare faster than fractions."""
    return math.floor(time / unit)


class FrameSkipper:
    """Passes on the packets that the wanted frames need.

    A packet's decoding time is at most the presentation time of all that follow, so about a second of packets waits
    here until it is known which are wanted. Where packets lack time stamps, everything is decoded.

    Args:
        decoder: the codec context that the packets go to.
        start: the time stamp of the first frame, seconds.
        deadline: the time by which the frame of a second, or of another place, must have begun.
        least: of them, those that have a frame in any case, the last one if need be.
    """

    def __init__(self, decoder: Any, start: Fraction, deadline: Callable[[int], Fraction], least: int = 1) -> None:
        self._decoder, self._start, self._deadline, self._least = decoder, start, deadline, least
        self._intra_only = decoder.codec.intra_only
        self._active = self._intra_only or decoder.codec.name in SKIPPING_DECODERS
        self._waiting: deque[Any] = deque()
        self._wanted: set[int] = set()
        self._unit: Fraction | None = None  # of the packets' time stamps
        self._limit = 0  # the deadline of second `passed`, in it
        self.passed = 0  # seconds whose deadlines the frames, sent or not, have passed
        self.end: Fraction | None = None  # of the last frame, if it was not sent

    def needed(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The packets to decode, of all packets of the track; with an empty one at the end."""
        if not self._active:
            yield from packets
            return
        for packet in packets:
            if not packet.size:
                yield from self._finish()
            elif packet.pts is None or len(self._waiting) > MOST_WAITING:
                self._wanted.update(held.pts for held in self._waiting)
                yield from self._release(len(self._waiting))
                self._decoder.skip_frame = "DEFAULT"
            else:
                if self._unit is None:
                    self._unit = packet.time_base
                    self._set_limit()
                # Matroska's first packets may lack a decoding time; the next one that has it tells.
                while packet.dts is not None and packet.dts > self._limit:
                    yield from self._pass()
                self._waiting.append(packet)
                continue
            yield packet
            yield from packets

    def _set_limit(self) -> None:
        assert self._unit is not None
        self._limit = last_tick(self._start + self._deadline(self.passed), self._unit)

    def _pass(self) -> Iterator[Any]:
        yield from self._close(self._limit)
        self.passed += 1
        self._set_limit()

    def _release(self, count: int) -> Iterator[Any]:
        for _ in range(count):
            packet = self._waiting.popleft()
            wanted = packet.pts in self._wanted
            if not self._intra_only:
                self._decoder.skip_frame = "DEFAULT" if wanted else "NONREF"
            # A palette or new parameters are for all frames that follow.
            if wanted or not self._intra_only or any(map(packet.has_sidedata, PERSISTENT_DATA)):
                yield packet

    def _close(self, limit: int) -> Iterator[Any]:
        """No more frames by `limit` will come: the last of them is wanted."""
        early = [held.pts <= limit for held in self._waiting]
        if any(early):  # else the frame of the second before still lasts
            self._wanted.add(max(held.pts for held, is_early in zip(self._waiting, early, strict=True) if is_early))
        # Those behind one that is displayed later wait with it.
        yield from self._release([*early, False].index(False))

    def _finish(self) -> Iterator[Any]:
        last = max(self._waiting, key=lambda held: held.pts, default=None)
        if last is None:
            return
        while last.pts > self._limit:
            yield from self._pass()
        end = Fraction((last.pts + (last.duration or 0)) * last.time_base) - self._start
        if last.duration and self.passed >= self._least and self.passed + Fraction(1, 2) > end:
            # It stands for no second. A wanted one that waits behind frames displayed later still goes out.
            self.end = end
            behind = max((i for i, held in enumerate(self._waiting) if held.pts in self._wanted), default=-1)
            yield from self._release(behind + 1)
        else:
            yield from self._close(last.pts)
