"""Progress bars of work in stages, on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import TaskID
    from typing_extensions import Self

Entered = TypeVar("Entered")


class Stages:
    """A bar for each stage, shown as soon as there is something to show; `restart` removes them all."""

    def __init__(self, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars = Progress(*columns, TimeElapsedColumn(), console=self.console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` (None: nobody knows) are done in a stage."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage)
            self._bars.start()
        self._bars.update(self._tasks[stage], completed=done, total=total)

    @contextmanager
    def waiting(self, what: str, manager: AbstractContextManager[Entered]) -> Iterator[Entered]:
        """Enter another context, and show that it takes a while."""
        with ExitStack() as stack:
            with self.console.status(what):
                entered = stack.enter_context(manager)
            yield entered

    def restart(self) -> None:
        """The next piece of work has bars of its own."""
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks = {}
