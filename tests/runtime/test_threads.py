"""Threads with bounded channels between them: order, errors, shutdown."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from avsbg.runtime.errors import BackendError
from avsbg.runtime.threads import Aborted, Channel, ChannelClosedError, Prefetch, Worker

PATIENCE = 20.0  # seconds after which a thread that hangs fails the test


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_items_come_in_order_and_never_more_than_size_wait() -> None:
    with Prefetch(iter(range(500)), 3) as reader:
        assert list(reader) == list(range(500))
    assert 1 <= reader.channel.most <= 3


def test_an_iterators_error_comes_after_its_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with Prefetch(items(), 3) as reader:
        assert next(reader) == 1
        with pytest.raises(ValueError, match="broken"):
            next(reader)


def test_leaving_stops_an_endless_iterator_and_closes_it() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    with Prefetch(items(), 2) as reader:
        next(reader)
    assert closed.is_set()


def test_the_oldest_are_dropped_where_asked() -> None:
    channel: Channel[int] = Channel(3, "drop-oldest")
    for item in range(10):
        channel.put(item)
    channel.close()
    assert list(channel) == [7, 8, 9]
    assert channel.dropped == 7


def test_a_worker_works_through_everything() -> None:
    done: list[int] = []
    with Worker(done.extend, 2) as worker:
        for item in range(100):
            worker.put(item)
        worker.finish()
    assert done == list(range(100))
    assert worker.channel.most <= 2


def test_a_workers_error_reaches_who_feeds_it() -> None:
    def work(items: Iterator[int]) -> None:
        for item in items:
            if item == 3:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), Worker(work, 1) as worker:
        for item in range(1000):
            worker.put(item)
    with pytest.raises(OSError, match="No space"), Worker(work, 1) as worker:
        for item in range(4):
            worker.put(item)
        worker.finish()


def test_a_chain_of_workers_passes_the_last_ones_error_on() -> None:
    def fail(items: Iterator[int]) -> None:
        next(items)
        raise OSError("the last stage")

    with Worker(fail, 1) as last:

        def middle(items: Iterator[int]) -> None:
            for item in items:
                last.put(item)

        with pytest.raises(OSError, match="the last stage"), Worker(middle, 1) as worker:
            for item in range(1000):
                worker.put(item)


def test_a_worker_that_is_left_early_does_not_believe_that_all_came() -> None:
    seen: list[object] = []

    def work(items: Iterator[int]) -> None:
        try:
            seen.extend(items)
            seen.append("complete")
        except Aborted:
            seen.append("aborted")

    with pytest.raises(KeyError), Worker(work, 1) as worker:
        worker.put(1)
        raise KeyError
    assert seen[-1] == "aborted"


def test_dropping_the_oldest_keeps_the_newest() -> None:
    channel: Channel[int] = Channel({"frame": 2, "sound": 2}, "drop-oldest")
    for number in range(5):
        channel.put(number, "frame")
    channel.put(100, "sound")
    assert len(channel) == 3
    assert [channel.get() for _ in range(3)] == [3, 4, 100]
    counters = channel.counters["frame"]
    assert (counters.put, counters.taken, counters.dropped, counters.most) == (5, 2, 3, 2)
    assert channel.counters["sound"].dropped == 0
    assert len(channel) == 0


def test_blocking_waits_for_room_and_is_counted() -> None:
    channel: Channel[int] = Channel({"frame": 1})
    channel.put(0, "frame")
    done = threading.Event()

    def produce() -> None:
        channel.put(1, "frame")
        done.set()

    thread = threading.Thread(target=produce)
    thread.start()
    assert not done.wait(0.05)
    assert channel.get() == 0
    thread.join(PATIENCE)
    assert done.is_set()
    assert channel.get() == 1
    assert (channel.counters["frame"].blocked, channel.counters["frame"].dropped) == (1, 0)


def test_closing_wakes_everyone() -> None:
    channel: Channel[int] = Channel({"frame": 1})
    channel.put(0, "frame")
    caught: list[BaseException] = []

    def produce() -> None:
        try:
            channel.put(1, "frame")
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=produce)
    thread.start()
    channel.close(BackendError("gone"))
    thread.join(PATIENCE)
    assert [str(error) for error in caught] == ["gone"]
    assert channel.get() == 0, "what was in it can still be taken"
    with pytest.raises(BackendError, match="gone"):
        channel.get()
    channel = Channel(1)
    channel.close()
    with pytest.raises(ChannelClosedError):
        channel.get()
    assert list(channel) == []


def test_a_queue_that_cannot_be() -> None:
    with pytest.raises(BackendError, match="at least 1 frame, not 0"):
        Channel({"frame": 0})
    with pytest.raises(BackendError, match=r"unknown policy 'drop'.*block, drop-oldest"):
        Channel({"frame": 1}, "drop")  # type: ignore[arg-type]
