"""The clock of a file: where its time stamps start anew or jump, they are joined to one clock, as players do it.

Transport streams that are written one after the other, recordings of a broadcast and chained Ogg files have such
places; FFmpeg marks their formats, and joins them by the same limits. In any other format it is a damaged file.
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


@dataclass(frozen=True)
class Clock:
    """Seconds to add to the time stamps of each track, a value for each stretch between two of its steps."""

    offsets: Mapping[int, tuple[Fraction, ...]] = field(default_factory=dict)  # by stream
    # When those after the first begin, on the one clock, seconds.
    begins: Mapping[int, tuple[Fraction, ...]] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps of the video's clock, which are joined."""
        return max((len(stretches) - 1 for stretches in self.offsets.values()), default=0)

    def join(self, packets: Iterable[Any]) -> Iterator[Any]:
        """The packets of a file from its begin on, with time stamps on the one clock."""
        counters = {index: _StepCounter() for index in self.offsets}
        for packet in packets:
            if packet.size and packet.stream_index in counters:
                counter, offsets = counters[packet.stream_index], self.offsets[packet.stream_index]
                counter.add(packet)
                ticks = round(offsets[min(counter.steps, len(offsets) - 1)] / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts + ticks
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
    """When a packet is decoded or, where that is not stated, displayed, seconds; None for an empty one."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    return None if ticks is None or not packet.size else Fraction(ticks * packet.time_base)


def has_steps(container: Any) -> bool:
    """Whether the clock of an open file's format may make steps."""
    return bool(container.format.flags & Flags.ts_discont.value)


def find_clock(container: Any, tracks: Sequence[Any]) -> Clock:
    """Read an open file to its end and find the steps of its clock.

    `tracks` are streams, the video's first: where others make as many steps as it does, they follow it, so that sound
    stays with the frames; else a track is joined by itself.
    """
    counters = {track.index: _StepCounter() for track in tracks}
    # Begin and end of each stretch, seconds.
    stretches: dict[int, list[tuple[Fraction, Fraction]]] = {track.index: [] for track in tracks}
    for packet in container.demux(*tracks):
        if (time := packet_time(packet)) is None:
            continue
        found, counter = stretches[packet.stream_index], counters[packet.stream_index]
        counter.add(packet)
        begin = time if packet.pts is None else Fraction(packet.pts * packet.time_base)
        end = begin + Fraction((packet.duration or 0) * packet.time_base)
        if len(found) <= counter.steps:
            found.append((begin, end))
        else:
            found[-1] = min(begin, found[-1][0]), max(end, found[-1][1])
    video = _joined(stretches[tracks[0].index])
    several = {index: found for index, found in stretches.items() if len(found) > 1}
    offsets = {index: video if len(found) == len(video) else _joined(found) for index, found in several.items()}
    begins = {
        index: tuple(begin + offset for (begin, _), offset in zip(found, offsets[index], strict=True))[1:]
        for index, found in several.items()
    }
    return Clock(offsets, begins)


def _joined(stretches: Sequence[tuple[Fraction, Fraction]]) -> tuple[Fraction, ...]:
    offsets = [Fraction(0)]
    for (_, end), (begin, _) in pairwise(stretches):
        offsets.append(end + offsets[-1] - begin)
    return tuple(offsets)
