"""Output of the verbs: consoles, tables and JSON, also when the reader ends early (`avsbg run ... | head -1`)."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from avsbg.runtime.bundle.engine_record import AccuracyRecord


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
        return stream  # replaced by a program that embeds us, or absent
    buffering, encoding, errors = stream.line_buffering, stream.encoding, stream.errors
    return _PipeTolerantOutput(stream.detach(), encoding=encoding, errors=errors, line_buffering=buffering)


def plain_console(*, stderr: bool = False, markup: bool = True) -> Console:
    """A console that highlights nothing and leaves long lines to the terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=markup, emoji=False)  # run:1: is a path


def describe_accuracy(record: AccuracyRecord) -> str:
    """The figures of a graph's accuracy, marked where they miss the threshold."""
    missed = "" if record.passed else f" [bold red]below the threshold of {record.min_miou}[/bold red]"
    differences = f"logits differ by at most {record.largest_difference:.2g}"
    return f"{record.miou:.4f}{missed}, {record.flipped:.2%} of the pixels flipped, {differences}"


def print_table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for index, header in enumerate(headers):
        table.add_column(header, no_wrap=True, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file, complete or not at all."""
    import json

    from avsbg.atomic import atomic_file

    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
