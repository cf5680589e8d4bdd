"""The log-mel front end in numpy, for bundles whose graph takes `log_mel`.

The one that VGGish was trained with (AudioSet, `torchvggish`). Bundles that take `waveform` carry it in the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000
WINDOW, HOP, FFT = 400, 160, 512  # samples: 25 ms, 10 ms, the transform's length
BANDS = 64
LOW_HZ, HIGH_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01
PATCH_FRAMES = 96
# Consecutive patches start this many samples apart, and a patch needs a little more for its last window.
PATCH_HOP = PATCH_FRAMES * HOP
# Frames that are multiplied at once. OpenBLAS gives larger products to its threads, which then spin for tens of
# milliseconds and take the processor from the decoder: thirty times what the product costs.
ROWS_AT_ONCE = 12
PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP + WINDOW

Array = NDArray[Any]


def log_mel(waveform: Array) -> Array:
    """Log-mel patches of 0.96 s, computed in float64 from a mono waveform `[n]` at 16 kHz in [-1, 1].

    Returns float32 `[patches, 1, 96, 64]` (time, mel), consecutive and without overlap; an incomplete patch is dropped,
    so that fewer than 15,600 samples give none.
    """
    samples = np.asarray(waveform, dtype=np.float64)
    patches = (len(samples) - WINDOW + HOP) // PATCH_HOP if len(samples) >= WINDOW else 0
    if patches == 0:
        return np.zeros((0, 1, PATCH_FRAMES, BANDS), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP][: patches * PATCH_FRAMES]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    magnitude = np.abs(np.fft.rfft(windows * hann, FFT)).reshape(-1, ROWS_AT_ONCE, FFT // 2 + 1)
    return np.log(magnitude @ _mel_matrix() + LOG_OFFSET).reshape(patches, 1, PATCH_FRAMES, BANDS).astype(np.float32)


def _mel_matrix() -> Array:
    """The HTK mel matrix, `[257, 64]`: triangles linear in mel with unit peak; the constant bin counts for nothing."""

    def to_mel(hertz: Array) -> Array:
        return np.asarray(1127.0 * np.log1p(hertz / 700.0))

    bins = to_mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1))[:, None]
    edges = np.linspace(to_mel(np.array(LOW_HZ)), to_mel(np.array(HIGH_HZ)), BANDS + 2)
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    matrix = np.maximum(0.0, np.minimum(rising, falling))
    matrix[0] = 0.0
    return np.asarray(matrix)
