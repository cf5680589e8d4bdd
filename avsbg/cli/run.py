"""`avsbg run`: a video in, masks and an overlay out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbg.cli import app
from avsbg.cli.backends import BACKEND_HELP, create_backend


@app.command()
def run(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, typer.Argument(help="The bundle, a directory that `avsbg export` made.")],
    video: Annotated[Path, typer.Argument(help="The video, anything that FFmpeg reads.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The directory to create.")],
    backend: Annotated[str, typer.Option(help=f"What executes the network: {BACKEND_HELP}.")] = "onnxruntime",
    operator: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="How onnxruntime executes the correlation: function (the default), native (our kernel), plain.",
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="A pixel sounds where its probability exceeds this.")] = 0.5,
    silent: Annotated[bool, typer.Option("--silent", help="Give the network silence, not the soundtrack.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the network's probabilities as grey PNG files.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; by default the backend's choice.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output of an earlier run.")] = False,
) -> None:
    """Segment what sounds in a video.

    DIR receives masks/ (a PNG per second in the video's size, 255 where it sounds), overlay.mp4 (the video with the
    masks tinted in, sound kept), overlay.png (the seconds at a glance) and summary.json. It appears only when complete.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.segment import segment_video

    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TextColumn("s"))
    bars = Progress(*columns, TimeElapsedColumn(), console=errors)
    tasks: dict[str, TaskID] = {}

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage)
            bars.start()
        bars.update(tasks[stage], completed=done, total=total)

    with errors.status(f"opening {bundle}"):
        opened = create_backend(backend, Bundle.open(bundle), operator=operator, threads=threads)
    try:
        with opened:
            summary = segment_video(
                opened,
                video,
                output,
                threshold=threshold,
                silent=silent,
                probabilities=probabilities,
                replace=force,
                progress=progress,
            )
    finally:
        bars.stop()
    spent = summary["seconds_spent"]
    console.print(
        f"{len(summary['frames'])} s of video, {len(summary['windows'])} clips through {summary['bundle']['name']} "
        f"on {backend}: inference {spent['inference']:.2f} s, decoding {spent['decode']:.2f} s, "
        f"overlay {spent['overlay']:.2f} s"
    )
    for name in ("overlay.png", "overlay.mp4", "masks", "summary.json"):
        console.print(f"  {output / name}")
