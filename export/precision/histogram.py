"""A histogram of magnitudes that grows with what it sees, in bounded memory, and the range that follows from it.

ONNX Runtime's calibrators keep the bin width of the first values that they see and add bins without bound, so a silent
first clip can exhaust the memory; they are not a public interface either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 2048
# Candidate ranges that the smallest error is looked for among.
_CANDIDATES = 256


class MagnitudeHistogram:
    """Counts of |x| in `BINS` equal bins; when a larger value comes, bins are merged in pairs until it fits."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.largest = 0.0

    def add(self, array: NDArray[np.float32]) -> None:
        """Count an array's magnitudes.

        Raises:
            ValueError: a value is not finite.
        """
        magnitudes = np.abs(array.reshape(-1).astype(np.float32, copy=False))
        largest = float(magnitudes.max(initial=0.0))
        if not np.isfinite(largest):
            raise ValueError("a value is not finite")
        self.largest = max(self.largest, largest)
        if self.limit == 0.0:
            # Zeros alone have no scale: they wait in the first bin.
            self.limit = largest
        while self.limit and largest > self.limit:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        if self.limit == 0.0:
            self.counts[0] += magnitudes.size
            return
        bins = (magnitudes * np.float32(BINS / self.limit)).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def range(self, method: str, levels: float) -> float:
        """The largest magnitude that a quantiser should tell apart.

        Args:
            method: `max`, or `mse`: the range whose rounding and clipping together have the least mean square error.
            levels: how many steps the quantiser has on each side of zero.

        Returns:
            A positive number; 1 if there were only zeros.
        """
        if self.largest == 0.0:
            return 1.0
        if method == "max":
            return self.largest
        centres = (np.arange(BINS) + 0.5) * (self.limit / BINS)
        candidates = self.largest * np.arange(1, _CANDIDATES + 1) / _CANDIDATES
        clipped = np.maximum(centres[None] - candidates[:, None], 0.0) ** 2
        rounding = (candidates[:, None] / levels) ** 2 / 12 * (centres[None] <= candidates[:, None])
        return float(candidates[int(((clipped + rounding) @ self.counts).argmin())])
