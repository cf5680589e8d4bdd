"""Stages that work at the same time: bounded channels between threads, one error, one shutdown.

Decoders, encoders and ONNX Runtime release Python's lock, so threads are enough.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

Item = TypeVar("Item")

# A thread that hangs in a device's driver cannot be stopped; after this many seconds it is left behind.
PATIENCE = 10.0


class Aborted(Exception):  # noqa: N818  (no error of its own: another stage has one)
    """The other end of a channel has given up."""


class Channel(Generic[Item]):
    """A queue of at most `size` items (None: any number) between two threads, which either end can break off.

    Attributes:
        waited: seconds that the receiver has waited for items.
        blocked: seconds that the sender has waited for room.
        most: the most items that were in it at once.
        dropped: how many were dropped, with `drop_oldest`.
    """

    def __init__(self, size: int | None, *, drop_oldest: bool = False) -> None:
        self.waited, self.blocked, self.most, self.dropped = 0.0, 0.0, 0, 0
        self._size, self._drop_oldest = sys.maxsize if size is None else size, drop_oldest
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._aborted = False

    def put(self, item: Item) -> None:
        """Add an item; waits while the channel is full, or drops the oldest item.

        Raises:
            Aborted: the receiver has given up.
        """
        with self._changed:
            if self._drop_oldest and len(self._items) == self._size:
                self._items.popleft()
                self.dropped += 1
            start = time.perf_counter()
            self._changed.wait_for(lambda: len(self._items) < self._size or self._aborted)
            self.blocked += time.perf_counter() - start
            if self._aborted:
                raise Aborted
            self._items.append(item)
            self.most = max(self.most, len(self._items))
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many items are in it."""
        return len(self._items)

    def end(self) -> None:
        """No more items will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Break off: whoever waits at either end stops, and items are forgotten."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        start = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self._aborted)
            self.waited += time.perf_counter() - start
            if self._aborted:
                raise Aborted
            if not self._items:
                raise StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item


class Prefetch(Generic[Item]):
    """Computes the items of an iterator in a thread of its own, at most `size` ahead.

    An error of the iterator is raised where its next item would be. Leaving the `with` block stops the thread.

    Attributes:
        busy: seconds that computing items has taken.
        channel: what lies between the two threads.
    """

    def __init__(self, items: Iterator[Item], size: int, *, drop_oldest: bool = False) -> None:
        self.busy = 0.0
        self.channel: Channel[Item] = Channel(size, drop_oldest=drop_oldest)
        self._items = items
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="avsbg-read", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.abort()
        self._thread.join(PATIENCE)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return next(self.channel)
        except StopIteration:
            if self._error is not None:
                raise self._error from None
            raise

    def _work(self) -> None:
        try:
            while True:
                start = time.perf_counter()
                item = next(self._items, self)
                self.busy += time.perf_counter() - start
                if item is self:
                    break
                self.channel.put(item)  # type: ignore[arg-type]
        except Aborted:
            pass
        except BaseException as error:  # raised again where the items are used
            self._error = error
        finally:
            self.channel.end()
            if close := getattr(self._items, "close", None):
                close()


class Worker(Generic[Item]):
    """Runs `work` on the items that it is given, in a thread of its own and at most `size` behind.

    An error of `work` is raised by the next `put`, or by `finish`. Leaving the `with` block without `finish` breaks
    `work` off: its next item raises `Aborted`.

    Attributes:
        channel: what lies between the two threads.
    """

    def __init__(self, work: Callable[[Iterator[Item]], None], size: int) -> None:
        self.channel: Channel[Item] = Channel(size)
        self._work_on = work
        self._error: BaseException | None = None
        self._elapsed = 0.0
        self._thread = threading.Thread(target=self._work, name="avsbg-write", daemon=True)

    @property
    def busy(self) -> float:
        """Seconds that `work` has taken, without waiting for items; complete after `finish`."""
        return self._elapsed - self.channel.waited

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.abort()
        self._thread.join()

    def put(self, item: Item) -> None:
        """Hand over an item; waits while the worker is `size` items behind."""
        try:
            self.channel.put(item)
        except Aborted:
            if self._error is not None:
                raise self._error from None
            raise

    def finish(self) -> None:
        """Wait until everything is done."""
        self.channel.end()
        self._thread.join()
        if self._error is not None:
            raise self._error from None

    def _work(self) -> None:
        start = time.perf_counter()
        try:
            self._work_on(self.channel)
        except BaseException as error:  # raised again where the items come from
            self._error = error
            self.channel.abort()
        finally:
            self._elapsed = time.perf_counter() - start
