"""A queue between threads that cannot grow: when it is full, it makes its producer wait, or it drops the oldest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

from avsbg.runtime.errors import BackendError

Policy = Literal["block", "drop-oldest"]
Item = TypeVar("Item")


@dataclass
class QueueCounters:
    """What has gone through a queue, of one kind of items.

    Attributes:
        put: items that were put in.
        taken: items that were taken out.
        dropped: items that were dropped to make room.
        blocked: how often a producer had to wait for room.
        longest: the most items that waited at once.
    """

    put: int = 0
    taken: int = 0
    dropped: int = 0
    blocked: int = 0
    longest: int = 0


class QueueClosedError(Exception):
    """The queue was closed: it takes nothing more, or has nothing more to give."""


class BoundedQueue(Generic[Item]):
    """A queue for any number of producers and consumers, which closes cleanly.

    Args:
        capacities: how many items it holds of each kind. Each kind has its own room, so that what is dropped for a
            frame is a frame, and not sound.
        policy: when there is no room: `block` makes the producer wait; `drop-oldest` drops the oldest of that kind.

    Attributes:
        counters: what has gone through it, by kind.

    Raises:
        BackendError: no such policy, or a capacity below 1.
    """

    def __init__(self, capacities: Mapping[str, int], policy: Policy = "block") -> None:
        for kind, capacity in capacities.items():
            if capacity < 1:
                raise BackendError(f"a queue holds at least 1 {kind}, not {capacity}.")
        if policy not in get_args(Policy):
            raise BackendError(
                f"unknown policy {policy!r} of a queue.", f"Choose one of: {', '.join(get_args(Policy))}."
            )
        self.counters = {kind: QueueCounters() for kind in capacities}
        self._capacities, self._policy = dict(capacities), policy
        self._items: deque[tuple[str, Item]] = deque()
        self._sizes = dict.fromkeys(capacities, 0)
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: Item, kind: str) -> None:
        """Put an item in.

        Raises:
            QueueClosedError: the queue was closed, before or while waiting.
            BaseException: what the queue was closed with.
        """
        with self._changed:
            counters = self.counters[kind]
            if self._is_full(kind) and not self._closed:
                if self._policy == "block":
                    counters.blocked += 1
                    self._changed.wait_for(lambda: self._closed or not self._is_full(kind))
                else:
                    self._drop_oldest(kind)
            if self._closed:
                raise self._error or QueueClosedError
            self._items.append((kind, item))
            self._sizes[kind] += 1
            counters.put += 1
            counters.longest = max(counters.longest, self._sizes[kind])
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> Item:
        """Take the oldest item out, waiting for one.

        Raises:
            QueueClosedError: the queue was closed and is empty.
            BaseException: it is empty, and what it was closed with.
            TimeoutError: none came in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or bool(self._items), timeout):
                raise TimeoutError
            if not self._items:
                raise self._error or QueueClosedError
            kind, item = self._items.popleft()
            self._sizes[kind] -= 1
            self.counters[kind].taken += 1
            self._changed.notify_all()
            return item

    def close(self, error: BaseException | None = None, *, discard: bool = False) -> None:
        """Take no more; whoever waits is woken. What is in it can still be taken out, unless it is to be discarded.

        Args:
            error: what producers, and consumers of the empty queue, get instead of `QueueClosedError`. The first stays.
            discard: empty it.
        """
        with self._changed:
            self._closed = True
            self._error = self._error or error
            if discard:
                self._items.clear()
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)

    def _is_full(self, kind: str) -> bool:
        return self._sizes[kind] >= self._capacities[kind]

    def _drop_oldest(self, kind: str) -> None:
        index = next(index for index, (other, _) in enumerate(self._items) if other == kind)
        del self._items[index]
        self._sizes[kind] -= 1
        self.counters[kind].dropped += 1
