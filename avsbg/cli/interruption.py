"""SIGINT and SIGTERM: work stops cleanly, and the exit code is what a shell expects."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """A signal asked for the end; as an exit, its code is 130 for SIGINT and 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Interruption:
    """The effect of a signal: by default it raises `Interrupted` in the main thread.

    Attributes:
        number: the first signal that came, or None.
        stop: set by the first signal while `graceful`; the reader of an endless source then ends it.
        graceful: whether the first signal only sets `stop`.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.stop = threading.Event()
        self.graceful = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            if self.graceful:
                self.stop.set()
                return
        # Once is enough: a second one must not interrupt the cleaning up.
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Handle SIGINT and SIGTERM inside the block; only the main thread may enter it."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption._handle) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
