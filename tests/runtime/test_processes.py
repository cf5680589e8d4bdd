"""Work in a process of its own, and crashes there."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avsbg.progress import Progress
from avsbg.runtime import processes
from avsbg.runtime.errors import MediaError, WorkerError
from avsbg.runtime.processes import IsolatedWorker, _LogSender


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
        try:
            return os.getpid(), 12 / number
        except ZeroDivisionError:
            logging.getLogger("avsbg.division").exception("no division by %d", number)
            raise

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
    (error,) = (message for message in caplog.messages if not message.startswith("dividing"))
    assert error.startswith("no division by 0\nTraceback") and error.endswith("ZeroDivisionError: division by zero")
    assert [message for message in caplog.messages if message != error] == [f"dividing by {one[1]}" for one in told]
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)


@pytest.mark.parametrize(("error", "told"), [(BrokenPipeError("gone"), ""), (TypeError("no pickle"), "no pickle")])
def test_a_message_that_cannot_be_sent_does_not_end_the_work(
    error: Exception, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(kind: str, record: logging.LogRecord) -> None:
        assert (kind, record.getMessage()) == ("log", "1 of 2")
        raise error

    _LogSender(fail).handle(logging.makeLogRecord({"msg": "%d of %d", "args": (1, 2)}))
    written = capsys.readouterr().err
    assert told in written and bool(told) == bool(written)


def test_a_crash_while_it_is_opened() -> None:
    with pytest.raises(WorkerError, match=r"started crashed \(SIGABRT\)"), IsolatedWorker[int, int](open_nothing):
        pass


@contextmanager
def open_slow_end(_: Progress) -> Iterator[Callable[[Path], Path]]:
    """Keep a file; while it is removed, and while the interpreter ends, be told to end."""
    kept: list[Path] = []

    def keep(path: Path) -> Path:
        path.touch()
        kept.append(path)
        return path

    atexit.register(os.kill, os.getpid(), signal.SIGTERM)
    try:
        yield keep
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        for path in kept:
            path.unlink()


@contextmanager
def open_deaf(progress: Progress) -> Iterator[Callable[[int], int]]:
    """Heed no signal, as code that hangs outside of Python."""

    def hang(_: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        progress("hanging", 0, None)
        time.sleep(600)
        return 0

    yield hang


def test_a_process_that_does_not_end_when_told_to_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    worker = IsolatedWorker[int, int](open_deaf, lambda *_: worker.stop())
    with pytest.raises(WorkerError, match="SIGKILL"), worker:
        worker(1)


def test_the_end_of_a_process_is_quiet_and_cleans_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with IsolatedWorker[Path, Path](open_slow_end) as worker:
        path = worker(tmp_path / "kept")
        assert path.exists()
    assert not path.exists()
    assert capfd.readouterr().err == ""
