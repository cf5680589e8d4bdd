"""The rate of masks of a live source, lowered while the machine cannot follow: whole phases are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

from avsbg.runtime.media.samples import Sample

# Seconds of the source without a wait, after which a higher rate is tried; each try that fails doubles them.
PATIENCE, MOST_PATIENCE = 4, 64


class RateControl:
    """Passes on the samples of as many phases as the network has time for.

    Of k phases, those whose number is a multiple of a divisor of k stay: masks remain evenly spaced, and each is exact.
    Each divisor divides the next, so that a lower rate only ever ends phases, and begins none.
    A lower rate follows at once where samples wait, a higher one after a while in which none did.

    Args:
        phases: k.
        waiting: returns how many samples wait for the network.
        most: as many may wait.
    """

    def __init__(self, phases: int, waiting: Callable[[], int], most: int) -> None:
        self._steps = [1]
        for step in range(2, phases + 1):
            if phases % step == 0 == step % self._steps[-1]:
                self._steps.append(step)
        self._phases, self._waiting, self._most = phases, waiting, most
        self._level = 0  # of the steps
        self._calm_since, self._patience = Fraction(0), PATIENCE
        self.left_out = 0  # samples
        self.lowest = phases  # masks a second

    @property
    def rate(self) -> int:
        """Masks a second at present."""
        return self._phases // self._steps[self._level]

    @property
    def counters(self) -> dict[str, int]:
        """The masks that were left out and the lowest rate, as `summary.json` names them."""
        return {"masks_left_out": self.left_out, "lowest_rate": self.lowest}

    def passed(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The samples, without those of the phases that are left out."""
        for sample in samples:
            now = Fraction(0) if sample.place is None else sample.place.begin
            waiting = self._waiting()
            if waiting >= self._most and self._level + 1 < len(self._steps):
                self._level += 1
                self._patience = min(MOST_PATIENCE, 2 * self._patience)
                self.lowest = min(self.lowest, self.rate)
                self._calm_since = now
            elif waiting > 1:
                self._calm_since = now
            elif self._level and now - self._calm_since >= self._patience:
                self._level -= 1
                self._calm_since = now
            if sample.phase % self._steps[self._level]:
                self.left_out += 1
            else:
                yield sample
