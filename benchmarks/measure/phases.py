"""Calls taken apart by a device's events, where a backend records them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from avsbg.benchmarks.results.rows import Phase, PhaseRow


@runtime_checkable
class TimedOnDevice(Protocol):
    """A backend that records events around the parts of a call (TensorRT).

    `enqueue` is the time that the host needs to launch the work, `h2d`, `compute` and `d2h` are the device's own.
    """

    def last_timings(self) -> Mapping[Phase, float]:
        """Seconds of each part of the last `run`, once it has finished."""


class PhaseSamples:
    """The timings of one contender's calls, collected outside of the timed parts."""

    def __init__(self, backend: object) -> None:
        self._backend = backend if isinstance(backend, TimedOnDevice) else None
        self._samples: dict[Phase, list[float]] = {}

    def collect(self) -> None:
        """Take over the timings of the last call."""
        if self._backend is not None:
            for phase, seconds in self._backend.last_timings().items():
                self._samples.setdefault(phase, []).append(seconds)

    def rows(self) -> dict[Phase, PhaseRow] | None:
        """Summaries by phase; None where the backend records nothing."""
        if not self._samples:
            return None
        return {
            phase: PhaseRow(
                samples=tuple(samples), p50=float(np.percentile(samples, 50)), p99=float(np.percentile(samples, 99))
            )
            for phase, samples in self._samples.items()
        }


def phase_notes(phases: Mapping[Phase, PhaseRow] | None) -> tuple[str, ...]:
    """What a reader should know: where launching outweighs computing, the host is measured and not the device."""
    if phases and {"enqueue", "compute"} <= set(phases) and phases["enqueue"].p50 > phases["compute"].p50:
        return (
            f"enqueueing ({1e3 * phases['enqueue'].p50:.2f} ms) outweighs computing "
            f"({1e3 * phases['compute'].p50:.2f} ms): a CUDA graph would help",
        )
    return ()
