"""Definitions that a part must have of its own, since the runtime imports no torch, agree between the parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avsbg.model import front_end
from avsbg.model.training import data, media
from avsbg.runtime.bundle.manifest import PreprocessingRecord
from avsbg.runtime.media import log_mel, samples


@pytest.mark.parametrize(
    "name",
    ["SAMPLE_RATE", "WINDOW", "HOP", "FFT", "BANDS", "LOW_HZ", "HIGH_HZ", "LOG_OFFSET", "PATCH_FRAMES"],
)
def test_the_front_ends_have_the_same_constants(name: str) -> None:
    assert getattr(front_end, name) == getattr(log_mel, name)


def test_the_front_ends_give_the_same_patches() -> None:
    waveform = np.random.default_rng(0).uniform(-1, 1, 40000)
    np.testing.assert_allclose(log_mel.log_mel(waveform), front_end.log_mel(waveform).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (37, 50), (224, 224)])
def test_frames_are_resized_alike(height: int, width: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    prepared = media.resize(frame, height, width).numpy().astype(int)
    difference = np.abs(prepared - samples.resize(frame, width, height))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # halves are rounded either way


def test_preprocessing_is_what_the_training_data_had() -> None:
    record = PreprocessingRecord()
    pixels = torch.tensor([[[[0, 100, 255]]]], dtype=torch.uint8)
    expected = (pixels[0, 0, 0] * record.scale - torch.tensor(record.mean)) / torch.tensor(record.std)
    torch.testing.assert_close(data.normalise(pixels)[0, :, 0, 0], expected)
    assert record.frame_offset == media.FRAME_OFFSET
