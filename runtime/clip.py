"""From a video to a network's inputs: windows of T seconds, each with T frames and T seconds of sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg.runtime.errors import MediaError
from avsbg.runtime.log_mel import PATCH_HOP, PATCH_SAMPLES, log_mel
from avsbg.runtime.manifest import ClipRecord, GraphRecord, PreprocessingRecord
from avsbg.runtime.media import SecondFrame, Sound, VideoInfo, frame_per_second

Array = NDArray[Any]


@dataclass(frozen=True)
class Window:
    """T seconds of a video, ready for the network.

    Attributes:
        seconds: the frames that are there, one per second, in the video's size: at least 1, fewer than T only in the
            last window.
        frames: uint8 `[1, T, H, W, 3]`; the last frame is repeated for what is missing.
        waveform: float32 `[1, T * sample_rate]`.
    """

    seconds: list[SecondFrame]
    frames: Array
    waveform: Array


def windows(
    video: VideoInfo, clip: ClipRecord, preprocessing: PreprocessingRecord, *, silent: bool = False
) -> Iterator[Window]:
    """Walk a video in windows of T seconds that follow each other.

    Where the video ends inside the last window, the last frame and the last log-mel patch (0.96 s of sound) are
    repeated, as the published preparation does; the masks of repeated frames mean nothing. A soundtrack that ends
    before the picture continues as silence.

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
) -> Iterator[Window]:
    pictures = frame_per_second(video, window=clip.frames, offset=preprocessing.frame_offset)
    try:
        while seconds := list(islice(pictures, clip.frames)):
            resized = [resize(second.pixels, clip.width, clip.height) for second in seconds]
            frames = np.stack(resized + resized[-1:] * (clip.frames - len(resized)))
            yield Window(seconds, frames[None], _waveform(sound, seconds, clip)[None])
    finally:
        if sound is not None:
            sound.close()


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
    FFmpeg's resizing of the same name; an affine transform of Pillow's does not either, which is why it is used here.
    """
    scale = (pixels.shape[1] / width, 0.0, 0.0, 0.0, pixels.shape[0] / height, 0.0)
    # One float channel after the other: of bytes, Pillow drops the fraction instead of rounding it.
    channels = [
        Image.fromarray(channel).transform((width, height), Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR)
        for channel in np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
    ]
    return np.rint(np.stack([np.asarray(channel) for channel in channels], axis=-1)).astype(np.uint8)


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


def _waveform(sound: Sound | None, seconds: list[SecondFrame], clip: ClipRecord) -> Array:
    samples = clip.frames * clip.sample_rate
    if sound is None:
        return np.zeros(samples, np.float32)
    there = round(sum(second.length for second in seconds) * clip.sample_rate)
    return repeat_last_patch(sound.read(there), samples)
