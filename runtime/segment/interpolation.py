"""Masks between those of the network: the probability of each pixel, linear in time between the two neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from avsbg.runtime.media.places import Places
from avsbg.runtime.segment.segmenter import Array, Segmented, frame_mask


class InterpolatedMasks:
    """Gives the mask at any time, of what the network says at some, which is waited for.

    At the time of the network's own masks it is theirs. Before the first and after the last it is that one.

    Args:
        results: what the network says, in order: one at least, each of one binary mask.
        places: those that the results are of.
        threshold: a pixel sounds where its probability exceeds this.
        size: of the masks, width and height.
        progress: called with the number of seconds done.
    """

    def __init__(
        self,
        results: Iterator[Segmented],
        places: Places,
        threshold: float,
        size: tuple[int, int],
        progress: Callable[[int], None],
    ) -> None:
        self._results, self._threshold, self._size, self._progress = _timed(results, places), threshold, size, progress
        self._last: tuple[Fraction, Segmented] | None = None
        self._next: tuple[Fraction, Segmented] | None = None
        self._phases = places.phases
        self.number = -1  # of the last result that has been reached
        self.made = 0  # masks between two of the network's

    def at(self, time: Fraction, _: int) -> Array:
        """The mask at a time, seconds from the first frame, bool `[h, w]`; no earlier one is asked for afterwards."""
        if self._last is None:
            self._next = next(self._results)
        while self._next is not None and (self._last is None or self._next[0] <= time):
            self._last, self._next = self._next, next(self._results, None)
            self.number = self._last[1].sample.number
            self._progress(self.number // self._phases)
        assert self._last is not None
        begin, result = self._last
        if self._next is not None and time > begin:
            end, following = self._next
            share = np.float32((time - begin) / (end - begin))
            probability = result.probability + share * (following.probability - result.probability)
            result = result._replace(probability=probability)
            self.made += 1
        return frame_mask(result, self._threshold, self._size).mask


def _timed(results: Iterator[Segmented], places: Places) -> Iterator[tuple[Fraction, Segmented]]:
    """Results with their times, which increase: when the frame begins, or, of further places of it, their deadline."""
    last: Fraction | None = None
    for result in results:
        sample = result.sample
        last = sample.time if last is None or sample.time > last else max(last, places[sample.number].deadline)
        yield last, result
