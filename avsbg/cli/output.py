"""Standard output that may be closed by its reader, as in `avsbg run ... | head -1`."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


class _PipeTolerantOutput(io.TextIOWrapper):
    """Text output that goes nowhere once its reader has gone, so that the work is completed all the same."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        # The descriptor itself: what is still buffered is flushed to it when the interpreter ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def tolerate_closed_pipes() -> None:
    """Let output whose reader has gone be no failure."""
    sys.stdout, sys.stderr = _tolerant(sys.stdout), _tolerant(sys.stderr)


def _tolerant(stream: TextIO) -> TextIO:
    if stream not in (sys.__stdout__, sys.__stderr__) or not isinstance(stream, io.TextIOWrapper):
        return stream  # replaced by whoever runs us inside a program, or absent
    buffering, encoding, errors = stream.line_buffering, stream.encoding, stream.errors
    return _PipeTolerantOutput(stream.detach(), encoding=encoding, errors=errors, line_buffering=buffering)
