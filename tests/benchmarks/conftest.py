from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from avsbg.benchmarks.machine.environment import OtherLoad
from avsbg.benchmarks.measure import sampling
from avsbg.benchmarks.measure.sampling import interleave
from avsbg.progress import Progress
from avsbg.runtime import backends
from fixtures.fake_backends import FakeClock, ScheduledBackend
from fixtures.tensorrt_machine import behaviour, device, machine
from fixtures.videos import steady, tone, write_video

__all__ = ["behaviour", "device", "machine"]


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven seconds with sound: two windows of the tiny bundle."""
    return write_video(
        tmp_path_factory.mktemp("video") / "seven.mkv", times=steady(5, 35), rate=5, sound=tone(seconds=7)
    )


@pytest.fixture
def progress() -> Progress:
    return lambda *_: None


@pytest.fixture
def scheduled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], None]:
    """Register the backend `scheduled` on an otherwise idle machine; call it with seconds by number of call."""
    # For this test alone: others look at all names that there are.
    monkeypatch.setitem(backends._BACKENDS, "scheduled", "fixtures.fake_backends:ScheduledBackend")
    monkeypatch.setattr(sampling, "interleave", functools.partial(interleave, clock=FakeClock()))
    monkeypatch.setattr(sampling, "PAUSE", 0.0)
    monkeypatch.setattr(OtherLoad, "share", lambda _: 0.0)
    return lambda schedule: monkeypatch.setattr(ScheduledBackend, "schedule", staticmethod(schedule))
