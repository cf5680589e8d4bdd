"""Scores of a trained network through any backend, on a data set, by the code that scores checkpoints.

Each target, and each target's stream, is scored on the same clips.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.results.schema import Measurement, Metric, Run
from avsbg.model.training.data import AvsBenchDataset, Sample
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.evaluation import Predict, evaluate
from avsbg.model.training.media import read_sound
from avsbg.runtime import backends
from avsbg.runtime.backends import Backend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.media.samples import repeat_last_patch

# What makes the committed rows; the first is what the others are compared with.
TARGETS = (
    "torch",
    "onnxruntime:plain",
    "onnxruntime:function",
    "onnxruntime:native",
    "onnxruntime:native:fp16",
    "onnxruntime:native:int8",
    "openvino",
)
STREAMS = ("torch", "onnxruntime:native", "onnxruntime:native:fp16")


def measure_accuracy(
    bundle: Bundle, dataset: AvsBenchDataset, target: str, *, streamed: bool, threads: int
) -> Measurement:
    """Score one target, even one whose graph missed its accuracy threshold.

    Raises:
        BackendError: the bundle has no such graph, or the backend cannot run it.
        DatasetError: the bundle does not take the data set's clips.
    """
    from avsbg.model.training.data import describe_data

    started = datetime.now(timezone.utc)
    with _create(bundle, target, streamed=streamed, threads=threads) as backend:
        scores = evaluate(dataset, bundle_predictor(backend))
        described = backend.describe()
    clips = [clip.score for clip in scores.clips]
    return Measurement(
        kind="accuracy",
        label=target,
        case={
            "target": target,
            "streamed": streamed,
            "data": {"task": dataset.task, "split": dataset.split, **describe_data(dataset)},
        },
        metrics={
            "miou": Metric(samples=tuple(score.miou for score in clips)),
            "f_score": Metric(samples=tuple(score.f_score for score in clips)),
        },
        ran=describe_bundle(bundle, backend=described),
        run=Run(started=started, command=("python", "-m", "avsbg.benchmarks", *sys.argv[1:])),
        environment=describe_environment(),
    )


def _create(bundle: Bundle, target: str, *, streamed: bool, threads: int) -> Backend:
    from avsbg.runtime.streaming.frame_pair import create_streamed_clip

    parsed = backends.BackendSpec.parse(target)
    known = backends.options(parsed.backend)
    limits = {name: value for name, value in (("threads", threads), ("allow_failed_accuracy", True)) if name in known}
    if streamed:
        return create_streamed_clip(bundle, parsed, **limits)
    return backends.create(parsed.backend, bundle, **{**parsed.options(), **limits})


def bundle_predictor(backend: Backend) -> Predict:
    """Predict with a backend that is open.

    A graph that takes a waveform reads the clip's WAV file, one that takes log-mel patches is given the data set's.

    Raises:
        DatasetError: (when a clip is predicted) the graph takes audio embeddings, or frames of another size or number.
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
