"""A source segmented: masks, an overlay video, a contact sheet and a summary, in a directory of their own."""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from avsbg import __version__
from avsbg.atomic import atomic_directory
from avsbg.progress import Progress
from avsbg.runtime.bundle import sha256
from avsbg.runtime.bundle.manifest import Manifest
from avsbg.runtime.errors import EmptySourceError, MediaError, OutputError
from avsbg.runtime.media.container import Damage, VideoInfo, probe
from avsbg.runtime.media.live import LiveReader
from avsbg.runtime.media.places import HIGHEST_RATE, Places, masks_a_second
from avsbg.runtime.media.samples import read_samples
from avsbg.runtime.media.sources import LiveSource
from avsbg.runtime.segment.overlay import decode_all
from avsbg.runtime.segment.pipeline import AUTO, Options, RateOption, Record, write_outputs
from avsbg.runtime.segment.segmenter import InterleavedSegmenter, Segmenter
from avsbg.runtime.threads import Channel, Policy

SUMMARY = "summary.json"


def segment_video(
    segmenter: Segmenter,
    path: Path,
    output: Path,
    options: Options,
    *,
    replace: bool = False,
    identify: Callable[[], dict[str, str]] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a network over a video file and write what it finds to the directory `output`.

    Written are, each if asked for: `masks/00000.png` and so on, one per second in the video's size, 255 where something
    sounds (each pixel has the decision of the nearest pixel of the network's map), or the same as `masks.mkv`;
    `masks.coco.json`; `overlay.mp4` and `overlay.png`; `probabilities/00000.png`; and always `frames.jsonl` with a line
    for each second, and `summary.json`.

    Args:
        segmenter: the network.
        path: the video.
        output: the directory to make; it appears only when complete.
        options: the outputs asked for.
        replace: replace `output` if it is an earlier run's.
        identify: returns what the summary names the file by, when all is written: its `sha256`, and a `key` for whoever
            wants to know whether this was done before. By default it is hashed then.
        progress: called as work goes on, from several threads.

    Returns:
        The summary, as written to `summary.json`.

    Raises:
        MediaError: the video cannot be read, lacks the sound that the network uses, or `output` exists or cannot be
            written.
        BackendError: the network failed, or returned NaN.
    """
    check_output(output, replace=replace)
    manifest = segmenter.bundle.manifest
    damage = Damage() if options.skip_damaged else None
    # Sound that the network does not get is no reason to refuse a file: the overlay goes without what is damaged of it.
    unheard = None if manifest.uses_audio and not options.silent else Damage(tolerated=("audio",))
    overlay_damage = Damage() if options.skip_damaged else unheard
    # Damage that is skipped here is met again, and counted, when the file is read.
    video = probe(path, options.track_numbers, Damage() if options.skip_damaged else None, options.hwaccel)
    rate = choose_rate(segmenter, options, video.rate or video.mean_rate)
    samples = read_samples(video, manifest, silent=options.silent, damage=damage, rate=rate.masks)
    places = make_places(rate.masks, manifest, video.rate, always=options.interpolate)
    with output_directory(output, replace=replace) as directory:
        frames = decode_all(video, overlay_damage)
        record = write_outputs(
            segmenter, video, samples, frames, directory, options=options, progress=progress, places=places
        )
        damaged = _count_damage(damage, overlay_damage)
        identity: dict[str, Any] = {"sha256": sha256(path), "key": None} if identify is None else identify()
        source = {**identity, "clock_steps": video.clock.steps, "damaged": damaged}
        return write_summary(directory, segmenter, video, options=options, record=record, source=source, rate=rate)


# The part of the machine's time that masks may take where their rate is left to it: the rest is for decoding the video
# twice and encoding the overlay.
SHARE = 0.5


@dataclass(frozen=True)
class ChosenRate:
    """The rate of masks of a run, and what it follows from."""

    masks: Fraction  # a second
    asked: RateOption
    seconds_per_mask: float | None = None  # on this machine, where the rate was left to it

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "masks": round(float(self.masks), 6)}


def choose_rate(segmenter: Segmenter, options: Options, frame_rate: Fraction | None) -> ChosenRate:
    """The rate of masks that the options ask for, in a source of so many frames a second.

    `auto` is one a second, and for an overlay as many as the machine makes in at most the video's own duration.
    """
    if options.rate != AUTO:
        return ChosenRate(masks_a_second(options.rate, frame_rate), options.rate)
    if not options.overlay or not isinstance(segmenter, InterleavedSegmenter):
        return ChosenRate(Fraction(1), AUTO)
    seconds = segmenter.measure()
    most = min(SHARE / seconds, HIGHEST_RATE) if seconds else HIGHEST_RATE
    masks = frame_rate if frame_rate and most >= frame_rate else Fraction(int(most))
    return ChosenRate(max(Fraction(1), masks), AUTO, round(seconds, 6))


def make_places(
    rate: Fraction, manifest: Manifest, frame_rate: Fraction | None, *, always: bool = False
) -> Places | None:
    """The places of masks at several a second; None at one, unless `always`."""
    if rate == 1 and not always:
        return None
    return Places(rate, manifest.clip.frames, manifest.preprocessing.frame_offset, frame_rate)


def _count_damage(*readers: Damage | None) -> dict[str, Any]:
    """Packets that could not be decoded; each reader of a file comes across the same ones."""
    found = [damage for damage in readers if damage is not None]
    counts = {kind: max((getattr(damage, kind) for damage in found), default=0) for kind in ("video", "audio")}
    return {**counts, "cut_short": any(damage.cut_short for damage in found)}


def segment_live(
    segmenter: Segmenter,
    source: LiveSource,
    output: Path,
    options: Options,
    *,
    stop: threading.Event,
    microphone: LiveSource | None = None,
    duration: float | None = None,
    policy: Policy | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], MediaError | None]:
    """Run a network over a camera or a network stream until it ends, `stop` is set or `duration` has passed.

    What had come by then is completed and kept, also if the source failed.

    Args:
        segmenter, output, options, replace, progress: as of `segment_video`.
        source: where the frames come from, and the sound unless there is a `microphone`.
        stop: set it to end.
        microphone: where the sound comes from instead.
        duration: seconds after which to end.
        policy: let a source wait that is too fast, or lose its oldest seconds; by default it waits if it can.

    Returns:
        The summary, and what the source failed with, if it did.

    Raises:
        MediaError: the source cannot be opened, gave nothing, or lacks the sound that the network uses.
        BackendError: the network failed, or returned NaN.
    """
    check_output(output, replace=replace)
    manifest = segmenter.bundle.manifest
    policy = policy or source.policy
    with LiveReader(
        source, microphone, stop=stop, duration=duration, numbers=options.track_numbers, hwaccel=options.hwaccel
    ) as reader:
        if not reader.video.has_audio and manifest.uses_audio and not options.silent:
            hint = "Name a microphone with --microphone, or use --no-sound to run it with silence."
            raise MediaError(f"{source.name} has no sound, and the network uses audio.", hint)
        packets: Channel[Any] | None = Channel(None) if options.shows_frames else None
        rate = ChosenRate(Fraction(1), AUTO)  # what a live source has time for shows while it runs
        if options.rate != AUTO:
            rate = choose_rate(segmenter, options, reader.video.mean_rate)
        samples = reader.samples(manifest, silent=options.silent, packets=packets, rate=rate.masks)
        frames = reader.frames(packets) if packets is not None else ()
        with output_directory(output, replace=replace) as directory:
            try:
                record = write_outputs(
                    segmenter, reader.video, samples, frames, directory,
                    options=options, progress=progress, policy=policy, packets=packets,
                    places=make_places(rate.masks, manifest, None, always=options.interpolate),
                )  # fmt: skip
            except EmptySourceError as error:
                raise reader.failure or error from None
            live = {
                "ended": "stopped" if stop.is_set() else str(reader.failure or "by itself"),
                "policy": policy,
                "microphone": microphone and microphone.name,
                **asdict(reader.counters),
            }
            summary = write_summary(
                directory, segmenter, reader.video, options=options, record=record, source={"live": live}, rate=rate
            )
    return summary, reader.failure


def check_output(output: Path, *, replace: bool, holds: str = SUMMARY) -> None:
    """Check that `output` may be made; an earlier run's is known by the file that it `holds`."""
    if output.exists() and not replace:
        raise MediaError(f"{output} exists already.", "Choose another directory, or replace it with --overwrite.")
    if output.exists() and not (output / holds).is_file():
        raise MediaError(f"{output} exists and holds no earlier run, so it is not replaced.", "Choose another path.")


@contextmanager
def output_directory(output: Path, *, replace: bool) -> Iterator[Path]:
    """`atomic_directory`, whose failures, such as a full disk, are a user's errors."""
    try:
        with atomic_directory(output, replace=replace) as directory:
            yield directory
    except (OSError, av.FFmpegError) as error:
        problem = f"the output {output} cannot be written: {error.strerror or error}; nothing of it was kept."
        raise OutputError(problem, "Make room, or choose a directory elsewhere with -o.") from error


def write_summary(
    directory: Path,
    segmenter: Segmenter,
    video: VideoInfo,
    *,
    options: Options,
    record: Record,
    source: dict[str, Any],
    rate: ChosenRate,
) -> dict[str, Any]:
    """Write `summary.json`: the network, the source, the settings, and the outcome in a few figures.

    What else is known of the source, `source`, becomes part of `video`. Returns the summary.
    """
    bundle = segmenter.bundle
    versions = {"python": platform.python_version(), "numpy": np.__version__, "av": av.__version__}
    summary = {
        "bundle": {"name": bundle.manifest.name, "manifest_sha256": bundle.manifest_sha256},
        "video": {
            "file": video.path.name if isinstance(video.path, Path) else video.path,
            "width": video.width,
            "height": video.height,
            "frame_rate": "variable" if video.rate is None else float(video.rate),
            "has_sound": video.has_audio,
            "tracks": asdict(video.tracks),
            **source,
        },
        "settings": settings(segmenter, options),
        **({} if segmenter.selection is None else {"selection": segmenter.selection.to_dict()}),
        "backend": segmenter.describe(),
        "versions": {"avsbg": __version__, **versions},
        **({} if rate.asked == 1 else {"rate": rate.to_dict()}),
        "seconds": record.seconds,
        "masks": record.masks,
        **({} if record.interpolated is None else {"interpolated_masks": record.interpolated}),
        "sounding_seconds": record.sounding,
        "mean_mask_area": record.area / record.areas if record.areas else 0.0,
        "seconds_spent": {step: round(spent, 4) for step, spent in record.timings.items()},
        "most_waiting": record.most_waiting,
        "dropped_seconds": record.dropped,
        **record.left_out,
    }
    (directory / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def settings(segmenter: Segmenter, options: Options) -> dict[str, Any]:
    """Settings of a run, as `summary.json` has them."""
    # Settings that earlier versions lacked are left out if they have no effect, so that older outputs are recognised.
    later = {"video_track", "audio_track", "skip_damaged", "rate", "interpolate", "hwaccel"}
    given = asdict(options)
    chosen = {name: value for name, value in given.items() if name not in later or value != getattr(Options, name)}
    return {**chosen, "target": segmenter.spec, "stream": segmenter.mode == "stream"}
