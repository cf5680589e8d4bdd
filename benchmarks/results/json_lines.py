"""Rows of one kind as JSON Lines, written whole and validated when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError

Row = TypeVar("Row")


def write_lines(path: Path, rows: Iterable[BaseModel]) -> None:
    """Write rows; `path` appears when it is complete."""
    with atomic_file(path) as temporary:
        temporary.write_text("".join(f"{row.model_dump_json()}\n" for row in rows), encoding="utf-8")


def read_lines(path: Path, validate: Callable[[str], Row], kind: str, maker: str) -> list[Row]:
    """Read rows.

    Args:
        path: the file.
        validate: a line to its row.
        kind: what the rows are of, for the error.
        maker: the command that makes them, for the error.

    Raises:
        BenchmarkError: the file cannot be read, or a line is no valid row.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [validate(line) for line in lines]
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BenchmarkError(f"{path} holds no rows of {kind}: {error}.", f"Make them with {maker}.") from error
