"""The log-mel front end that VGGish was trained with (SPEC: AudioSet's, `torchvggish`), as a differentiable module.

The spectrum is computed by a convolution with windowed cosines and sines, so that the same module runs in float64 as
the reference, in float32 inside an exported graph, and on any engine that knows a convolution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.errors import AvsbgError

SAMPLE_RATE = 16000
WINDOW, HOP, FFT = 400, 160, 512  # samples: 25 ms, 10 ms, and the transform's length
BINS, BANDS = FFT // 2 + 1, 64
LOW_HZ, HIGH_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01
PATCH_FRAMES = 96  # 0.96 s


class WaveformError(AvsbgError, ValueError):
    """A waveform that the front end cannot work with."""


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(hz / 700.0)


def hann_window() -> np.ndarray:
    """The periodic Hann window, float64 `[400]`."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def mel_matrix() -> np.ndarray:
    """The HTK mel matrix, float64 `[257, 64]`: triangles linear in mel, unit peak, the DC row zero."""
    bins = _hz_to_mel(np.linspace(0.0, SAMPLE_RATE / 2, BINS))[:, None]
    edges = np.linspace(_hz_to_mel(np.array(LOW_HZ)), _hz_to_mel(np.array(HIGH_HZ)), BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    matrix = np.maximum(0.0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    matrix[0] = 0.0
    return matrix


def _fourier_kernels() -> np.ndarray:
    """Windowed cosines, then sines, `[2 * 257, 1, 400]`: the transform of 512 samples of which 112 are padding."""
    phase = 2 * np.pi * np.outer(np.arange(BINS), np.arange(WINDOW)) / FFT
    return (np.concatenate([np.cos(phase), np.sin(phase)]) * hann_window())[:, None, :]


class LogMel(nn.Module):
    """Waveform to log-mel patches."""

    kernels: Tensor
    mel: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("kernels", torch.from_numpy(_fourier_kernels()).to(dtype), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel_matrix()).to(dtype), persistent=False)

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Magnitudes `[B, F, 257]` of the F = 1 + (n - 400) // 160 whole windows of `waveform` `[B, n]`."""
        transform = F.conv1d(waveform[:, None], self.kernels, stride=HOP)
        real, imaginary = transform.split(BINS, dim=1)
        return torch.sqrt(real * real + imaginary * imaginary).transpose(1, 2)

    def forward(self, waveform: Tensor, patches: int | None = None) -> Tensor:
        """Log-mel patches of a waveform `[B, n]`, 16 kHz, in [-1, 1]: as many as asked for, by default all whole ones.

        Returns:
            `[B, patches, 1, 96, 64]`: consecutive patches of 0.96 s (time, mel); an incomplete one is dropped.
        """
        log_mel = torch.log(torch.matmul(self.spectrum(waveform), self.mel) + LOG_OFFSET)
        count = log_mel.shape[1] // PATCH_FRAMES if patches is None else patches
        return log_mel[:, : count * PATCH_FRAMES].reshape(log_mel.shape[0], count, 1, PATCH_FRAMES, BANDS)


def log_mel(waveform: Any) -> Tensor:
    """Log-mel patches of one recording, computed in float64 as the published preparation does.

    Args:
        waveform: array or tensor at 16 kHz, `[n]` mono or `[n, channels]` (averaged); floats in [-1, 1], or int16,
            which is divided by 32768.

    Returns:
        float32 `[patches, 1, 96, 64]`; less than 15,600 samples give no patch.

    Raises:
        WaveformError: the array has another rank or type.
    """
    samples = torch.as_tensor(waveform)
    if samples.dtype == torch.int16:
        samples = samples.to(torch.float64) / 32768.0
    elif not samples.is_floating_point():
        raise WaveformError(f"a waveform holds floats in [-1, 1] or int16, not {samples.dtype}.")
    if samples.dim() not in (1, 2):
        raise WaveformError(f"a waveform is [samples] or [samples, channels], not {list(samples.shape)}.")
    samples = samples.to(torch.float64)
    if samples.dim() == 2:
        samples = samples.mean(dim=1)
    if samples.shape[0] < WINDOW:
        return torch.zeros(0, 1, PATCH_FRAMES, BANDS)
    return LogMel(torch.float64)(samples[None])[0].to(torch.float32)
