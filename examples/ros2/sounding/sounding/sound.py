"""Chunks of an audio topic as mono sound at the network's rate."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

# The words of audio_common_msgs/AudioInfo -> FFmpeg's names of the samples, and numpy's.
FORMATS = {"S16LE": ("s16", "<i2"), "F32LE": ("flt", "<f4")}
_TICKS = 1_000_000  # a second's; finer than a sample


class SoundReader:
    """Decodes chunks of interleaved samples, mixes their channels and resamples them.

    Args:
        name: the format of the samples, a name of `FORMATS`.
        channels: of the topic, one or two.
        rate: of the topic, in Hz.
        target: the rate to return, in Hz.
    """

    def __init__(self, name: str, channels: int, rate: int, target: int) -> None:
        if name not in FORMATS or channels not in (1, 2):
            raise ValueError(f"audio of format {name!r} with {channels} channels; {', '.join(FORMATS)} with 1 or 2")
        self._format, self._dtype = FORMATS[name]
        self._layout, self._rate = ("mono", "stereo")[channels - 1], rate
        self._channels = channels
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=target)

    def read(self, data: bytes, time: float) -> Iterator[tuple[np.ndarray, float]]:
        """Pass a chunk whose first sample was taken at `time`, in seconds; yields float32 `[n]` with its own time."""
        samples = np.frombuffer(data, self._dtype).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format=self._format, layout=self._layout)
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, _TICKS), round(time * _TICKS)
        for part in self._resampler.resample(frame):
            assert part.pts is not None and part.time_base is not None
            yield part.to_ndarray().reshape(-1), float(part.pts * part.time_base)
