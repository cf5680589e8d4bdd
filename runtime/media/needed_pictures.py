"""Which of a video's pictures must be decoded to see the one that stands for each second; the others are not.

What is chosen stays the same to the bit, but for what a decoder makes up where a file is damaged. Wanted are the last
picture by each deadline, and the last of all if it stands for a second. Two kinds of decoders can do with less than
everything:

* Those of H.264, H.265 and MPEG-1, 2 and 4 leave out the pictures that no other one refers to, on request and packet by
  packet; what follows the last wanted picture is not sent to them at all.
* Where every picture stands for itself (MJPEG, ProRes, raw video), only the wanted ones are sent.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

# Decoders that heed a change of `skip_frame` between packets, and that know which pictures no other one refers to.
SKIPPING_DECODERS = {"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video"}
# Packets of a second and a bit, at any frame rate that a camera has.
MOST_WAITING = 1000


def last_tick(time: Fraction, unit: Fraction) -> int:
    """The last time stamp in `unit`, seconds, that is not after `time`: whole numbers compare faster than fractions."""
    return math.floor(time / unit)


class FrameSkipper:
    """Passes on the packets that the wanted pictures need.

    A packet's decoding time is at most the presentation time of all that follow, so about a second of packets waits
    here until it is known which are wanted. Where packets lack time stamps, everything is decoded.

    Args:
        decoder: the codec context that the packets go to.
        start: the time stamp of the first picture, seconds.
        deadline: the time by which a second's picture must have begun.

    Attributes:
        passed: how many seconds' deadlines the pictures, sent or not, have passed.
        end: where the last picture ends, if it was not sent; else None.
    """

    def __init__(self, decoder: Any, start: Fraction, deadline: Callable[[int], Fraction]) -> None:
        self._decoder, self._start, self._deadline = decoder, start, deadline
        self._alone = decoder.codec.intra_only
        self._active = self._alone or decoder.codec.name in SKIPPING_DECODERS
        self._waiting: deque[Any] = deque()
        self._wanted: set[int] = set()
        self._unit: Fraction | None = None  # of the packets' time stamps
        self._limit = 0  # the deadline of second `passed`, in it
        self.passed = 0
        self.end: Fraction | None = None

    def of(self, packets: Iterator[Any]) -> Iterator[Any]:
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
                    self._limit = self._limit_of(0)
                # Matroska's first packets may lack a decoding time; the next one that has it tells.
                while packet.dts is not None and packet.dts > self._limit:
                    yield from self._pass()
                self._waiting.append(packet)
                continue
            yield packet
            yield from packets

    def _limit_of(self, second: int) -> int:
        assert self._unit is not None
        return last_tick(self._start + self._deadline(second), self._unit)

    def _pass(self) -> Iterator[Any]:
        yield from self._close(self._limit)
        self.passed += 1
        self._limit = self._limit_of(self.passed)

    def _release(self, count: int) -> Iterator[Any]:
        for _ in range(count):
            packet = self._waiting.popleft()
            wanted = packet.pts in self._wanted
            if self._alone and not wanted:
                continue
            if not self._alone:
                self._decoder.skip_frame = "DEFAULT" if wanted else "NONREF"
            yield packet

    def _close(self, limit: int) -> Iterator[Any]:
        """No more pictures by `limit` will come: the last of them is wanted."""
        early = [held.pts <= limit for held in self._waiting]
        if any(early):  # else the picture of the second before is still shown
            self._wanted.add(max(held.pts for held, is_early in zip(self._waiting, early, strict=True) if is_early))
        # Those behind one that is shown later wait with it.
        yield from self._release([*early, False].index(False))

    def _finish(self) -> Iterator[Any]:
        last = max(self._waiting, key=lambda held: held.pts, default=None)
        if last is None:
            return
        while last.pts > self._limit:
            yield from self._pass()
        end = Fraction((last.pts + (last.duration or 0)) * last.time_base) - self._start
        if last.duration and self.passed > 0 and self.passed + Fraction(1, 2) > end:
            # It stands for no second. A wanted one that waits behind pictures shown later still goes out.
            self.end = end
            behind = max((i for i, held in enumerate(self._waiting) if held.pts in self._wanted), default=-1)
            yield from self._release(behind + 1)
        else:
            yield from self._close(last.pts)
