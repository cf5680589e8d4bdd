"""The clock of a file: if its time stamps start again or jump, they are joined to one clock, as players do.

Transport streams that are written one after the other and recordings of a broadcast have such places; FFmpeg marks
their formats, and joins them by the same limits. In any other format it is a damaged file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

from av.format import Flags

# A step back is one of the clock beyond this; decoding times never go back otherwise. Seconds.
STEP_BACK = Fraction(1, 10)
# A step ahead is one of the clock beyond this; less is a loss of packets, or a frame that is displayed for long.
STEP_AHEAD = Fraction(10)
# Of two tracks, steps that are one lie in the file within so many packets of each other, and begins within so many.
NEAR, AT_ONCE = 100, 10


@dataclass(frozen=True)
class Clock:
    """Seconds to add to the time stamps of each track, a value for each stretch between two of its steps."""

    offsets: Mapping[int, tuple[Fraction, ...]] = field(default_factory=dict)  # by stream
    # Beginnings of all parts but the first, on the common clock, in seconds.
    begins: Mapping[int, tuple[Fraction, ...]] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps that are joined, of the track that has the most."""
        return max((len(stretches) - 1 for stretches in self.offsets.values()), default=0)

    def join(self, packets: Iterable[Any]) -> Iterator[Any]:
        """The packets of a file from its begin on, with time stamps on the one clock."""
        counters = {index: _StepCounter() for index in self.offsets}
        for packet in packets:
            if packet.size and packet.stream_index in counters:
                counter, offsets = counters[packet.stream_index], self.offsets[packet.stream_index]
                counter.add(packet)
                ticks = round(offsets[min(counter.steps, len(offsets) - 1)] / packet.time_base)
                displayed = display_ticks(packet)
                packet.pts = None if displayed is None else displayed + ticks
                packet.dts = None if packet.dts is None else packet.dts + ticks
            yield packet


class _StepCounter:
    """Counts the steps that the clock of a track makes."""

    def __init__(self) -> None:
        self.steps = 0
        self._end: Fraction | None = None  # of the packet before, seconds

    def add(self, packet: Any) -> None:
        """Count a step that the clock makes before this packet."""
        if (time := packet_time(packet)) is not None:
            self.steps += self._end is not None and not -STEP_BACK <= time - self._end <= STEP_AHEAD
            self._end = time + Fraction((packet.duration or 0) * packet.time_base)


def packet_time(packet: Any) -> Fraction | None:
    """The decoding time of a packet, else its presentation time, seconds; None for an empty packet."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    return None if ticks is None or not packet.size else Fraction(ticks * packet.time_base)


def display_ticks(packet: Any) -> int | None:
    """The presentation time of a packet in its own unit, if it is stated.

    Far from the decoding time, as before a step of an MPEG program stream, it is another packet's: then the latter.
    """
    if packet.pts is None or packet.dts is None or abs(packet.pts - packet.dts) * packet.time_base <= STEP_AHEAD:
        return None if packet.pts is None else int(packet.pts)
    return int(packet.dts)


def has_steps(container: Any) -> bool:
    """Whether the clock of an open file's format may make steps."""
    return bool(container.format.flags & Flags.ts_discont.value)


@dataclass
class _Stretch:
    """A part of a track between two steps of its clock."""

    place: int  # of its first packet, among all of the file
    begin: Fraction  # seconds
    end: Fraction


def find_clock(container: Any, tracks: Sequence[Any]) -> Clock:
    """Read an open file to its end and find the steps of its clock.

    `tracks` are streams, the video's first: where another track begins or makes a step near one of the video's, it
    follows the video, so that sound stays with the frames; any other step of it is joined by itself.
    """
    counters = {track.index: _StepCounter() for track in tracks}
    stretches: dict[int, list[_Stretch]] = {track.index: [] for track in tracks}
    for place, packet in enumerate(container.demux(*tracks)):
        if (time := packet_time(packet)) is None:
            continue
        found, counter = stretches[packet.stream_index], counters[packet.stream_index]
        counter.add(packet)
        ticks = display_ticks(packet)
        begin = time if ticks is None else Fraction(ticks * packet.time_base)
        end = begin + Fraction((packet.duration or 0) * packet.time_base)
        if len(found) <= counter.steps:
            found.append(_Stretch(place, begin, end))
        else:
            found[-1].begin, found[-1].end = min(begin, found[-1].begin), max(end, found[-1].end)
    video = stretches[tracks[0].index]
    joined = _joined(video)
    offsets = {
        index: joined if found is video else _following(found, video, joined) for index, found in stretches.items()
    }
    # Those that are left as they are need no entry.
    offsets = {index: each for index, each in offsets.items() if any(each) or len(each) > 1}
    begins = {
        index: tuple(part.begin + offset for part, offset in zip(stretches[index], each, strict=True))[1:]
        for index, each in offsets.items()
    }
    return Clock(offsets, begins)


def _following(
    found: Sequence[_Stretch], video: Sequence[_Stretch], joined: tuple[Fraction, ...]
) -> tuple[Fraction, ...]:
    """The offsets of a track's stretches: those of the video's stretches that they belong to, else joined."""
    offsets: list[Fraction] = []
    last = -1  # of the video's stretches, that the one before belongs to
    for number, part in enumerate(found):
        later = range(last + 1, len(video))
        if number == 0:  # it may begin late, with any of them
            last = max((k for k in later if video[k].place <= part.place + AT_ONCE), default=0)
            offsets.append(joined[last] if video else Fraction(0))
            continue
        nearest = min(later, key=lambda k: abs(video[k].place - part.place), default=None)
        if nearest is not None and abs(video[nearest].place - part.place) <= NEAR:
            last = nearest
            offsets.append(joined[last])
        else:
            offsets.append(found[number - 1].end + offsets[-1] - part.begin)
    return tuple(offsets)


def _joined(stretches: Sequence[_Stretch]) -> tuple[Fraction, ...]:
    offsets = [Fraction(0)]
    for before, after in pairwise(stretches):
        offsets.append(before.end + offsets[-1] - after.begin)
    return tuple(offsets)
