"""Progress bars on standard error, one for each step of a piece of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID
    from typing_extensions import Self

Entered = TypeVar("Entered")

# Called with a step's name, how much of it is done, and how much there is (None: nobody knows).
Progress = Callable[[str, int, int | None], None]


class ProgressBars:
    """A bar for each step, shown as soon as there is something to show; an instance is a `Progress`.

    Args:
        unit: shown behind the numbers.
        quiet: redraw only when called, since a thread that redraws would disturb what is measured; where bars cannot
            be drawn, a line says that a step begins.
    """

    def __init__(self, unit: str = "", *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._quiet = quiet
        self._bars = Progress(*columns, TimeElapsedColumn(), console=self.console, auto_refresh=not quiet)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, step: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` (None: nobody knows) are done in a step."""
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step)
            self._bars.start()
            if self._quiet and not self.console.is_terminal:
                self.console.print(f"{step}: {total}")
        self._bars.update(self._tasks[step], completed=done, total=total, refresh=self._quiet)

    @contextmanager
    def waiting(self, what: str, manager: AbstractContextManager[Entered]) -> Iterator[Entered]:
        """Enter another context, and show that it takes a while."""
        with ExitStack() as stack:
            with self.console.status(what):
                entered = stack.enter_context(manager)
            yield entered

    def restart(self) -> None:
        """Remove all bars: the next piece of work has bars of its own."""
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks = {}


@contextmanager
def phase_bar() -> Iterator[tuple[RichProgress, Progress]]:
    """Show one bar for the present phase, removed at the end; yield it and the function that updates it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)
        yield bar, lambda phase, done, total: bar.update(task, description=phase, completed=done, total=total)


@contextmanager
def count_progress(step: str, total: int) -> Iterator[Callable[[], None]]:
    """Show one bar; yield what is to be called after each of its parts."""
    with ProgressBars() as bars:
        numbers = count(1)
        bars(step, 0, total)
        yield lambda: bars(step, next(numbers), total)
