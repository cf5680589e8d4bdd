"""Progress of a measurement: bars that are redrawn when told to, since a thread that redraws them would be measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def quiet_progress(console: Console) -> Progress:
    """Bars on `console` without a thread of their own."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
        auto_refresh=False,
    )


@contextmanager
def step(progress: Progress, description: str, total: int) -> Iterator[TaskID]:
    """A bar for one step of `total` parts; where bars cannot be drawn, a line that says that it begins."""
    task = progress.add_task(description, total=total)
    if not progress.console.is_terminal:
        progress.console.print(f"{description}: {total}")
    progress.refresh()
    yield task


def advance(progress: Progress, task: TaskID) -> None:
    """One part of a step is done."""
    progress.advance(task)
    progress.refresh()
