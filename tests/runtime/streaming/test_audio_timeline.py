"""Sound on a clock: any chunking gives the same windows; gaps, late chunks and drift do what is documented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from avsbg.runtime.errors import MediaError
from avsbg.runtime.streaming import audio_timeline as sound_timeline
from avsbg.runtime.streaming.audio_timeline import AudioTimeline

RATE = 1000


def ramp(start: int, count: int) -> np.ndarray:
    """Samples that are their own index."""
    return np.arange(start, start + count, dtype=np.float32)


@given(
    chunks=st.lists(st.integers(0, 300), min_size=1, max_size=30),
    stamped=st.booleans(),
    first=st.integers(-200, 3000),
    count=st.integers(0, 500),
)
@example(chunks=[0], stamped=False, first=-1, count=1)
def test_a_window_does_not_depend_on_the_chunks(chunks: list[int], stamped: bool, first: int, count: int) -> None:
    timeline = AudioTimeline(RATE)
    total = 0
    for size in chunks:
        timeline.push(ramp(total, size), total / RATE if stamped else None)
        total += size
    window = timeline.window(first / RATE, count)
    # Before anything was heard, nobody knows what lies before it.
    unknown = count > 0 if total == 0 else first + count > total and count > max(0, -first)
    if unknown:
        assert window is None
        window = timeline.window(first / RATE, count, complete=False)
    assert window is not None
    indices = np.arange(first, first + count)
    there = (indices >= 0) & (indices < total)
    np.testing.assert_array_equal(window, np.where(there, indices, 0))
    assert timeline.counters.missing == np.count_nonzero(~there)
    assert timeline.counters.received == total


def test_a_gap_is_silence_and_a_jitter_is_not() -> None:
    timeline = AudioTimeline(RATE)
    timeline.push(ramp(1, 100), 0.0)
    timeline.push(ramp(101, 100), 0.105)  # 5 ms late: follows
    timeline.push(ramp(201, 100), 0.705)  # half a second is gone
    window = timeline.window(0.05, 700)
    assert window is not None
    np.testing.assert_array_equal(window[:150], ramp(51, 150))
    np.testing.assert_array_equal(window[150:650], np.zeros(500))
    np.testing.assert_array_equal(window[650:], ramp(201, 50))
    assert timeline.counters.missing == 500


def test_sound_for_a_time_that_is_covered_is_dropped() -> None:
    timeline = AudioTimeline(RATE)
    timeline.push(ramp(0, 1000), 0.0)
    timeline.push(ramp(500, 1000), 0.5)
    timeline.push(ramp(0, 200), 0.0)
    assert timeline.end == pytest.approx(1.5)
    assert timeline.counters.late == 500 + 200
    window = timeline.window(0.0, 1500)
    assert window is not None
    np.testing.assert_array_equal(window, ramp(0, 1500))


def test_what_nobody_asks_for_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_timeline, "HELD_SECONDS", 5.0)
    timeline = AudioTimeline(RATE)
    for second in range(100):
        timeline.push(ramp(second * 1000, 1000))
    assert timeline.counters.overdue == 95_000
    window = timeline.window(99.0, 1000)
    assert window is not None
    np.testing.assert_array_equal(window, ramp(99_000, 1000))
    timeline.push(ramp(0, 10), 1e6)  # a gap of days takes no memory
    assert timeline._held <= 6 * RATE


def test_what_has_passed_can_be_forgotten_and_the_clock_set_anew() -> None:
    timeline = AudioTimeline(RATE)
    for second in range(10):
        timeline.push(ramp(second * 1000, 1000))
    timeline.forget(8.5)
    assert timeline._held == 2000
    window = timeline.window(8.5, 1000)
    assert window is not None
    np.testing.assert_array_equal(window, ramp(8500, 1000))
    timeline.clear()
    assert timeline.window(0.0, 1) is None
    timeline.push(ramp(7, 10), 3.0)
    window = timeline.window(3.0, 10)
    assert window is not None
    np.testing.assert_array_equal(window, ramp(7, 10))


@pytest.mark.parametrize(
    ("samples", "timestamp", "message"),
    [
        (np.zeros(3), None, "float64"),
        (np.zeros((1, 3), np.float32), None, r"\[1, 3\]"),
        (np.array([np.inf], np.float32), None, "NaN or infinity"),
        (np.zeros(3, np.float32), float("nan"), "number of seconds, not nan"),
    ],
)
def test_what_is_no_sound_is_refused(samples: np.ndarray, timestamp: float | None, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        AudioTimeline(RATE).push(samples, timestamp)
