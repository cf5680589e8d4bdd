"""Work in a process of its own, and crashes there."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from avsbg.progress import Progress
from avsbg.runtime.errors import MediaError, WorkerError
from avsbg.runtime.processes import IsolatedWorker


@contextmanager
def open_divider(progress: Progress) -> Iterator[Callable[[int], tuple[int, float]]]:
    """Divide 12 by a number; 99 crashes, 98 exits, 97 is killed, and an odd number is an error."""

    def divide(number: int) -> tuple[int, float]:
        progress("dividing", number, None)
        logging.getLogger("avsbg.division").info("dividing by %d", number)
        if number in {97, 99}:
            os.kill(os.getpid(), signal.SIGKILL if number == 97 else signal.SIGSEGV)
        if number == 98:
            os._exit(7)
        if number % 2:
            raise MediaError(f"{number} is odd.", "Give an even one.")
        return os.getpid(), 12 / number

    yield divide


@contextmanager
def open_nothing(_: Progress) -> Iterator[Callable[[int], int]]:
    os.abort()
    yield int


def test_a_crash_costs_one_piece_of_work(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, int, int | None]] = []
    caplog.set_level(logging.INFO, "avsbg.division")
    with IsolatedWorker[int, tuple[int, float]](open_divider, lambda *values: told.append(values)) as worker:
        process, result = worker(2)
        assert (result, process != os.getpid()) == (6.0, True)
        with pytest.raises(WorkerError, match=r"the process that worked on it crashed \(SIGSEGV\)"):
            worker(99)
        other, result = worker(4)
        assert (result, other != process) == (3.0, True)
        with pytest.raises(MediaError, match=r"7 is odd\. Give an even one"):
            worker(7)
        with pytest.raises(ZeroDivisionError):
            worker(0)
        assert worker(6) == (other, 2.0), "an error is no crash"
        with pytest.raises(WorkerError, match="code 7"):
            worker(98)
        with pytest.raises(WorkerError, match=r"killed \(SIGKILL\), perhaps out of memory"):
            worker(97)
    assert [number for _, number, _ in told] == [2, 99, 4, 7, 0, 6, 98, 97]
    assert caplog.messages == [f"dividing by {number}" for _, number, _ in told]
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)


def test_a_crash_while_it_is_opened() -> None:
    with pytest.raises(WorkerError, match=r"started crashed \(SIGABRT\)"), IsolatedWorker[int, int](open_nothing):
        pass
