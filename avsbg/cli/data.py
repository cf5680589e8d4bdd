"""`avsbg data`: AVSBench's files made ready for training and evaluation, and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from avsbg.cli import app

data = typer.Typer(no_args_is_help=True, help="Prepare, convert and check data in AVSBench's layout.")
app.add_typer(data, name="data")


class TaskName(str, Enum):
    """The tasks of AVSBench, as users write them."""

    S4 = "s4"
    MS3 = "ms3"


Root = Annotated[Path, typer.Argument(help="The folder that holds Single-source or Multi-sources.")]
Task = Annotated[TaskName, typer.Option(help="s4: one sounding object; ms3: several.")]
Force = Annotated[bool, typer.Option("--force", help="Make files again that are there already.")]


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda: progress.advance(bar)


def _report(done: str, failures: list[str], advice: str) -> None:
    """Say what was done and what failed; failures end the command with exit code 1."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(done)
    if failures:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        for failure in failures[:20]:
            console.print(f"  {failure}", markup=False)
        if len(failures) > 20:
            console.print(f"  and {len(failures) - 20} more")
        console.print(f"[bold red]{len(failures)} failed.[/bold red] {advice}")
        raise typer.Exit(1)


@data.command("convert-avsbench")
def convert_avsbench(root: Root, task: Task, force: Force = False) -> None:
    """Convert AVSBench's pickled log-mel patches to .npy files beside them.

    The only command that reads pickles; its unpickler knows tensors and nothing else, so that no code in a file runs.
    """
    from avsbg.model.training.conversion import convert_log_mels
    from avsbg.model.training.layout import read_clips

    clips = read_clips(root, task.value)
    with _progress("converting", len(clips)) as advance:
        converted, failures = convert_log_mels(clips, force=force, advance=advance)
    done = f"{converted} of {len(clips)} clips converted, {len(clips) - converted - len(failures)} were there already"
    _report(done, failures, "The others can be used; fetch these files again.")


@data.command()
def prepare(
    root: Root,
    task: Task,
    size: Annotated[int, typer.Option(min=32, help="Height and width of the frames, a multiple of 32.")] = 224,
    force: Force = False,
) -> None:
    """Make frames, WAV files and log-mel patches from the raw videos.

    Goes on where an earlier run stopped. The frame rule, the resizing and the sound are AVSBench's own.
    """
    from avsbg.model.clips import SIZE_MULTIPLE
    from avsbg.model.training.errors import DatasetError
    from avsbg.model.training.layout import read_clips
    from avsbg.model.training.preparation import prepare as prepare_clips

    if size % SIZE_MULTIPLE:
        raise DatasetError(f"--size must be a multiple of {SIZE_MULTIPLE}, not {size}.")
    clips = read_clips(root, task.value)
    with _progress("preparing", len(clips)) as advance:
        prepared, failures = prepare_clips(clips, size=(size, size), force=force, advance=advance)
    done = f"{prepared} of {len(clips)} clips prepared, {len(clips) - prepared - len(failures)} were there already"
    _report(done, failures, "The others can be used.")


@data.command()
def check(root: Root, task: Task) -> None:
    """Load every clip of every split once and list the files that are missing or cannot be used."""
    from avsbg.model.training.dataset import AvsBenchDataset
    from avsbg.model.training.errors import DatasetError
    from avsbg.model.training.layout import SPLITS, read_clips

    total = len(read_clips(root, task.value))
    counts, failures = [], []
    with _progress("checking", total) as advance:
        for split in SPLITS:
            try:
                dataset = AvsBenchDataset(root, task.value, split)
            except DatasetError as error:
                failures.append(f"{split}: {error}")
                continue
            counts.append(f"{split} {len(dataset)} (sound from {dataset.sound}, {dataset.height}x{dataset.width})")
            for index in range(len(dataset)):
                try:
                    dataset[index]
                except DatasetError as error:
                    failures.append(f"{split}: {error.message}")
                advance()
    _report(f"{root}, {task.value}: {', '.join(counts) or 'nothing'}", failures, "Training needs all of them.")
