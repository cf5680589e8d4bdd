"""Energy per inference: each contender runs by itself for some seconds while a meter adds up.

Energy is metered apart from the samples, since meters answer more slowly than a call takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from avsbg.benchmarks.machine.sensors import EnergyMeter
from avsbg.benchmarks.results.rows import EnergyRow


def measure_energy(
    call: Callable[[], object],
    meter: EnergyMeter,
    *,
    clips: int,
    seconds: float = 3.0,
    clock: Callable[[], float] = time.monotonic,
    rest: Callable[[float], object] = time.sleep,
) -> EnergyRow:
    """Meter a machine at rest, then one that calls without pause.

    Args:
        call: what to run; it has been warmed up.
        meter: of the machine.
        clips: per call.
        seconds: for each of the two, at the least.
    """
    meter.start()
    began = clock()
    rest(seconds)
    idle_seconds = clock() - began
    idle = meter.stop()
    calls = 0
    meter.start()
    began = clock()
    while calls == 0 or clock() - began < seconds:
        call()
        calls += 1
    spent = clock() - began
    joules = meter.stop()
    return EnergyRow(
        source=meter.source,
        joules_per_clip={rail: value / (calls * clips) for rail, value in joules.items()},
        idle_watts={rail: value / idle_seconds for rail, value in idle.items()},
        seconds=spent,
        calls=calls,
    )
