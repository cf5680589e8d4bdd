"""What `avsbg run` does with files and with live sources, and what it tells about them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from avsbg.progress import ProgressBars

if TYPE_CHECKING:
    from avsbg.runtime.media.sources import LiveSource
    from avsbg.runtime.segment.batch import BatchResult, Clip
    from avsbg.runtime.segment.pipeline import Options
    from avsbg.runtime.segment.segmenter import Segmenter
    from avsbg.runtime.threads import Policy

Network = AbstractContextManager["Segmenter"]

OPENING = "opening the bundle"


def run_files(network: Network, sources: list[Path], output: Path, options: Options, *, force: bool) -> None:
    """Segment files and folders of files.

    Raises:
        MediaError: several of many failed; typer.Exit: the only one did, and its error was printed.
    """
    from avsbg.runtime.errors import MediaError
    from avsbg.runtime.segment.batch import find_clips, run_batch
    from avsbg.runtime.segment.interruption import Interrupted, interruptible

    clips = find_clips(sources, output)
    many = clips[0].output != output
    outcomes: list[BatchResult] = []
    with interruptible(), ProgressBars("s") as bars:

        def report(outcome: BatchResult) -> None:
            bars.restart()
            outcomes.append(outcome)
            if outcome.error is not None:
                bars.console.print("[bold red]error:[/] ", end="")
                bars.console.print(outcome.error, markup=False)
            elif outcome.summary is not None:
                _tell(outcome.summary, outcome.clip.path, outcome.clip.output, again=outcome.state != "done")

        with bars.waiting(OPENING, network) as segmenter:
            try:
                run_batch(segmenter, clips, options, redo=force, progress=bars, report=report)
            except Interrupted:
                done = sum(outcome.state in {"done", "finished before"} for outcome in outcomes)
                bars.console.print(
                    f"interrupted; {done} of {len(clips)} finished and kept, nothing half-written", markup=False
                )
                raise
            finally:
                if many:
                    _report(output, clips, outcomes, bars)
    failed = [str(outcome.clip.path) for outcome in outcomes if outcome.error is not None]
    if failed and many:
        raise MediaError(
            f"{len(failed)} of {len(clips)} videos failed: {', '.join(failed)}.",
            f"The reasons stand above and in {output / 'batch.json'}; run the same command again for those alone.",
        )
    if failed:
        raise typer.Exit(1)


def _report(output: Path, clips: list[Clip], outcomes: list[BatchResult], bars: ProgressBars) -> None:
    """Write `batch.json`; on a full disk this is not the error that the user should see."""
    from avsbg.runtime.segment.batch import REPORT, write_report

    try:
        write_report(output, clips, outcomes)
    except OSError as error:
        bars.console.print(f"{output / REPORT} was not written: {error.strerror}", markup=False)


def run_live(
    network: Network,
    source: LiveSource,
    output: Path,
    options: Options,
    microphone: str | None,
    *,
    duration: float | None,
    policy: Policy | None,
    force: bool,
) -> None:
    """Segment a live source until it ends, a signal comes, or `duration` has passed.

    Raises:
        MediaError: the source failed; what had come was kept, if it was anything.
        Interrupted: a signal ended it, after its output was completed.
    """
    from avsbg.runtime.errors import MediaError
    from avsbg.runtime.media.sources import parse_source
    from avsbg.runtime.segment.interruption import Interrupted, interruptible
    from avsbg.runtime.segment.run import segment_live

    sound = None if microphone is None else parse_source(microphone)
    if isinstance(sound, Path):
        raise MediaError(f"{microphone} is no microphone.", "A microphone is named like alsa:default.")
    with interruptible() as interruption, ProgressBars("s") as bars, bars.waiting(OPENING, network) as segmenter:
        interruption.graceful = True
        summary, failure = segment_live(
            segmenter,
            source,
            output,
            options,
            stop=interruption.stop,
            microphone=sound,
            duration=duration,
            policy=policy,
            replace=force,
            progress=bars,
        )
        bars.restart()
        _tell(summary, source.name, output)
        if failure is not None:
            raise failure
        if interruption.number is not None:
            raise Interrupted(interruption.number)


def _tell(summary: dict[str, Any], source: Path | str, output: Path, *, again: bool = False) -> None:
    """What was done, in a few lines."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False)
    if again:
        console.print(f"{output} was finished before; --force does it again")
        return
    spent = summary["seconds_spent"]
    stages = ", ".join(f"{name} {spent[name]:.2f} s" for name in ("inference", "decode", "overlay") if name in spent)
    dropped = f", {summary['dropped_seconds']} s dropped" if summary["dropped_seconds"] else ""
    console.print(
        f"{source}: {summary['seconds']} s of video{dropped} through {summary['bundle']['name']} on "
        f"{summary['settings']['target']} in {spent['total']:.2f} s ({stages}, at the same time)"
    )
    for path in sorted(output.iterdir()):
        console.print(f"  {path}")
