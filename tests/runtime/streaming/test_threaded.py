"""Back-pressure, and threads that end: on finish, on leaving the block, on errors of either side."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.streaming.stream import Stream
from avsbg.runtime.streaming.threaded import ThreadedStream
from avsbg.runtime.threads import ChannelClosedError
from fixtures import stream_bundle
from fixtures.stream_bundle import frame, seen

PATIENCE = 20.0  # seconds after which a thread that hangs fails the test
SECOND = np.zeros(16000, np.float32)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> object:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "avsbg-stream"]


def _capture(threaded: ThreadedStream, frames: int) -> threading.Thread:
    def run() -> None:
        for value in range(frames):
            threaded.push(frame(value), SECOND)
        threaded.finish()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_nothing_is_lost_where_producers_wait(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream) as stream, ThreadedStream(stream, capacity=2) as threaded:
        thread = _capture(threaded, 100)
        masks = list(threaded)
        thread.join(PATIENCE)
    assert seen(masks) == [(value, value + 1, "next") for value in range(99)] + [(99, 98, "previous")]
    assert threaded.counters["frame"].dropped == 0
    assert threaded.counters["frame"].most <= 2
    assert threaded.counters["mask"].taken == 100


def test_a_slow_consumer_costs_old_frames_where_they_may_be_dropped(tiny_stream: Bundle) -> None:
    with (
        stream_bundle.stream(tiny_stream) as stream,
        ThreadedStream(stream, capacity=2, policy="drop-oldest") as threaded,
    ):
        thread = _capture(threaded, 200)
        thread.join(PATIENCE)  # it never waits, though nobody takes a mask
        masks = list(threaded)
        frames = threaded.counters["frame"]
        assert frames.put == 200
        assert frames.dropped + stream.counters.frames == 200
        assert frames.dropped > 100
        assert len(masks) == stream.counters.masks == stream.counters.frames
        assert threaded.counters["sound"].dropped == 0
        assert stream.counters.sound.received == 200 * 16000
    assert seen(masks)[-1][0] == 199


def test_leaving_the_block_ends_the_thread_and_whoever_waits(tiny_stream: Bundle) -> None:
    caught: list[BaseException] = []
    with stream_bundle.stream(tiny_stream) as stream:
        with ThreadedStream(stream, capacity=1) as threaded:

            def capture() -> None:
                try:
                    while True:
                        threaded.push(frame(1), SECOND)
                except BaseException as error:
                    caught.append(error)

            thread = threading.Thread(target=capture)
            thread.start()
            next(iter(threaded))
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert isinstance(caught[0], ChannelClosedError)
        with pytest.raises(BackendError, match="was closed"):
            stream.push(frame(1))


def test_an_error_of_the_network_reaches_both_sides(tiny_stream: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(1000))
    original = Stream.push

    def push(self: Stream, *arguments: object) -> object:
        if next(calls) == 5:
            raise BackendError("the device is gone")
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Stream, "push", push)
    with stream_bundle.stream(tiny_stream) as stream, ThreadedStream(stream, capacity=2) as threaded:
        caught: list[BaseException] = []

        def capture() -> None:
            try:
                while True:
                    threaded.push(frame(1), SECOND)
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=capture)
        thread.start()
        masks = []
        with pytest.raises(BackendError, match="the device is gone"):
            for mask in threaded:
                masks.append(mask)
        thread.join(PATIENCE)
        assert len(masks) == 4, "what was final before the error is delivered"
        assert [str(error) for error in caught] == ["the device is gone"]


def test_a_wrong_frame_is_an_error_of_the_consumer_too(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream) as stream, ThreadedStream(stream) as threaded:
        threaded.push(np.zeros(3, np.uint8))
        with pytest.raises(Exception, match="a frame is uint8"):
            list(threaded)
