"""Work in a separate process, whose crash does not end the one that waits for it."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from avsbg.progress import Progress
from avsbg.runtime.errors import WorkerError

if TYPE_CHECKING:
    from typing_extensions import Self

Argument = TypeVar("Argument")
Result = TypeVar("Result")
# Opens what the work needs, and yields the function that does a piece of it; it is told what to report progress to.
Opener = Callable[[Progress], AbstractContextManager[Callable[[Argument], Result]]]

# Seconds that a process has to clean up when it is told to end.
PATIENCE = 10.0


class IsolatedWorker(Generic[Argument, Result]):
    """A function in a process of its own, called for one piece of work after the other. Use it as a context manager.

    The process is started again after a crash. An exception of the function is raised here, as of any function, and
    what our loggers say there is said by those of the same names here.

    Args:
        open_work: a function that can be pickled; called in the process, once.
        progress: called here, as work goes on there.

    Raises:
        WorkerError: the process crashed while it opened what the work needs.
    """

    def __init__(self, open_work: Opener[Argument, Result], progress: Progress | None = None) -> None:
        self._open_work, self._progress = open_work, progress
        self._process: Any = None
        self._connection: Any = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._connection.close()
        if self._process.is_alive():
            self._process.terminate()
        self._join()

    def __call__(self, argument: Argument) -> Result:
        """Do a piece of work; a `WorkerError` if its process crashed over it."""
        if self._process is None:
            self._start()
        self._connection.send(argument)
        result: Result = self._wait("worked on it")
        return result

    def stop(self) -> None:
        """End the process, from another thread; a waiting caller gets an error that says so.

        It is told to end, and killed if it has not after `PATIENCE`: code that hangs outside of Python hears nothing.
        """
        if (process := self._process) is None:
            return
        process.terminate()
        killer = threading.Timer(PATIENCE, process.kill)
        killer.daemon = True
        killer.start()

    def _start(self) -> None:
        # Not a fork: threads of this process may hold locks that nobody would release there.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._open_work), daemon=True)
        self._process.start()
        theirs.close()
        self._wait("started")

    def _join(self) -> None:
        """Wait for the end of the process, which has told that it ends, or was told to."""
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _wait(self, doing: str) -> Any:
        while True:
            try:
                kind, value = self._connection.recv()
            except (EOFError, ConnectionResetError):
                self._join()
                code, self._process = self._process.exitcode, None
                raise WorkerError(f"the process that {doing} {_describe_exit(code)}.") from None
            if kind == "error":
                raise value
            if kind == "result":
                return value
            if kind == "log":
                if (logger := logging.getLogger(value.name)).isEnabledFor(value.levelno):
                    logger.handle(value)
                continue
            if self._progress is not None:
                self._progress(*value)


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name
    return f"was killed ({name}), perhaps out of memory" if name == "SIGKILL" else f"crashed ({name})"


class _LogSender(QueueHandler):
    """Sends what is logged, as text, to the process that waits, which knows where to show it."""

    def __init__(self, send: Callable[[str, Any], None]) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # no queue but the connection
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(BrokenPipeError):  # nobody waits any more; the work itself finds that out
            self._send("log", record)


def _serve(connection: Connection, open_work: Opener[Any, Any]) -> None:
    """Work on what comes through the connection, until it is closed or this process is told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's affair, which then ends this process
    signal.signal(signal.SIGTERM, _end)
    lock = threading.Lock()

    def send(kind: str, value: Any) -> None:
        with lock:
            connection.send((kind, value))

    ours = logging.getLogger("avsbg")
    ours.addHandler(_LogSender(send))
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        with open_work(lambda *values: send("progress", values)) as work:
            send("result", None)
            while True:
                try:
                    argument = connection.recv()
                except EOFError:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends already: let it clean up
                    raise
                try:
                    result = work(argument)
                except Exception as error:
                    send("error", error)
                else:
                    send("result", result)
    except (EOFError, BrokenPipeError):
        return  # nobody waits any more
    except Exception as error:
        send("error", error)
    finally:
        # In the interpreter's own end the exit that `_end` raises would be a traceback on the user's screen.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the cleaning up
    sys.exit(128 + number)
