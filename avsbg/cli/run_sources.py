"""`avsbg run` on files and on live sources: the network opened, the work, and what is told about it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Exit

from avsbg.cli.interruption import Interrupted, interruptible
from avsbg.cli.output import plain_console
from avsbg.progress import ProgressBars

if TYPE_CHECKING:
    from avsbg.runtime.media.sources import LiveSource
    from avsbg.runtime.segment.pipeline import Options
    from avsbg.runtime.segment.segmenter import Segmenter

Network = Callable[[], AbstractContextManager["Segmenter"]]

OPENING = "opening the bundle"


def run_files(network: Network, sources: list[Path], output: Path, options: Options, *, force: bool) -> None:
    """Segment files and folders of files; several in a process of their own, whose crash costs one file alone.

    Raises:
        MediaError: several of many failed; typer.Exit: the only one did, and its error was printed.
    """
    from avsbg.runtime.errors import MediaError, OutputError
    from avsbg.runtime.processes import IsolatedWorker
    from avsbg.runtime.segment.batch import REPORT, BatchItem, BatchResult, find_videos, open_video_worker, run_batch

    items = find_videos(sources, output)
    many = items[0].output != output
    results: list[BatchResult] = []
    with interruptible(), ProgressBars("s") as bars:

        def report(result: BatchResult) -> None:
            bars.restart()
            results.append(result)
            if result.error is not None:
                bars.console.print("[bold red]error:[/] ", end="")
                bars.console.print(result.error, markup=False)
            elif result.summary is not None:
                _tell(result.summary, result.item.path, result.item.output, again=result.state != "done")

        opener = partial(open_video_worker, network, options, force)
        isolated = IsolatedWorker[BatchItem, BatchResult](opener, bars)
        worker: AbstractContextManager[Callable[[BatchItem], BatchResult]] = isolated if many else opener(bars)
        with bars.waiting(OPENING, worker) as work:
            try:
                run_batch(work, items, directory=output if many else None, report=report)
            except Interrupted:
                done = sum(result.state in {"done", "finished before"} for result in results)
                kept = f"{done} of {len(items)} finished and kept, nothing half-written"
                bars.console.print(f"interrupted; {kept}", markup=False)
                raise
            except OutputError as error:
                if any(result.error == str(error) for result in results):  # and so was printed
                    raise Exit(1) from None
                raise
    failed = [str(result.item.path) for result in results if result.error is not None]
    if failed and many:
        hint = f"The reasons stand above and in {output / REPORT}; run the same command again for those alone."
        raise MediaError(f"{len(failed)} of {len(items)} videos failed: {', '.join(failed)}.", hint)
    if failed:
        raise Exit(1)


def run_live(
    network: Network, source: LiveSource, output: Path, options: Options, *, microphone: str | None, **settings: Any
) -> None:
    """Segment a live source until it ends or a signal comes, with settings of `segment_live`.

    Raises:
        MediaError: the source failed; what had come was kept, if it was anything.
        Interrupted: a signal ended it, after its output was completed.
    """
    from avsbg.runtime.errors import MediaError
    from avsbg.runtime.media.sources import parse_source
    from avsbg.runtime.segment.run import segment_live

    sound = None if microphone is None else parse_source(microphone)
    if isinstance(sound, Path):
        raise MediaError(f"{microphone} is no microphone.", "A microphone is named like alsa:default.")
    with interruptible() as interruption, ProgressBars("s") as bars, bars.waiting(OPENING, network()) as segmenter:
        interruption.graceful = True
        summary, failure = segment_live(
            segmenter, source, output, options, stop=interruption.stop, microphone=sound, progress=bars, **settings
        )
        bars.restart()
        _tell(summary, source.name, output)
        if failure is not None:
            raise failure
        if interruption.number is not None:
            raise Interrupted(interruption.number)


def _backend(summary: dict[str, Any]) -> str:
    """The backend as the user named it, and what `auto` made of it."""
    chosen = summary.get("selection")
    return summary["settings"]["target"] + (f" ({chosen['backend']})" if chosen else "")


def _tell(summary: dict[str, Any], source: Path | str, output: Path, *, again: bool = False) -> None:
    """Print what was done, in a few lines."""
    console = plain_console(markup=False)
    if again:
        console.print(f"{output} was finished before; --overwrite does it again")
        return
    spent = summary["seconds_spent"]
    steps = ", ".join(f"{name} {spent[name]:.2f} s" for name in ("inference", "decode", "overlay") if name in spent)
    dropped = f", {summary['dropped_seconds']} s dropped" if summary["dropped_seconds"] else ""
    damaged = summary["video"].get("damaged", {})
    console.print(
        f"{source}: {summary['seconds']} s of video{dropped} through {summary['bundle']['name']} on "
        f"{_backend(summary)} in {spent['total']:.2f} s ({steps}, at the same time)"
    )
    if rate := summary.get("rate"):
        why = f"as many as this machine has time for; --rate {rate['masks']:g} would fix it"
        chosen = f" in the overlay, {why}" if rate["asked"] == "auto" and summary["settings"]["overlay"] else ""
        console.print(f"{source}: {summary['masks']} masks, {rate['masks']:g} a second{chosen}")
    if (made := summary.get("interpolated_masks")) is not None:
        console.print(f"{source}: {made} masks between those of the network are interpolated")
    if left_out := summary.get("masks_left_out"):
        lowest = f"down to {summary['lowest_rate']} a second"
        console.print(f"{source}: {left_out} masks were left out, {lowest}, since the network could not follow")
    if any(damaged.values()):
        ends = " and ends before its stated end" if damaged["cut_short"] else ""
        counts = f"{damaged['video']} packets of frames and {damaged['audio']} of sound"
        console.print(f"{source} is damaged{ends}: {counts} were passed over")
    if steps := summary["video"].get("clock_steps"):
        console.print(f"{source}: steps of its clock that were joined, as players do: {steps}")
    for path in sorted(output.iterdir()):
        console.print(f"  {path}")
