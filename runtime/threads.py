"""Threads that work at the same time, with bounded channels between them: one error, one shutdown.

Decoders, encoders and ONNX Runtime release Python's lock, so threads are enough.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, get_args

from avsbg.runtime.errors import BackendError

if TYPE_CHECKING:
    from typing_extensions import Self

Item = TypeVar("Item")
Policy = Literal["block", "drop-oldest"]

# The kind of items in a channel that tells none apart.
ITEM = "item"
# A thread that hangs in a device's driver cannot be stopped; after this many seconds it is left behind.
PATIENCE = 10.0


def usable_cores() -> set[int]:
    """The logical cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


class ChannelClosedError(Exception):
    """The channel was closed: it takes nothing more, or has nothing more to give."""


class Aborted(ChannelClosedError):  # noqa: N818  (no error of its own: another thread has one)
    """The other end of a channel has given up."""


@dataclass
class ChannelCounters:
    """The items of one kind that went through a channel."""

    put: int = 0  # in
    taken: int = 0  # out
    dropped: int = 0  # to make room
    blocked: int = 0  # how often a producer had to wait for room
    most: int = 0  # that waited at once


class Channel(Generic[Item]):
    """A bounded queue for any number of producers and consumers, which closes cleanly.

    Iterating over it takes items until it is closed and empty.

    Args:
        capacity: how many items it holds (None: any number), or how many of each kind. Each kind has its own room, so
            that what is dropped for a frame is a frame, and not sound.
        policy: when there is no room: `block` makes the producer wait; `drop-oldest` drops the oldest of that kind.

    Raises:
        BackendError: no such policy, or a capacity below 1.
    """

    def __init__(self, capacity: int | Mapping[str, int] | None, policy: Policy = "block") -> None:
        kinds = capacity if isinstance(capacity, Mapping) else {ITEM: sys.maxsize if capacity is None else capacity}
        for kind, room in kinds.items():
            if room < 1:
                raise BackendError(f"a queue holds at least 1 {kind}, not {room}.")
        if policy not in (known := get_args(Policy)):
            raise BackendError(f"unknown policy {policy!r} of a queue.", f"Choose one of: {', '.join(known)}.")
        self.counters = {kind: ChannelCounters() for kind in kinds}
        self.waited = self.blocked = 0.0  # seconds, by consumers for items and by producers for room
        self.error: BaseException | None = None  # what it was closed with
        self._capacity, self._policy = dict(kinds), policy
        self._items: deque[tuple[str, Item]] = deque()
        self._sizes = dict.fromkeys(kinds, 0)
        self._changed = threading.Condition()
        self._closed = False

    @property
    def most(self) -> int:
        """The most items of one kind that waited at once."""
        return max(counters.most for counters in self.counters.values())

    @property
    def dropped(self) -> int:
        """The number of items dropped."""
        return sum(counters.dropped for counters in self.counters.values())

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item, kind: str = ITEM) -> None:
        """Put an item in; raises what the channel is closed with, or else `ChannelClosedError`."""
        with self._changed:
            counters = self.counters[kind]
            if self._sizes[kind] >= self._capacity[kind] and not self._closed:
                if self._policy == "block":
                    counters.blocked += 1
                    start = time.perf_counter()
                    self._changed.wait_for(lambda: self._closed or self._sizes[kind] < self._capacity[kind])
                    self.blocked += time.perf_counter() - start
                else:
                    del self._items[next(index for index, (other, _) in enumerate(self._items) if other == kind)]
                    self._sizes[kind] -= 1
                    counters.dropped += 1
            if self._closed:
                raise self.error or ChannelClosedError
            self._items.append((kind, item))
            self._sizes[kind] += 1
            counters.put += 1
            counters.most = max(counters.most, self._sizes[kind])
            self._changed.notify_all()

    def get(self) -> Item:
        """Take the oldest item out, waiting for one; if the channel is empty and closed, raises as `put` does."""
        with self._changed:
            start = time.perf_counter()
            self._changed.wait_for(lambda: self._closed or bool(self._items))
            self.waited += time.perf_counter() - start
            if not self._items:
                raise self.error or ChannelClosedError
            kind, item = self._items.popleft()
            self._sizes[kind] -= 1
            self.counters[kind].taken += 1
            self._changed.notify_all()
            return item

    def close(self, error: BaseException | None = None, *, discard: bool = False) -> None:
        """Take no more items, and wake all waiting threads. Items in it can still be taken out, unless discarded.

        Producers, and consumers of the empty channel, get `error` instead of its end; the first one stays.
        """
        with self._changed:
            self._closed = True
            self.error = self.error or error
            if discard:
                self._items.clear()
            self._changed.notify_all()

    def abort(self) -> None:
        """Break off: both ends get `Aborted`, and items are forgotten."""
        self.close(Aborted(), discard=True)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return self.get()
        except ChannelClosedError:
            if self.error is None:
                raise StopIteration from None
            raise


class Prefetch(Generic[Item]):
    """Computes the items of an iterator in a thread of its own, at most `size` ahead.

    An error of the iterator is raised where its next item would be. Leaving the `with` block stops the thread.
    """

    def __init__(self, items: Iterator[Item], size: int, policy: Policy = "block") -> None:
        self.busy = 0.0  # seconds that computing items has taken
        self.channel: Channel[Item] = Channel(size, policy)
        self._items = items
        self._thread = threading.Thread(target=self._work, name="avsbg-read", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.abort()
        self._thread.join(PATIENCE)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return next(self.channel)

    def _work(self) -> None:
        failure = None
        try:
            while True:
                start = time.perf_counter()
                item = next(self._items, self)
                self.busy += time.perf_counter() - start
                if item is self:
                    break
                self.channel.put(item)  # type: ignore[arg-type]
        except ChannelClosedError:
            pass
        except BaseException as error:  # raised again where the items are used
            failure = error
        finally:
            self.channel.close(failure)
            if close := getattr(self._items, "close", None):
                close()


class Worker(Generic[Item]):
    """Runs `work` on the items that it is given, in a thread of its own and at most `size` behind.

    An error of `work` is raised by the next `put`, or by `finish`. Leaving the `with` block without `finish` breaks
    `work` off: its next item raises `Aborted`.
    """

    def __init__(self, work: Callable[[Iterator[Item]], None], size: int) -> None:
        self.channel: Channel[Item] = Channel(size)
        self._work_on = work
        self._elapsed = 0.0
        self._thread = threading.Thread(target=self._work, name="avsbg-write", daemon=True)

    @property
    def busy(self) -> float:
        """Seconds that `work` has taken, without waiting for items; complete after `finish`."""
        return self._elapsed - self.channel.waited

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.abort()
        self._thread.join()

    def put(self, item: Item) -> None:
        """Hand over an item; waits while the worker is `size` items behind."""
        self.channel.put(item)

    def finish(self) -> None:
        """Wait until everything is done."""
        self.channel.close()
        self._thread.join()
        if self.channel.error is not None:
            raise self.channel.error

    def _work(self) -> None:
        start = time.perf_counter()
        try:
            self._work_on(self.channel)
        except BaseException as error:  # raised again where the items come from
            self.channel.close(error, discard=True)
        finally:
            self._elapsed = time.perf_counter() - start
