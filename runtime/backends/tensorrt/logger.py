"""The one logger that all our TensorRT objects share, for TensorRT and TensorRT for RTX alike."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

# TensorRT's severities, 0 (internal error) to 4 (verbose), as levels of Python's logging.
_LEVELS = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
_PYTHON_LOG = logging.getLogger("avsbg.tensorrt")


class Message(NamedTuple):
    """A message of TensorRT or a plugin: a level of Python's `logging`, and the text."""

    level: int
    text: str


@functools.cache
def message_log(trt: Any) -> Any:
    """The `ILogger` to create every builder, runtime and parser with.

    One for the whole process: TensorRT routes the messages of plugins to the first logger it was given, for as long as
    any builder or runtime lives, even after that logger is gone (seen with TensorRT for RTX 1.7.1: it crashes).

    Messages go to Python's logger `avsbg.tensorrt`, except inside `with message_log(trt).collect() as messages:`, where
    they are appended to the list instead: those of the thread that collects, and those of threads of TensorRT's own,
    which collect nothing. `trt` is the module `tensorrt` or `tensorrt_rtx`.
    """

    class MessageLog(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._collections: list[tuple[int, list[Message]]] = []  # with the thread that collects
            self._lock = threading.Lock()

        def log(self, severity: Any, text: str) -> None:
            message, thread = Message(_LEVELS[int(severity)], text), threading.get_ident()
            with self._lock:
                everyone = [collection for _, collection in self._collections]
                own = [collection for owner, collection in self._collections if owner == thread]
                for collection in own or everyone:
                    collection.append(message)
            if not everyone:
                _PYTHON_LOG.log(*message)

        @contextmanager
        def collect(self) -> Iterator[list[Message]]:
            entry: tuple[int, list[Message]] = (threading.get_ident(), [])
            with self._lock:
                self._collections.append(entry)
            try:
                yield entry[1]
            finally:
                with self._lock:
                    # By identity: two empty lists are equal.
                    self._collections = [other for other in self._collections if other is not entry]

    return MessageLog()


def describe_errors(messages: Sequence[Message], otherwise: str = "it gives no reason") -> str:
    """The first errors among messages, in one line."""
    errors = [message.text.rstrip(". ") for message in messages if message.level >= logging.ERROR]
    return "; ".join(errors[:2]) or otherwise
