"""Back-pressure, and threads that end: on finish, on leaving the block, on errors of either side."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.bounded_queue import BoundedQueue, QueueClosedError
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.streaming.stream import Stream
from avsbg.runtime.streaming.threaded import LiveStream
from fixtures import stream_bundle
from fixtures.stream_bundle import frame, seen

PATIENCE = 20.0  # seconds after which a thread that hangs fails the test
SECOND = np.zeros(16000, np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path: Path = tmp_path_factory.mktemp("live") / "bundle"
    return stream_bundle.make_stream_bundle(path)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> object:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "avsbg-stream"]


def test_dropping_the_oldest_keeps_the_newest() -> None:
    queue: BoundedQueue[int] = BoundedQueue({"frame": 2, "sound": 2}, "drop-oldest")
    for number in range(5):
        queue.put(number, "frame")
    queue.put(100, "sound")
    assert len(queue) == 3
    assert [queue.get() for _ in range(3)] == [3, 4, 100]
    counters = queue.counters["frame"]
    assert (counters.put, counters.taken, counters.dropped, counters.longest) == (5, 2, 3, 2)
    assert queue.counters["sound"].dropped == 0
    with pytest.raises(TimeoutError):
        queue.get(timeout=0.01)


def test_blocking_waits_for_room_and_is_counted() -> None:
    queue: BoundedQueue[int] = BoundedQueue({"frame": 1})
    queue.put(0, "frame")
    done = threading.Event()

    def produce() -> None:
        queue.put(1, "frame")
        done.set()

    thread = threading.Thread(target=produce)
    thread.start()
    assert not done.wait(0.05)
    assert queue.get() == 0
    thread.join(PATIENCE)
    assert done.is_set()
    assert queue.get() == 1
    assert (queue.counters["frame"].blocked, queue.counters["frame"].dropped) == (1, 0)


def test_closing_wakes_everyone() -> None:
    queue: BoundedQueue[int] = BoundedQueue({"frame": 1})
    queue.put(0, "frame")
    caught: list[BaseException] = []

    def produce() -> None:
        try:
            queue.put(1, "frame")
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=produce)
    thread.start()
    queue.close(BackendError("gone"))
    thread.join(PATIENCE)
    assert [str(error) for error in caught] == ["gone"]
    assert queue.get() == 0, "what was in it can still be taken"
    with pytest.raises(BackendError, match="gone"):
        queue.get()


def test_a_queue_that_cannot_be() -> None:
    with pytest.raises(BackendError, match="at least 1 frame, not 0"):
        BoundedQueue({"frame": 0})
    with pytest.raises(BackendError, match=r"unknown policy 'drop'.*block, drop-oldest"):
        BoundedQueue({"frame": 1}, "drop")  # type: ignore[arg-type]


def _capture(live: LiveStream, frames: int) -> threading.Thread:
    def run() -> None:
        for value in range(frames):
            live.push(frame(value), SECOND)
        live.finish()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_nothing_is_lost_where_producers_wait(bundle: Bundle) -> None:
    with stream_bundle.stream(bundle) as stream, LiveStream(stream, capacity=2) as live:
        thread = _capture(live, 100)
        masks = list(live)
        thread.join(PATIENCE)
    assert seen(masks) == [(value, value + 1, "next") for value in range(99)] + [(99, 98, "previous")]
    assert live.counters["frame"].dropped == 0
    assert live.counters["frame"].longest <= 2
    assert live.counters["mask"].taken == 100


def test_a_slow_consumer_costs_old_frames_where_they_may_be_dropped(bundle: Bundle) -> None:
    with stream_bundle.stream(bundle) as stream, LiveStream(stream, capacity=2, policy="drop-oldest") as live:
        thread = _capture(live, 200)
        thread.join(PATIENCE)  # it never waits, though nobody takes a mask
        masks = list(live)
        frames = live.counters["frame"]
        assert frames.put == 200
        assert frames.dropped + stream.counters.frames == 200
        assert frames.dropped > 100
        assert len(masks) == stream.counters.masks == stream.counters.frames
        assert live.counters["sound"].dropped == 0
        assert stream.counters.sound.received == 200 * 16000
    assert seen(masks)[-1][0] == 199


def test_leaving_the_block_ends_the_thread_and_whoever_waits(bundle: Bundle) -> None:
    caught: list[BaseException] = []
    with stream_bundle.stream(bundle) as stream:
        with LiveStream(stream, capacity=1) as live:

            def capture() -> None:
                try:
                    while True:
                        live.push(frame(1), SECOND)
                except BaseException as error:
                    caught.append(error)

            thread = threading.Thread(target=capture)
            thread.start()
            next(iter(live))
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert isinstance(caught[0], QueueClosedError)
        with pytest.raises(BackendError, match="was closed"):
            stream.push(frame(1))


def test_an_error_of_the_network_reaches_both_sides(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(1000))
    original = Stream.push

    def push(self: Stream, *arguments: object) -> object:
        if next(calls) == 5:
            raise BackendError("the device is gone")
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Stream, "push", push)
    with stream_bundle.stream(bundle) as stream, LiveStream(stream, capacity=2) as live:
        caught: list[BaseException] = []

        def capture() -> None:
            try:
                while True:
                    live.push(frame(1), SECOND)
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=capture)
        thread.start()
        masks = []
        with pytest.raises(BackendError, match="the device is gone"):
            for mask in live:
                masks.append(mask)
        thread.join(PATIENCE)
        assert len(masks) == 4, "what was final before the error is delivered"
        assert [str(error) for error in caught] == ["the device is gone"]


def test_a_wrong_frame_is_an_error_of_the_consumer_too(bundle: Bundle) -> None:
    with stream_bundle.stream(bundle) as stream, LiveStream(stream) as live:
        live.push(np.zeros(3, np.uint8))
        with pytest.raises(Exception, match="a frame is uint8"):
            list(live)
