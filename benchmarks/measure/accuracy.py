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
    that takes a single frame is given those of a clip as so many clips, with log-mel patches. One that takes audio
    embeddings, or frames of another size or number, raises a `DatasetError` when a clip is predicted.
    """
    clip = backend.bundle.manifest.clip

    def predict(sample: Sample) -> Tensor:
        found, height, width = sample.frames.shape[:3]
        is_whole = found == clip.frames
        if (height, width) != (clip.height, clip.width) or not (is_whole or clip.frames == 1):
            raise DatasetError(
                f"the clip {sample.clip.name} has {found} frames of {height} x {width}; the bundle takes {clip.frames} "
                f"of {clip.height} x {clip.width}.",
                "Export the bundle for the data: avsbg export --size, and --frames where the data's clips have others.",
            )
        if not is_whole and clip.audio != "log_mel":
            message = f"the bundle takes single frames and their sound as {clip.audio}, which clips have as a whole."
            raise DatasetError(message, "Export it with --audio log-mel.")
        frames, sound = sample.frames.numpy(), _sound(sample, clip.audio, clip.frames)
        inputs = {"frames": frames, clip.audio: sound}
        lead = 0 if is_whole else 1  # the axis of clips, or that of the frames which are clips each
        logits = backend.run({name: np.expand_dims(one, lead) for name, one in inputs.items()}, ["logits"])["logits"]
        return torch.from_numpy(logits[0] if is_whole else logits[:, 0])

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
