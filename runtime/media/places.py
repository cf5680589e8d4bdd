"""The places in a source that get a mask: k a second are those of k clips, shifted against each other by 1/k s.

The networks were trained on frames a second apart, each with the second of sound around it. So masks at a higher rate
are those of several streams, the phases: phase p is the source from p/k s on, and has the masks of clip mode on that.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Final, Literal, TypeAlias

from avsbg.runtime.errors import MediaError

EVERY_FRAME: Final = "every-frame"
MaskRate: TypeAlias = int | Literal["every-frame"]
# Beyond this, phases hold more memory than any use of them pays for.
HIGHEST_RATE = 240
# Places behind the newest one that can still be asked for: more than a decoder and the packets before it hold.
HELD = 2**15


@dataclass(frozen=True)
class Place:
    """A second of a phase."""

    phase: int
    second: int  # of the phase
    begin: Fraction  # of its sound, seconds from the first frame of the source
    deadline: Fraction  # its frame is the last one that has begun by then


def masks_a_second(rate: int | str, frame_rate: Fraction | None) -> Fraction:
    """The rate of masks that is meant in a source of so many frames a second, on average where they vary.

    Raises:
        MediaError: the rate is no whole number from 1 on, too high, or every frame is asked for and their rate is not
            known.
    """
    if rate == EVERY_FRAME:
        if not frame_rate:
            hint = "Give a number of masks a second, e.g. --rate 10."
            raise MediaError("the source does not say how many frames a second it has.", hint)
        return min(Fraction(HIGHEST_RATE), max(Fraction(1), frame_rate))
    if not isinstance(rate, int) or not 1 <= rate <= HIGHEST_RATE:
        hint = f"It is a whole number of masks a second from 1 to {HIGHEST_RATE}, or {EVERY_FRAME}."
        raise MediaError(f"{rate!r} is no rate of masks.", hint)
    return Fraction(rate)


class Places:
    """All places of a source in the order of their deadlines, without an end: `places[number]`.

    Numbers are asked for in about increasing order; one that lies far behind is an `IndexError`.

    Args:
        rate: masks a second.
        clip_seconds: seconds of a clip, T.
        offset: where a frame lies in its second, 15/16 in the published preparation.
        frame_rate: frames a second where that is constant.
    """

    def __init__(self, rate: Fraction, clip_seconds: int, offset: float, frame_rate: Fraction | None) -> None:
        self.rate = rate
        self.phases = math.ceil(rate)
        self._clip_seconds, self._offset, self._frame_rate = clip_seconds, offset, frame_rate
        phases = (self._phase(phase) for phase in range(self.phases))
        self._coming = heapq.merge(*phases, key=lambda place: (place.deadline, place.phase))
        self._held: deque[Place] = deque(maxlen=HELD)
        self._made = 0

    def __getitem__(self, number: int) -> Place:
        while self._made <= number:
            self._held.append(next(self._coming))
            self._made += 1
        if number < self._made - len(self._held):
            raise IndexError(number)
        return self._held[number - self._made]

    def _phase(self, phase: int) -> Iterator[Place]:
        shift = phase / self.rate
        for second in count():
            deadline = frame_deadline(second, self._clip_seconds, self._frame_rate, self._offset)
            yield Place(phase, second, shift + second, shift + deadline)


def frame_deadline(second: int, clip_seconds: int, rate: Fraction | None, offset: float) -> Fraction:
    """The time by which a frame must have begun to be the one that stands for `second`.

    The published preparation cuts a video into clips, rounds the frame rate to an integer f and keeps, for second l
    of a clip, the frame of index int(l * f + 15/16 * f). Here clips follow each other every `clip_seconds`, so that
    sound and frames stay together at rates such as 29.97. At a variable rate, None, it is the frame at l + 15/16.
    """
    if rate is None or round(rate) == 0:
        return second + Fraction(offset)
    clip = second - second % clip_seconds
    index = int((second - clip + Fraction(offset)) * round(rate))
    # Half a frame of slack: a stored time may be rounded either way.
    return clip + (index + Fraction(1, 2)) / rate
