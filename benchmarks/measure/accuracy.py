"""A bundle's backend as a predictor, so that its masks are scored by the code that scores PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsbg.model.training.data import Sample
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.evaluation import Predict
from avsbg.model.training.media import read_sound
from avsbg.runtime.backends import Backend
from avsbg.runtime.media.samples import repeat_last_patch


def bundle_predictor(backend: Backend) -> Predict:
    """Predict with a backend that is open.

    A graph that takes a waveform reads the clip's WAV file, one that takes log-mel patches is given the data set's. One
    that takes audio embeddings, or frames of another size or number, raises a `DatasetError` when a clip is predicted.
    """
    clip = backend.bundle.manifest.clip

    def predict(sample: Sample) -> Tensor:
        if sample.frames.shape[:3] != (clip.frames, clip.height, clip.width):
            found, height, width = sample.frames.shape[:3]
            raise DatasetError(
                f"the clip {sample.clip.name} has {found} frames of {height} x {width}; the bundle takes {clip.frames} "
                f"of {clip.height} x {clip.width}.",
                "Export the bundle for the size of the data: avsbg export --size.",
            )
        inputs = {"frames": sample.frames[None].numpy(), clip.audio: _sound(sample, clip.audio, clip.frames)[None]}
        return torch.from_numpy(backend.run(inputs, ["logits"])["logits"][0])

    return predict


def _sound(sample: Sample, form: str, frames: int) -> NDArray[Any]:
    if form == "log_mel":
        return sample.log_mel.numpy()
    if form == "waveform":
        samples = read_sound(sample.clip.wav)
        waveform = (samples.astype(np.float64) / 32768.0).mean(axis=1).astype(np.float32)
        return repeat_last_patch(waveform, frames * 16000)
    raise DatasetError(
        "the bundle takes audio embeddings, which the data set does not hold.",
        "Export it again with --audio waveform or --audio log-mel.",
    )
