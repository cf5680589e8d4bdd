"""From a video to a network's inputs: samples of a second each, and the arrays of a clip of T samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.bundle.manifest import GraphRecord, Manifest
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.audio import AudioReader
from avsbg.runtime.media.container import Damage, VideoInfo, displayed, fit_frame
from avsbg.runtime.media.log_mel import PATCH_HOP, PATCH_SAMPLES, log_mel
from avsbg.runtime.media.places import Place
from avsbg.runtime.media.video import choose_frames
from avsbg.runtime.threads import Prefetch

Array = NDArray[Any]

# Decoded frames that may wait to be used.
FRAMES_AHEAD = 2


@dataclass(frozen=True)
class Sample:
    """A second of a source, ready for the network: a frame and its sound."""

    number: int  # of the second, 0 for the first one; at several masks a second, of the mask
    time: Fraction  # when its frame begins, seconds from the first frame of the source
    length: Fraction  # how much of the second is there, 1 except at the source's end
    pixels: (
        Array  # uint8 `[height, width, 3]`, the frame, RGB, in the source's size; of phases but the first, as `frame`
    )
    frame: Array  # uint8 `[H, W, 3]`, the same in the network's size
    audio: Array  # float32 `[n]`, mono; n is the sample rate times `length`
    place: Place | None = None  # at several masks a second, the second of a phase that it is

    @property
    def phase(self) -> int:
        """The phase that it belongs to."""
        return 0 if self.place is None else self.place.phase

    @property
    def second(self) -> int:
        """Its second of its phase."""
        return self.number if self.place is None else self.place.second


def read_samples(
    video: VideoInfo,
    manifest: Manifest,
    *,
    silent: bool = False,
    damage: Damage | None = None,
    rate: Fraction = Fraction(1),
) -> Iterator[Sample]:
    """Walk a video second by second; a soundtrack that ends before the frames continues as silence.

    `silent` puts silence in place of the soundtrack, as a network that uses no audio gets in any case; with `damage`,
    what cannot be decoded is counted there and passed over. At a `rate` above 1, masks a second, the seconds of all
    phases come (`avsbg.runtime.media.places`). It is a `MediaError` if there is no audio track and not `silent`, or the
    file cannot be decoded.
    """
    # Made here, not in the generator: what is missing shows before work begins.
    audio = AudioReader(video, manifest.clip.sample_rate, damage) if manifest.uses_audio and not silent else None
    return _read_samples(video, manifest, audio, damage, rate)


def _read_samples(
    video: VideoInfo, manifest: Manifest, audio: AudioReader | None, damage: Damage | None, rate: Fraction
) -> Iterator[Sample]:
    clip, offset = manifest.clip, manifest.preprocessing.frame_offset
    frames = choose_frames(video, clip_seconds=clip.frames, offset=offset, damage=damage, rate=rate)
    windows = None if audio is None else SoundWindows(audio.read, clip.sample_rate)
    earlier: tuple[Any, Array] = None, np.zeros(0)
    # Frames are decoded in a thread of their own while the ones before are made RGB, and used.
    with audio or nullcontext(), Prefetch(frames, FRAMES_AHEAD) as chosen:
        for number, place, time, length, decoded in chosen:
            if decoded is not earlier[0]:  # a frame may stand for several places
                earlier = decoded, displayed(fit_frame(decoded, video), video.orientation)
            pixels = earlier[1]
            sound = np.zeros(round(length * clip.sample_rate), np.float32)
            if windows is not None:
                sound = windows.read(place, length)
            frame = resize(pixels, clip.width, clip.height)
            kept = pixels if place.phase == 0 else frame  # what waits for its clip is to be small
            yield Sample(number, time, length, kept, frame, sound, place if rate > 1 else None)


class SoundWindows:
    """The sound of places, which overlap where there are several phases, of sound that is read once.

    Args:
        read: the next so many samples, float32 `[n]`.
        sample_rate: Hz.
    """

    def __init__(self, read: Callable[[int], Array], sample_rate: int) -> None:
        self._read, self._rate = read, sample_rate
        self._held, self._start = np.zeros(0, np.float32), 0  # samples, and the number of the first

    def read(self, place: Place, length: Fraction) -> Array:
        """The first `length` seconds of a place's sound; places may come a second out of order."""
        begin, count = place_samples(place, length, self._rate)
        missing = begin + count - self._start - len(self._held)
        if missing > 0:
            self._held = np.concatenate([self._held, self._read(missing)])
        old = min(len(self._held), max(0, begin - self._rate - self._start))
        self._held, self._start = self._held[old:], self._start + old
        return self._held[begin - self._start : begin - self._start + count].copy()


def place_samples(place: Place, length: Fraction, sample_rate: int) -> tuple[int, int]:
    """The number of the first sample of a place's sound, and how many they are."""
    return round((place.begin - place.second) * sample_rate) + place.second * sample_rate, round(length * sample_rate)


def read_clips(video: VideoInfo, manifest: Manifest, *, silent: bool = False) -> Iterator[list[Sample]]:
    """Walk a video in clips of T samples that follow each other; the last one may have fewer.

    Arguments and errors are those of `read_samples`.
    """
    samples = read_samples(video, manifest, silent=silent)
    return iter(lambda: list(islice(samples, manifest.clip.frames)), [])


def check_inputs(manifest: Manifest, graph: GraphRecord) -> None:
    """Check that all that the graph takes can be made from a video; else a `MediaError`, as for audio embeddings."""
    for tensor in graph.inputs:
        if tensor.name not in ("frames", "waveform", "log_mel") and manifest.uses_audio:
            raise MediaError(
                f"the bundle's graph takes {tensor.name!r}, which cannot be made from a video alone.",
                "Export the bundle again with --audio waveform, which puts the whole audio front end into the graph.",
            )


def clip_inputs(samples: Sequence[Sample], manifest: Manifest, graph: GraphRecord) -> dict[str, Array]:
    """The arrays that a graph of whole clips takes for up to T samples.

    For what is missing at a video's end, the last frame and the last log-mel patch (0.96 s of sound) are repeated, as
    the published preparation does; the masks of repeated frames mean nothing. Sound that all frames share is repeated
    from its beginning. Silence stays silence.

    Returns:
        By name, as the graph takes them: `frames` uint8 `[1, T, H, W, 3]`; `waveform` float32 `[1, T * sample_rate]`
        or `log_mel` float32 `[1, T, 1, 96, 64]`; zeros for sound that the network does not use.

    Raises:
        MediaError: as `check_inputs`.
    """
    check_inputs(manifest, graph)
    clip, arrays = manifest.clip, {}
    for tensor in graph.inputs:
        if tensor.name == "frames":
            frames = [sample.frame for sample in samples]
            arrays["frames"] = np.stack(frames + frames[-1:] * (clip.frames - len(frames)))[None]
        elif not manifest.uses_audio:
            arrays[tensor.name] = np.zeros(tensor.single_shape, tensor.dtype)
        else:
            waveform = np.concatenate([sample.audio for sample in samples])
            needed = clip.frames * clip.sample_rate
            waveform = np.resize(waveform, needed) if clip.shared_sound else repeat_last_patch(waveform, needed)
            arrays[tensor.name] = (waveform if tensor.name == "waveform" else log_mel(waveform)[: clip.frames])[None]
    return arrays


def resize(pixels: Array, width: int, height: int) -> Array:
    """Bilinear between the four nearest pixels, ignoring the aspect ratio, uint8 `[height, width, 3]`.

    This is what OpenCV's default does and what the networks were trained on. It does not antialias, unlike Pillow's and
    FFmpeg's resizing of the same name.
    """
    top, bottom, down = _taps(height, pixels.shape[0])
    left, right, along = _taps(width, pixels.shape[1])
    # Only the rows and columns that are used are read: a large frame costs no more than a small one.
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
    """Lengthen a waveform, float32 `[n]`, to `samples` by repeating the sound of its last whole log-mel patch.

    Less than a patch is first filled up with silence.
    """
    if len(waveform) >= samples:
        return waveform[:samples]
    padded = np.pad(waveform, (0, max(0, PATCH_SAMPLES - len(waveform))))
    patches = (len(padded) - (PATCH_SAMPLES - PATCH_HOP)) // PATCH_HOP
    kept, last = padded[: patches * PATCH_HOP], padded[(patches - 1) * PATCH_HOP : patches * PATCH_HOP]
    missing = max(0, samples - len(kept))
    return np.concatenate([kept, np.resize(last, missing)])[:samples]
