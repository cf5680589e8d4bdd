"""The steps of segmenting a source, at work at the same time: read, infer, write masks, encode the overlay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from avsbg.progress import Progress
from avsbg.runtime.errors import EmptySourceError, MediaError
from avsbg.runtime.media.container import VideoInfo
from avsbg.runtime.media.hwaccel import create_hwaccel
from avsbg.runtime.media.places import EVERY_FRAME, MaskRate, Places, masks_a_second
from avsbg.runtime.media.samples import Sample
from avsbg.runtime.media.tracks import TrackNumbers
from avsbg.runtime.segment.interpolation import InterpolatedMasks
from avsbg.runtime.segment.masks import MaskFormat, MaskWriter, mask_video, mask_writers, save_grey
from avsbg.runtime.segment.overlay import ContactSheet, show_masks, write_overlay
from avsbg.runtime.segment.rate_control import RateControl
from avsbg.runtime.segment.segmenter import Segmented, Segmenter, frame_mask
from avsbg.runtime.threads import Channel, Policy, Prefetch, Worker

Array = NDArray[Any]

FRAMES, OVERLAY, SHEET = "frames.jsonl", "overlay.mp4", "overlay.png"

# Samples that a step may be ahead of the next: enough to even out, and what bounds the memory.
AHEAD = 4


AUTO: Final = "auto"
RateOption: TypeAlias = MaskRate | Literal["auto"]


@dataclass(frozen=True)
class Options:
    """Outputs for a video, and how it is read; it is a `MediaError` if a value is none that there is."""

    threshold: float = 0.5  # a pixel sounds where its probability exceeds this
    silent: bool = False  # give the network silence in place of the soundtrack
    masks: MaskFormat = "png"
    rle: bool = False  # also write masks as COCO's run lengths
    probabilities: bool = False  # also write the network's own maps times 255
    overlay: bool = True  # write the video and the contact sheet with the masks tinted in
    video_track: int | None = None  # its number among the source's; None for the one that players show
    audio_track: int | None = None
    skip_damaged: bool = False  # pass over what cannot be decoded
    rate: RateOption = 1  # masks a second; `auto`: one, and in the overlay as many as this machine has time for
    interpolate: bool = False  # in the overlay and the mask video, between masks: linear in time
    hwaccel: str | None = None  # the hardware decoder of frames, as `create_hwaccel` names it

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold < 1.0:
            raise MediaError(f"the threshold must lie in [0, 1), not be {self.threshold}.")
        if isinstance(self.rate, int):
            masks_a_second(self.rate, None)
        elif self.rate not in (AUTO, EVERY_FRAME):
            raise MediaError(f"{self.rate!r} is no rate of masks.", f"Give a whole number, {EVERY_FRAME} or {AUTO}.")
        if self.interpolate:
            self._check_interpolation()
        if self.hwaccel is not None:
            create_hwaccel(self.hwaccel)

    def _check_interpolation(self) -> None:
        if self.rate == EVERY_FRAME:
            raise MediaError(
                f"at {EVERY_FRAME} nothing lies between masks that could be interpolated.", "Leave it out."
            )
        if not self.shows_frames:
            hint = "Keep the overlay, or write a mask video (--masks video)."
            raise MediaError("PNG files and run lengths are of the network's masks, with nothing between them.", hint)
        if self.rate == AUTO and self.masks == "video":
            problem = f"interpolated masks depend on the rate, and {AUTO} leaves that to the machine."
            raise MediaError(problem, "Name a rate, or leave the mask video out.")

    def check_classes(self, labels: tuple[str, ...]) -> None:
        """Check that the options fit a network of several classes; a `MediaError` if not."""
        decides = f"the network decides between {len(labels)} classes"
        if self.threshold != Options.threshold:
            raise MediaError(f"{decides}, and a threshold does not apply.", "Leave the threshold out.")
        if self.interpolate:
            raise MediaError(f"{decides}, and nothing lies between two of them.", "Do not interpolate.")

    @property
    def shows_frames(self) -> bool:
        """Whether an output has all frames of the video, not only those of masks."""
        return self.overlay or (self.interpolate and self.masks == "video")

    @property
    def track_numbers(self) -> TrackNumbers:
        """The tracks to read."""
        return TrackNumbers(self.video_track, self.audio_track)


@dataclass
class Record:
    """Figures of a run; their size does not depend on the run's length."""

    seconds: int = 0
    masks: int = 0  # of all phases; as many as seconds at one a second
    sounding: int = 0  # seconds with something that sounds
    area: float = 0.0  # the sum of the masks' shares of the frame, and of how many masks
    areas: int = 0
    dropped: int = 0  # seconds that the network had no time for
    left_out: dict[str, int] = field(default_factory=dict)  # of a rate that may fall: `RateControl.counters`
    interpolated: int | None = None  # masks between two of the network's, where asked for
    # Seconds at work by step, without waiting; they overlap, `total` is the clock's.
    timings: dict[str, float] = field(default_factory=dict)
    # The most samples that lay between two steps.
    most_waiting: dict[str, int] = field(default_factory=dict)


def write_outputs(
    segmenter: Segmenter,
    video: VideoInfo,
    samples: Iterator[Sample],
    frames: Iterable[Any],
    directory: Path,
    *,
    options: Options,
    progress: Progress | None = None,
    policy: Policy = "block",
    packets: Channel[Any] | None = None,
    places: Places | None = None,
) -> Record:
    """Read, infer, write masks and encode the overlay, each in a thread and at most a few seconds ahead of the next.

    Args:
        segmenter: the network.
        video: the source; `samples` are its seconds and `frames` its decoded frames and sound, for the overlay.
        directory: the place for the files that `options` ask for.
        progress: called as work goes on, from several threads.
        policy: let a source wait that is too fast, or lose its oldest seconds.
        packets: of a live source, what `frames` waits for, to be broken off with everything else.
        places: those that `samples` are of, at several masks a second.

    Raises:
        EmptySourceError: there was no sample at all.
        AvsbgError: the first error of any step; all have stopped by then.
        OSError, av.FFmpegError: a file could not be written.
    """
    report = progress or (lambda *_: None)
    labels = segmenter.bundle.manifest.labels
    if labels:
        options.check_classes(labels)
    expected = None if video.duration is None else max(1, int(video.duration + Fraction(1, 2)))
    record, sheet, start, inference = Record(), ContactSheet(video.pixel_aspect, labels), time.perf_counter(), 0.0
    reached = 0  # seconds of the source

    def encode(masks: Iterator[Any]) -> None:
        record.interpolated = _show_frames(
            video, frames, directory, masks,
            options=options, places=places, progress=lambda done: report("overlay", done, expected),
            fragments=packets is not None, labels=labels,
        )  # fmt: skip

    def hand_on(result: Segmented, mask: Array) -> None:
        sample = result.sample
        if options.overlay and sample.phase == 0:
            sheet.add(sample.second, sample.pixels, mask)
        if overlay is not None:
            overlay.put(result if options.interpolate else (sample.number, mask))
        report("segmenting", record.seconds, expected)

    def write(results: Iterator[Segmented]) -> None:
        _write_results(
            results, directory, video,
            options=options, writers=writers, record=record, hand_on=hand_on, labels=labels,
        )  # fmt: skip

    with ExitStack() as stack:
        masks = "none" if options.interpolate and options.masks == "video" else options.masks
        writers = stack.enter_context(mask_writers(directory, video, masks, options.rle, labels))
        reader, control = read_ahead(samples, policy, places)
        stack.enter_context(reader)
        overlay = stack.enter_context(Worker(encode, AHEAD)) if options.shows_frames else None
        writer = stack.enter_context(Worker(write, AHEAD))
        between = None if overlay is None else overlay.channel
        channels: list[Channel[Any] | None] = [reader.channel, writer.channel, between, packets]
        # All steps are told before any is waited for.
        for channel in channels:
            if channel is not None:
                stack.callback(channel.abort)
        report("segmenting", 0, expected)
        segmenter.reset()
        for sample in chain(reader, [None]):
            reached = reached if sample is None else max(reached, sample.second + 1)
            began = time.perf_counter()
            segmented = list(segmenter.finish() if sample is None else segmenter.push(sample))
            inference += time.perf_counter() - began
            for result in segmented:
                writer.put(result)
        writer.finish()
        if not record.seconds:
            raise EmptySourceError(f"{video.path} ended before a second of it had come.")
        record.timings = {"decode": reader.busy, "inference": inference, "write_masks": writer.busy}
        if overlay is not None:
            overlay.finish()
            if options.overlay:
                sheet.save(directory / SHEET)
            record.timings["overlay"] = overlay.busy
            record.timings["write_masks"] -= overlay.channel.blocked
    record.timings["total"] = time.perf_counter() - start
    record.most_waiting = {"read": reader.channel.most, "segmented": writer.channel.most}
    _count_dropped(record, reader.channel.dropped, reached, control)
    return record


def _show_frames(
    video: VideoInfo,
    frames: Iterable[Any],
    directory: Path,
    masks: Iterator[Any],
    *,
    options: Options,
    places: Places | None,
    progress: Callable[[int], None],
    fragments: bool,
    labels: tuple[str, ...],
) -> int | None:
    """Write what has all frames of the video, its masks held or interpolated; returns how many were made."""
    between: InterpolatedMasks | None = None
    with ExitStack() as stack:
        keep = None
        if options.interpolate:
            assert places is not None
            between = InterpolatedMasks(masks, places, options.threshold, (video.width, video.height), progress)
            if options.masks == "video":
                keep = stack.enter_context(mask_video(directory, video))
        if options.overlay:
            write_overlay(
                video, frames, directory / OVERLAY, between or masks,
                progress=progress, fragments=fragments, labels=labels, places=places, keep=keep,
            )  # fmt: skip
        elif between is not None and keep is not None:
            for _, begin, _, mask in show_masks(video, frames, between, places):
                if mask is not None:
                    keep(begin, mask)
    for _ in masks:  # those beyond the last frame, of phases that end in the middle of a second
        pass
    return None if between is None else between.made


def _count_dropped(record: Record, dropped: int, reached: int, control: RateControl | None) -> None:
    """Count what a source of so many seconds lost with its dropped samples, of which several may be of one second."""
    if dropped:
        record.dropped = reached - record.seconds
    if control is not None:
        control.left_out += dropped
        record.left_out = control.counters


def read_ahead(
    samples: Iterator[Sample], policy: Policy, places: Places | None
) -> tuple[Prefetch[Sample], RateControl | None]:
    """Make the thread that reads samples, not yet started; what controls their rate, where they are not to wait.

    Args:
        samples, policy, places: as of `write_outputs`.
    """
    if places is None or places.phases == 1 or policy == "block":
        return Prefetch(samples, AHEAD, policy), None
    control = RateControl(places.phases, lambda: len(reader.channel), AHEAD - 1)
    reader = Prefetch(control.passed(samples), AHEAD, policy)
    return reader, control


def _write_results(
    results: Iterator[Segmented],
    directory: Path,
    video: VideoInfo,
    *,
    options: Options,
    writers: list[MaskWriter],
    record: Record,
    hand_on: Callable[[Segmented, Array], None],
    labels: tuple[str, ...],
) -> None:
    """Make masks in the video's size, bool or of classes, of what the network says; write, count, and hand them on."""
    maps = directory / "probabilities"
    if options.probabilities:
        maps.mkdir()
    with (directory / FRAMES).open("w", encoding="utf-8") as lines:
        for result in results:
            sample, probability = result.sample, result.probability
            mask = frame_mask(result, options.threshold, (video.width, video.height)).mask
            record.masks += 1
            if options.rate == AUTO and sample.phase:  # for the overlay alone
                hand_on(result, mask)
                continue
            # Names, times and numbers of what is written do not depend on the rate that the machine reaches.
            written = replace(sample, number=sample.second, place=None) if options.rate == AUTO else sample
            for write in writers:
                write(written, mask)
            if options.probabilities:
                save_grey(maps, written, np.rint(probability * 255).astype(np.uint8))
            area, highest = float((mask > 0).mean()), float(probability.max())
            line: dict[str, Any] = {"second": sample.second, "time": round(float(sample.time), 6)}
            line |= {"mask_area": area, "highest_probability": highest}
            if labels:
                areas = np.bincount(mask.ravel(), minlength=len(labels)) / mask.size
                line["class_areas"] = {labels[number]: float(areas[number]) for number in np.flatnonzero(areas)}
            lines.write(json.dumps(line) + "\n")
            record.areas += 1
            record.area += area
            if sample.phase == 0:
                record.seconds += 1
                record.sounding += area > 0
            hand_on(result, mask)
