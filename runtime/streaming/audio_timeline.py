"""Sound as it arrives, placed on a clock by its timestamps, so that any window of time can be asked for."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.errors import MediaError

Array = NDArray[Any]

# A chunk whose timestamp is this close to the end of the one before follows it without a gap: capture devices stamp
# their buffers with a jitter of this order.
JITTER = 0.1
# Seconds of sound that are kept for frames that have not come yet.
HELD_SECONDS = 60.0


@dataclass
class AudioCounters:
    """Counts of a timeline's samples."""

    received: int = 0  # by `push`
    late: int = 0  # of those, dropped because their time was covered already
    overdue: int = 0  # of those, dropped because more than `HELD_SECONDS` waited for a frame
    missing: int = 0  # of silence that stands where no sound was, counted as often as a window held them


@dataclass
class _Chunk:
    time: float
    samples: Array
    is_gap: bool = False


class AudioTimeline:
    """Mono sound of one sample rate, in chunks of any size.

    A window begins at the sample whose time its start is, by the timestamp of the chunk that holds it, and goes on
    sample by sample. So a device whose clock drifts against the frames' shifts no window by more than a chunk's worth
    of drift, and nothing is resampled. Only a gap of more than `JITTER` becomes silence.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.counters = AudioCounters()
        self._chunks: deque[_Chunk] = deque()
        self._end: float | None = None
        self._held = 0

    @property
    def end(self) -> float:
        """The time at which the next chunk is expected; 0 before the first."""
        return self._end or 0.0

    def push(self, samples: Array, timestamp: float | None = None) -> None:
        """Append sound; arguments and errors as of `Stream.push_sound`."""
        samples = np.asarray(samples)
        if samples.dtype != np.float32 or samples.ndim != 1:
            raise MediaError(f"sound is float32 [samples], mono, not {samples.dtype} {list(samples.shape)}.")
        if timestamp is not None and not math.isfinite(timestamp):
            raise MediaError(f"a timestamp is a number of seconds, not {timestamp}.")
        if not np.isfinite(samples).all():
            raise MediaError("sound holds NaN or infinity.", "Check the device or the decoder that it comes from.")
        self.counters.received += len(samples)
        time = self.end if timestamp is None else timestamp
        if self._end is not None:
            behind = time - self._end
            if behind > JITTER:
                # A gap longer than what is held would be dropped again.
                silence = np.zeros(round(min(behind, HELD_SECONDS) * self.rate), np.float32)
                self._append(_Chunk(self._end + behind - len(silence) / self.rate, silence, is_gap=True))
            elif behind < -JITTER:
                dropped = min(len(samples), round(-behind * self.rate))
                self.counters.late += dropped
                samples, time = samples[dropped:], self._end
        if len(samples):
            self._append(_Chunk(time, np.array(samples)))

    def window(self, start: float, count: int, *, complete: bool = True) -> Array | None:
        """Samples from the time `start` on, float32 `[count]`; silence before the first sample held.

        For samples that have not arrived: None if it is to be `complete`, else silence too.
        """
        first = next((index for index in reversed(range(len(self._chunks))) if self._chunks[index].time <= start), 0)
        skip = round((start - self._chunks[first].time) * self.rate) if self._chunks else 0
        missing = have = min(count, max(0, -skip))
        parts, skip = [np.zeros(have, np.float32)], max(0, skip)
        for chunk in list(self._chunks)[first:]:
            if have == count:
                break
            part = chunk.samples[skip : skip + count - have]
            skip = max(0, skip - len(chunk.samples))
            have += len(part)
            missing += len(part) if chunk.is_gap else 0
            parts.append(part)
        if have < count:
            if complete:
                return None
            missing += count - have
            parts.append(np.zeros(count - have, np.float32))
        self.counters.missing += missing
        return np.concatenate(parts)

    def forget(self, before: float) -> None:
        """Drop what ended before a time."""
        while self._chunks and self._chunks[0].time + len(self._chunks[0].samples) / self.rate <= before:
            self._held -= len(self._chunks.popleft().samples)

    def clear(self) -> None:
        """Begin anew, on another clock; the counters go on."""
        self._chunks.clear()
        self._end, self._held = None, 0

    def _append(self, chunk: _Chunk) -> None:
        self._chunks.append(chunk)
        self._held += len(chunk.samples)
        self._end = chunk.time + len(chunk.samples) / self.rate
        while len(self._chunks) > 1 and self._held - len(self._chunks[0].samples) >= HELD_SECONDS * self.rate:
            oldest = self._chunks.popleft()
            self._held -= len(oldest.samples)
            self.counters.overdue += 0 if oldest.is_gap else len(oldest.samples)
