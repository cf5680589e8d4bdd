"""Messages of TensorRT reach the thread that asked for them, and no other."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from avsbg.runtime.backends.tensorrt.logger import Message, message_log


class ILogger:
    """TensorRT's class, which ours extends."""


@pytest.fixture
def log() -> Any:
    class Module(SimpleNamespace):
        __hash__ = object.__hash__

    return message_log(Module(ILogger=ILogger))


def _in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_threads_messages_are_its_own(log: Any) -> None:
    theirs: list[Message] = []

    def other() -> None:
        with log.collect() as messages:
            log.log(1, "theirs")
            theirs.extend(messages)

    with log.collect() as ours:
        log.log(1, "ours")
        _in_thread(other)
        # A thread of TensorRT's own, as builders start them, collects nothing.
        _in_thread(lambda: log.log(2, "a worker's"))
    assert [message.text for message in ours] == ["ours", "a worker's"]
    assert [message.text for message in theirs] == ["theirs"]


def test_collections_of_many_threads_are_complete(log: Any) -> None:
    counts: list[int] = []

    def work() -> None:
        for _ in range(200):
            with log.collect() as messages:
                log.log(3, "x")
                counts.append(len(messages))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 800


def test_without_a_collection_messages_are_logged(log: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "avsbg.tensorrt"):
        log.log(2, "a warning")
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.WARNING, "a warning")]
