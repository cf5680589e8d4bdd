"""Backends as users name them, and what is told about them on standard error."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any


def join_names(backend: str, implementation: str | None, precision: str | None) -> str:
    """Join what the three options name into one text, as `BackendSpec` reads it: it refuses what is said twice."""
    return ":".join(filter(None, (backend, implementation, precision)))


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from rich.console import Console
        from rich.text import Text

        label = ("warning: ", "bold yellow") if record.levelno >= logging.WARNING else ("backend: ", "bold")
        Console(stderr=True).print(Text.assemble(label, record.getMessage()))


def show_messages() -> None:
    """Show what a model tells about its backend, and the page about its requests."""
    for name in ("avsbg.model", "avsbg.page"):
        logger = logging.getLogger(name)
        logger.handlers = [_ConsoleHandler()]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def warn_of_accuracy(text: str, check: Mapping[str, Any]) -> None:
    """Warn where what a user named runs although it missed its accuracy threshold."""
    from avsbg.runtime.backends.base import accuracy_warning

    show_messages()
    if (warning := accuracy_warning(text, check)) is not None:
        logging.getLogger("avsbg.model").warning(warning)
