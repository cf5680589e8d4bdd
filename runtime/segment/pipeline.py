"""The stages of segmenting a source, at work at the same time: read, infer, write masks, encode the overlay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg.runtime.errors import EmptySourceError, MediaError
from avsbg.runtime.media.container import VideoInfo
from avsbg.runtime.media.samples import Second
from avsbg.runtime.segment.masks import MaskFormat, MaskWriter, mask_writers, numbered, save_grey
from avsbg.runtime.segment.overlay import ContactSheet, write_overlay
from avsbg.runtime.segment.segmenter import Segmented, Segmenter
from avsbg.runtime.threads import Channel, Policy, Prefetch, Worker

Array = NDArray[Any]
# (stage, seconds of video done, seconds in all or None while unknown)
Progress = Callable[[str, int, int | None], None]

FRAMES, OVERLAY, SHEET = "frames.jsonl", "overlay.mp4", "overlay.png"

# Seconds that a stage may be ahead of the next: enough to even out, and what bounds the memory.
AHEAD = 4


@dataclass(frozen=True)
class Options:
    """What is made of a video.

    Attributes:
        threshold: a pixel sounds where its probability exceeds this.
        silent: give the network silence in place of the soundtrack.
        masks: how masks are written.
        rle: also write them as COCO's run lengths.
        probabilities: also write the network's own maps times 255.
        overlay: write the video and the contact sheet with the masks tinted in.
        target: what executes the network, as the user named it.
        stream: as a stream rather than clip by clip.

    Raises:
        MediaError: the threshold is out of range.
    """

    threshold: float = 0.5
    silent: bool = False
    masks: MaskFormat = "png"
    rle: bool = False
    probabilities: bool = False
    overlay: bool = True
    target: str = ""
    stream: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold < 1.0:
            raise MediaError(f"the threshold must lie in [0, 1), not be {self.threshold}.")


class Record:
    """What is known of a run; its size does not depend on the run's length.

    Attributes:
        seconds, sounding: how many there were, and how many with something that sounds.
        area: the sum of the mask's shares of the picture.
        dropped: seconds that the network had no time for.
        timings: seconds at work by stage, without waiting; they overlap, `total` is the clock's.
        most_waiting: the most seconds of video that lay between two stages.
    """

    def __init__(self) -> None:
        self.seconds = self.sounding = self.dropped = 0
        self.area = 0.0
        self.timings: dict[str, float] = {}
        self.most_waiting: dict[str, int] = {}


def write_outputs(
    segmenter: Segmenter,
    video: VideoInfo,
    seconds: Iterator[Second],
    frames: Iterable[Any],
    directory: Path,
    *,
    options: Options,
    progress: Progress | None = None,
    policy: Policy = "block",
    copies: Channel[Any] | None = None,
) -> Record:
    """Read, infer, write masks and encode the overlay, each in a thread and at most a few seconds ahead of the next.

    Args:
        segmenter: the network.
        video: what is known of the source.
        seconds: the source, second by second.
        frames: its decoded pictures and sound, for the overlay.
        directory: where the files go.
        options: which ones.
        progress: called as work goes on, from several threads.
        policy: let a source wait that is too fast, or lose its oldest seconds.
        copies: of a live source, what `frames` waits for, to be broken off with everything else.

    Raises:
        EmptySourceError: there was no second at all.
        AvsbgError: the first error of any stage; all have stopped by then.
        OSError, av.FFmpegError: a file could not be written.
    """
    report = progress or (lambda *_: None)
    record, expected, start = Record(), _expected_seconds(video), time.perf_counter()
    inference = 0.0
    with ExitStack() as stack:
        writers = stack.enter_context(mask_writers(directory, video, options.masks, options.rle))
        reader = stack.enter_context(Prefetch(seconds, AHEAD, policy))
        overlay = None
        if options.overlay:

            def encode(masks: Iterator[tuple[int, Array]]) -> None:
                write_overlay(
                    video, frames, directory / OVERLAY, masks,
                    progress=lambda done: report("overlay", done, expected), fragments=copies is not None,
                )  # fmt: skip

            overlay = stack.enter_context(Worker(encode, AHEAD))
        sink = _Sink(directory, video, options, record)
        sink.writers, sink.overlay = writers, overlay
        sink.report = lambda done: report("segmenting", done, expected)
        writer = stack.enter_context(Worker(sink.consume, AHEAD))
        channels: list[Channel[Any]] = [stage.channel for stage in (reader, overlay, writer) if stage is not None]
        channels += [copies] if copies is not None else []
        # All stages are told before any is waited for.
        for channel in channels:
            stack.callback(channel.abort)
        report("segmenting", 0, expected)
        segmenter.reset()
        for second in chain(reader, [None]):
            began = time.perf_counter()
            results = list(segmenter.finish() if second is None else segmenter.push(second))
            inference += time.perf_counter() - began
            for result in results:
                writer.put(result)
        writer.finish()
        if not record.seconds:
            raise EmptySourceError(f"{video.path} ended before a second of it had come.")
        record.timings = {"decode": reader.busy, "inference": inference, "write_masks": writer.busy}
        if overlay is not None:
            overlay.finish()
            sink.sheet.save(directory / SHEET)
            record.timings["overlay"] = overlay.busy
            record.timings["write_masks"] -= overlay.channel.blocked
    record.timings["total"] = time.perf_counter() - start
    record.most_waiting = {"read": reader.channel.most, "segmented": writer.channel.most}
    record.dropped = reader.channel.dropped
    return record


class _Sink:
    """Makes masks of what the network says, writes them, and hands them to the overlay."""

    def __init__(self, directory: Path, video: VideoInfo, options: Options, record: Record) -> None:
        self._directory, self._video, self._options, self._record = directory, video, options, record
        self.writers: list[MaskWriter] = []
        self.overlay: Worker[tuple[int, Array]] | None = None
        self.sheet = ContactSheet()
        self.report: Callable[[int], None] = lambda _: None

    def consume(self, results: Iterator[Segmented]) -> None:
        """Work through what the network says."""
        maps = self._directory / "probabilities"
        if self._options.probabilities:
            maps.mkdir()
        with (self._directory / FRAMES).open("w", encoding="utf-8") as lines:
            for result in results:
                shown, mask = result.shown, _mask(result.probability, self._options.threshold, self._video)
                for writer in self.writers:
                    writer.add(shown, mask)
                if self._options.probabilities:
                    save_grey(numbered(maps, shown.second), np.rint(result.probability * 255).astype(np.uint8))
                area = float(mask.mean())
                line = {
                    "second": shown.second,
                    "time": round(float(shown.time), 6),
                    "mask_area": area,
                    "highest_probability": float(result.probability.max()),
                }
                lines.write(json.dumps(line) + "\n")
                if self.overlay is not None:
                    self.sheet.add(shown.second, shown.pixels, mask)
                    self.overlay.put((shown.second, mask))
                self._record.seconds += 1
                self._record.sounding += area > 0
                self._record.area += area
                self.report(self._record.seconds)


def _mask(probability: Array, threshold: float, video: VideoInfo) -> Array:
    """The network's decisions, bool, in the video's size."""
    decided = Image.fromarray((probability > threshold).astype(np.uint8))
    return np.asarray(decided.resize((video.width, video.height), Image.Resampling.NEAREST)) > 0


def _expected_seconds(video: VideoInfo) -> int | None:
    return None if video.duration is None else max(1, int(video.duration + Fraction(1, 2)))
