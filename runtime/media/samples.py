"""From a video to a network's inputs: windows of T seconds, each with T frames and T seconds of sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.bundle.manifest import ClipRecord, GraphRecord, PreprocessingRecord
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.audio import Sound
from avsbg.runtime.media.container import VideoInfo
from avsbg.runtime.media.log_mel import PATCH_HOP, PATCH_SAMPLES, log_mel
from avsbg.runtime.media.video import SampledFrame, frame_per_second

Array = NDArray[Any]


@dataclass(frozen=True)
class Second:
    """A second of a video, ready for the network.

    Attributes:
        shown: the frame that stands for it, in the video's size.
        frame: uint8 `[H, W, 3]`, the same in the network's size.
        samples: float32 `[n]`, its sound; n is the sample rate, and less where the video ends inside the second.
    """

    shown: SampledFrame
    frame: Array
    samples: Array


@dataclass(frozen=True)
class Window:
    """T seconds of a video, ready for the network.

    Attributes:
        seconds: the frames that are there, one per second, in the video's size: at least 1, fewer than T only in the
            last window.
        frames: uint8 `[1, T, H, W, 3]`; the last frame is repeated for what is missing.
        waveform: float32 `[1, T * sample_rate]`.
    """

    seconds: list[SampledFrame]
    frames: Array
    waveform: Array


def read_seconds(
    video: VideoInfo, clip: ClipRecord, preprocessing: PreprocessingRecord, *, silent: bool = False
) -> Iterator[Second]:
    """Walk a video second by second; a soundtrack that ends before the picture continues as silence.

    Args:
        video: what `probe` returned.
        clip: the bundle's clip contract.
        preprocessing: the bundle's rules.
        silent: silence in place of the soundtrack.

    Raises:
        MediaError: no audio track and not `silent`, or the file cannot be decoded.
    """
    # Opened here, not in the generator: what is missing shows before work begins.
    sound = None if silent else Sound(video, clip.sample_rate)
    return _walk(video, clip, preprocessing, sound)


def _walk(
    video: VideoInfo, clip: ClipRecord, preprocessing: PreprocessingRecord, sound: Sound | None
) -> Iterator[Second]:
    try:
        if sound is not None:
            sound.decode_ahead()
        for shown in frame_per_second(video, window=clip.frames, offset=preprocessing.frame_offset):
            samples = round(shown.length * clip.sample_rate)
            heard = np.zeros(samples, np.float32) if sound is None else sound.read(samples)
            yield Second(shown, resize(shown.pixels, clip.width, clip.height), heard)
    finally:
        if sound is not None:
            sound.close()


def windows(
    video: VideoInfo, clip: ClipRecord, preprocessing: PreprocessingRecord, *, silent: bool = False
) -> Iterator[Window]:
    """Walk a video in windows of T seconds that follow each other; arguments and errors as of `read_seconds`."""
    seconds = read_seconds(video, clip, preprocessing, silent=silent)
    return map(partial(window_of, clip=clip), iter(lambda: list(islice(seconds, clip.frames)), []))


def window_of(seconds: Sequence[Second], clip: ClipRecord) -> Window:
    """Put up to T seconds together.

    For what is missing at a video's end, the last frame and the last log-mel patch (0.96 s of sound) are repeated, as
    the published preparation does; the masks of repeated frames mean nothing. Silence stays silence.
    """
    frames = [second.frame for second in seconds]
    waveform = np.concatenate([second.samples for second in seconds])
    return Window(
        [second.shown for second in seconds],
        np.stack(frames + frames[-1:] * (clip.frames - len(frames)))[None],
        repeat_last_patch(waveform, clip.frames * clip.sample_rate)[None],
    )


def check_inputs(graph: GraphRecord) -> None:
    """Check that all that the graph takes can be made from a video.

    Raises:
        MediaError: it takes something else, such as audio embeddings, which need VGGish.
    """
    for tensor in graph.inputs:
        if tensor.name not in ("frames", "waveform", "log_mel"):
            raise MediaError(
                f"the bundle's graph takes {tensor.name!r}, which cannot be made from a video alone.",
                "Export the bundle again with --audio waveform, which puts the whole audio front end into the graph.",
            )


def graph_inputs(window: Window, clip: ClipRecord, graph: GraphRecord) -> dict[str, Array]:
    """The arrays that the graph takes for a window.

    Raises:
        MediaError: as `check_inputs`.
    """
    check_inputs(graph)
    arrays = {"frames": window.frames, "waveform": window.waveform}
    wanted = [tensor.name for tensor in graph.inputs]
    if "log_mel" in wanted:
        arrays["log_mel"] = log_mel(window.waveform[0])[None, : clip.frames]
    return {name: arrays[name] for name in wanted}


def resize(pixels: Array, width: int, height: int) -> Array:
    """Bilinear between the four nearest pixels, ignoring the aspect ratio, uint8 `[height, width, 3]`.

    This is what OpenCV's default does and what the networks were trained on. It does not antialias, unlike Pillow's and
    FFmpeg's resizing of the same name.
    """
    top, bottom, down = _taps(height, pixels.shape[0])
    left, right, along = _taps(width, pixels.shape[1])
    # Only the rows and columns that are used are read: a large picture costs no more than a small one.
    rows = pixels.take(np.stack([top, bottom]), axis=0)
    mixed, other = rows.take(left, axis=2).astype(np.float32), rows.take(right, axis=2).astype(np.float32)
    other -= mixed
    other *= along[:, None]
    mixed += other
    upper, lower = mixed
    lower -= upper
    lower *= down[:, None, None]
    upper += lower
    return np.rint(upper, out=upper).astype(np.uint8)


def _taps(target: int, source: int) -> tuple[Array, Array, Array]:
    """For each of `target` places among `source` pixels: its two neighbours and the weight of the second one.

    Pixel centres lie at halves, and edges are repeated.
    """
    place = (np.arange(target) + 0.5) * source / target - 0.5
    first = np.floor(place).astype(np.intp)
    weight = (place - first).astype(np.float32)
    return np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1), weight


def repeat_last_patch(waveform: Array, samples: int) -> Array:
    """Lengthen a waveform by repeating the sound of its last whole log-mel patch.

    Args:
        waveform: `[n]`, float32; less than a patch is first filled up with silence.
        samples: the wanted length.

    Returns:
        `[samples]`; `waveform` itself, cut, where it is long enough.
    """
    if len(waveform) >= samples:
        return waveform[:samples]
    padded = np.pad(waveform, (0, max(0, PATCH_SAMPLES - len(waveform))))
    patches = (len(padded) - (PATCH_SAMPLES - PATCH_HOP)) // PATCH_HOP
    kept, last = padded[: patches * PATCH_HOP], padded[(patches - 1) * PATCH_HOP : patches * PATCH_HOP]
    missing = max(0, samples - len(kept))
    return np.concatenate([kept, np.resize(last, missing)])[:samples]
