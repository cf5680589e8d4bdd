"""`avsbg data`: AVSBench's files made ready for training and evaluation, and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Exit, Option, Typer

from avsbg.cli import TRAIN, VerbGroup, app
from avsbg.cli.options import DataRoot, Overwrite, SplitName, Task, TaskName
from avsbg.cli.output import plain_console
from avsbg.progress import count_progress

data = Typer(cls=VerbGroup, no_args_is_help=True, help="Prepare, convert and check data in AVSBench's layout.")
app.add_typer(data, name="data", rich_help_panel=TRAIN)

ClipCounts = Annotated[tuple[int, int, int], Option(min=1, metavar="TRAIN VAL TEST", help="Clips per split.")]
Size = Annotated[int, Option(metavar="N", min=32, help="Height and width of the frames, a multiple of 32.")]


def _check_size(size: int) -> None:
    from avsbg.model.clips import SIZE_MULTIPLE
    from avsbg.model.training.errors import DatasetError

    if size % SIZE_MULTIPLE:
        raise DatasetError(f"--size must be a multiple of {SIZE_MULTIPLE}, not {size}.")


def _report(done: str, failures: Sequence[str] = (), advice: str = "") -> None:
    """Say what was done and what failed; failures end the command with exit code 1."""
    plain_console().print(done)
    if failures:
        console = plain_console(stderr=True)
        for failure in failures[:20]:
            console.print(f"  {failure}", markup=False)
        if len(failures) > 20:
            console.print(f"  and {len(failures) - 20} more")
        console.print(f"[bold red]{len(failures)} failed.[/bold red] {advice}")
        raise Exit(1)


def _make_files(
    words: tuple[str, str], root: Path, task: TaskName, make: Callable[..., tuple[int, list[str]]], advice: str
) -> None:
    """Make files of all clips and report; `words`: as in converting, converted."""
    from avsbg.model.training.layout import read_clips

    clips = read_clips(root, task)
    with count_progress(words[0], len(clips)) as advance:
        made, failures = make(clips, advance=advance)
    there = len(clips) - made - len(failures)
    _report(f"{made} of {len(clips)} clips {words[1]}, {there} were there already", failures, advice)


@data.command("convert-avsbench")
def convert_avsbench(root: DataRoot, task: Task, overwrite: Overwrite = False) -> None:
    """Convert AVSBench's pickled log-mel patches to .npy files beside them.

    This is the only command that reads pickles. Its unpickler accepts only tensors, so no code in a file runs.
    """
    from avsbg.model.training.preparation import convert_log_mels

    make = partial(convert_log_mels, force=overwrite)
    _make_files(("converting", "converted"), root, task, make, "The others can be used; fetch these files again.")


@data.command()
def prepare(root: DataRoot, task: Task, size: Size = 224, overwrite: Overwrite = False) -> None:
    """Make frames, WAV files and log-mel patches from the raw videos.

    It continues where an earlier run stopped. Choice of frames, resizing and sound are AVSBench's own.
    """
    from avsbg.model.training.preparation import prepare_clips

    _check_size(size)
    make = partial(prepare_clips, size=(size, size), force=overwrite)
    _make_files(("preparing", "prepared"), root, task, make, "The others can be used.")


@data.command()
def check(root: DataRoot, task: Task) -> None:
    """Load every clip of every split once and list the files that are missing or cannot be used."""
    from avsbg.model.training.data import AvsBenchDataset
    from avsbg.model.training.errors import DatasetError
    from avsbg.model.training.layout import SPLITS, read_clips

    total = len(read_clips(root, task))
    counts, failures = [], []
    with count_progress("checking", total) as advance:
        for split in SPLITS:
            try:
                dataset = AvsBenchDataset(root, task, split)
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
    _report(f"{root}, {task}: {', '.join(counts) or 'nothing'}", failures, "Training needs all of them.")


@data.command()
def show(
    root: DataRoot,
    task: Task,
    picture: Annotated[Path, Option(metavar="FILE", help="The picture to write, .png or .jpg.")],
    split: Annotated[SplitName, Option(help="The split to show.")] = "train",
    limit: Annotated[int, Option(min=1, metavar="CLIPS", help="The number of clips, spread over the split.")] = 8,
) -> None:
    """Draw clips as a contact sheet: one row for each, with the sounding object outlined."""
    from avsbg.model.training.contact_sheet import write_contact_sheet
    from avsbg.model.training.data import AvsBenchDataset

    sheet = write_contact_sheet(picture, AvsBenchDataset(root, task, split), limit)
    _report(f"{picture}: {sheet.width} x {sheet.height} pixels")


@data.command()
def video(
    root: DataRoot,
    task: Task,
    output: Annotated[Path, Option("-o", "--output", metavar="DIR", help="The folder that receives the videos.")],
    split: Annotated[SplitName, Option(help="The split to write.")] = "test",
    limit: Annotated[int | None, Option(min=1, metavar="CLIPS", help="Only the first N clips. By default all.")] = None,
) -> None:
    """Write clips as videos for `avsbg run`, one frame a second, with the sound of the WAV files."""
    from avsbg.model.training.data import AvsBenchDataset
    from avsbg.model.training.media import read_sound, write_clip_video

    dataset = AvsBenchDataset(root, task, split)
    chosen = range(min(len(dataset), limit or len(dataset)))
    with count_progress("writing", len(chosen)) as advance:
        for index in chosen:
            sample = dataset[index]
            path = output / f"{sample.clip.name}.mp4"
            write_clip_video(path, sample.frames.numpy(), read_sound(sample.clip.wav))
            advance()
    _report(f"{output}: {len(chosen)} videos")


@data.command("sounding-stamps")
def sounding_stamps(  # noqa: PLR0917  (each is an option by name)
    output: Annotated[Path, Argument(help="The folder in which Single-source or Multi-sources is made.")],
    task: Task,
    split_sizes: ClipCounts = (800, 100, 200),
    size: Size = 224,
    seed: Annotated[int, Option(metavar="N", min=0, help="Seed of all random choices.")] = 0,
    held_out: Annotated[
        Literal["scenes", "classes"],
        Option(help="scenes: splits share classes but no background. classes: they share no class either."),
    ] = "scenes",
    stamps: Annotated[
        Path | None, Option(metavar="FOLDER", help="The stamps of tuxpaint-stamps-default, if they are elsewhere.")
    ] = None,
    backgrounds: Annotated[
        Path | None, Option(metavar="FOLDER", help="The images of the background packages, if they are elsewhere.")
    ] = None,
) -> None:
    """Compose clips in AVSBench's format from photo cut-outs with real recordings on real backgrounds.

    The media come from Debian: apt-get install tuxpaint-stamps-default mate-backgrounds lomiri-wallpapers-16.04.
    SOURCES.json records every source file with its hash and licence, and what the splits still share.
    """
    from avsbg.model.training.layout import SPLITS
    from avsbg.model.training.sounding_stamps import generate
    from avsbg.model.training.stamps_library import BACKGROUNDS, STAMPS, load_library

    _check_size(size)
    library = load_library(stamps or STAMPS, backgrounds or BACKGROUNDS, held_out=held_out, seed=seed)
    counts = dict(zip(SPLITS, split_sizes, strict=True))
    with count_progress("composing", sum(split_sizes)) as advance:
        folder = generate(output, library, task=task, counts=counts, size=size, seed=seed, advance=advance)
    look = f"avsbg data show {output} --task {task} --picture sheet.png"
    _report(f"{folder}: {sum(split_sizes)} clips. Look at them: {look}")
