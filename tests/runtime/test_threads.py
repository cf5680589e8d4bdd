"""Threads with bounded channels between them: order, errors, shutdown."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from avsbg.runtime.threads import Aborted, Channel, Prefetch, Worker


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
    channel: Channel[int] = Channel(3, drop_oldest=True)
    for item in range(10):
        channel.put(item)
    channel.end()
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
