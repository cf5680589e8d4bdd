"""`avsbg run`: videos, cameras and network streams in, masks and overlays out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from avsbg.cli import RUN, app
from avsbg.cli.backends import join_names
from avsbg.cli.options import (
    MODE_HELP,
    AllowFailedAccuracy,
    Backend,
    BundlePath,
    Device,
    Engine,
    Hwaccel,
    Implementation,
    Masks,
    NoOverlay,
    NoSound,
    Overwrite,
    Precision,
    RunLengths,
    Threads,
    Threshold,
    Trust,
)


@app.command(rich_help_panel=RUN)
def run(  # noqa: PLR0917  (each is an option by name)
    bundle: BundlePath,
    sources: Annotated[
        list[str],
        Argument(
            metavar="SOURCE",
            help="Videos in any format that FFmpeg reads, and folders of them; or one live source: an address "
            "(rtsp://, udp://, http://, ...) or a camera (v4l2:/dev/video0).",
        ),
    ],
    output: Annotated[Path, Option("-o", "--output", metavar="DIR", help="The directory to create.")],
    backend: Backend = "auto",
    implementation: Implementation = None,
    precision: Precision = None,
    threshold: Threshold = 0.5,
    no_sound: NoSound = False,
    masks: Masks = "png",
    rle: RunLengths = False,
    no_overlay: NoOverlay = False,
    probabilities: Annotated[
        bool, Option("--probabilities", help="Also write the network's probabilities, as grey PNG files.")
    ] = False,
    rate: Annotated[
        str,
        Option(
            metavar="R|every-frame|auto",
            envvar="AVSBG_RATE",
            help="Masks per second. auto: one; in the overlay of a file as many as this machine computes in the "
            "video's duration.",
        ),
    ] = "auto",
    interpolate: Annotated[
        bool,
        Option(
            "--interpolate",
            help="Interpolate probabilities between masks, in the overlay and in masks.mkv.",
        ),
    ] = False,
    mode: Annotated[
        Literal["clip", "stream"] | None,
        Option(help=f"{MODE_HELP} for files, and stream for live sources if the bundle has the graphs."),
    ] = None,
    microphone: Annotated[
        str | None, Option(metavar="SOURCE", help="The sound of a camera, e.g. alsa:default.")
    ] = None,
    duration: Annotated[
        float | None, Option(min=1, metavar="SECONDS", help="Stop a live source after this time.")
    ] = None,
    policy: Annotated[
        Literal["block", "drop-oldest"] | None,
        Option(
            help="If a live source is faster than the network: block it, or drop seconds. By default http, https, tcp "
            "and lavfi block, all others drop."
        ),
    ] = None,
    video_track: Annotated[
        int | None,
        Option(min=0, metavar="N", help="Use video track N, counted from 0. By default the one that players show."),
    ] = None,
    audio_track: Annotated[
        int | None,
        Option(min=0, metavar="N", help="Use sound track N, counted from 0. By default the one that players play."),
    ] = None,
    skip_damaged: Annotated[
        bool,
        Option("--skip-damaged", help="Skip and count frames and sound that cannot be decoded."),
    ] = False,
    hwaccel: Hwaccel = None,
    device: Device = None,
    threads: Threads = None,
    engine: Engine = None,
    trust: Trust = False,
    allow_failed_accuracy: AllowFailedAccuracy = False,
    overwrite: Overwrite = False,
) -> None:
    """Segment what sounds in videos and live sources.

    DIR receives masks/ (a PNG per second in the video's size, 255 where it sounds), overlay.mp4 (the video with its
    sound and the masks tinted in), overlay.png (all seconds on one sheet), frames.jsonl and summary.json. With several
    videos, each has such a directory in DIR. A directory appears only when it is complete; the same command again
    skips complete ones. Ctrl-C ends a live source, and what was received until then is completed and kept.
    """
    from avsbg.api import open_segmenter
    from avsbg.cli.backends import show_messages
    from avsbg.cli.run_sources import run_files, run_live
    from avsbg.runtime.errors import MediaError
    from avsbg.runtime.media.sources import LiveSource, parse_source
    from avsbg.runtime.segment.pipeline import Options

    chosen: Any = int(rate) if rate.isdecimal() else rate
    options = Options(
        threshold, no_sound, masks, rle, probabilities, not no_overlay,
        video_track, audio_track, skip_damaged, chosen, interpolate, hwaccel,
    )  # fmt: skip
    parsed = [parse_source(source) for source in sources]
    live = [source for source in parsed if isinstance(source, LiveSource)]
    if live and len(parsed) > 1:
        raise MediaError(f"{live[0].name} is a live source, and those run alone.", "Give each its own command.")
    for name, value in {"--microphone": microphone, "--duration": duration, "--policy": policy}.items():
        if value is not None and not live:
            raise MediaError(f"{name} is for live sources, and {sources[0]} is none.")
    how = {
        "device": device,
        "threads": threads,
        "engine": engine,
        "trust": trust,
        "allow_failed_accuracy": allow_failed_accuracy,
    }
    spec, stream = join_names(backend, implementation, precision), None if mode is None else mode == "stream"
    show_messages()
    network = partial(open_segmenter, bundle, spec, stream=stream, live=bool(live), rate=options.rate, **how)
    if live:
        settings = {"duration": duration, "policy": policy, "replace": overwrite}
        run_live(network, live[0], output, options, microphone=microphone, **settings)
    else:
        run_files(network, [source for source in parsed if isinstance(source, Path)], output, options, force=overwrite)
