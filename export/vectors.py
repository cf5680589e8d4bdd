"""Test vectors: reproducible clips, what PyTorch makes of them, and what it computes on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from avsbg.export.graph_tensors import probe
from avsbg.export.graphs import AudioForm, ClipGraph
from avsbg.model import log_mel
from avsbg.model.factory import load_object
from avsbg.model.record import NetworkRecord
from avsbg.model.registry import NETWORKS
from avsbg.runtime.bundle.manifest import ClipRecord

Arrays = dict[str, NDArray[np.generic]]

# Intermediate stages of more elements than this are kept as a probe of that many, evenly spaced.
_WHOLE, _PROBE = 65_536, 4_096


@dataclass(frozen=True)
class ReferenceRun:
    """The inputs, outputs and intermediate stages of one run of a network in PyTorch."""

    inputs: Arrays
    outputs: Arrays
    intermediates: Arrays


def reference_run(graph: ClipGraph, clip: ClipRecord, clips: int, seed: int) -> ReferenceRun:
    """Run the network in PyTorch on so many reproducible clips.

    An intermediate stage is named as in the network's `forward_stages`, a stage of the pyramid with its number
    (`mean_correlation.0`). A large one is represented by `<name>.probe`, 4096 evenly spaced values of it in C order,
    and `<name>.moments`: mean, deviation, minimum, maximum.
    """
    inputs = make_clips(graph.audio, clip, clips, seed, graph.network.record)
    frames, sound = (torch.from_numpy(array) for array in inputs.values())
    with torch.inference_mode():
        passed = graph.network.forward_stages(*graph.network_inputs(frames, sound))
        outputs = dict(zip(graph.outputs, graph.results(passed.logits), strict=True))
    intermediates: Arrays = {}
    for name, value in vars(passed).items():
        if isinstance(value, list):
            for stage, tensor in enumerate(value):
                intermediates |= _keep(f"{name}.{stage}", tensor.numpy())
        elif name != "logits":
            intermediates |= _keep(name, value.numpy())
    outputs.pop("class_probability", None)  # as large as the logits, which say the same
    return ReferenceRun(inputs, {name: output.numpy() for name, output in outputs.items()}, intermediates)


def make_clips(
    audio: AudioForm, clip: ClipRecord, clips: int, seed: int, record: NetworkRecord = NETWORKS["avs-bg"]
) -> Arrays:
    """Clips of a disc that moves over a textured ground, with two tones that come and go.

    They look like video to a network (smooth, neighbouring frames alike) and cost little space. Returned are `frames`
    and the sound, as the graph of the network of `record` takes them.
    """
    return make_marked_clips(audio, clip, clips, seed, record)[0]


def make_marked_clips(
    audio: AudioForm, clip: ClipRecord, clips: int, seed: int, record: NetworkRecord = NETWORKS["avs-bg"]
) -> tuple[Arrays, NDArray[np.bool_]]:
    """The clips of `make_clips`, and where their discs are: `[clips, T, H, W]`."""
    rng = np.random.default_rng([seed, clips])
    time = np.arange(clip.frames)[:, None, None]
    y, x = np.mgrid[0 : clip.height, 0 : clip.width]
    frames = np.empty((clips, clip.frames, clip.height, clip.width, 3), np.uint8)
    masks = np.empty(frames.shape[:-1], np.bool_)
    waveform = np.empty((clips, clip.frames * clip.sample_rate), np.float32)
    seconds = np.arange(waveform.shape[1]) / clip.sample_rate
    for index in range(clips):
        frequency, phase = rng.uniform(0.02, 0.2, (2, 3)), rng.uniform(0, 2 * np.pi, 3)
        texture = np.sin(frequency[0] * x[..., None] + frequency[1] * y[..., None] + phase)
        start, step = rng.uniform(0.2, 0.8, 2), rng.uniform(-0.1, 0.1, 2)
        distance = np.hypot(y / clip.height - start[0] - step[0] * time, x / clip.width - start[1] - step[1] * time)
        masks[index] = distance < rng.uniform(0.1, 0.25)
        disc = masks[index][..., None] * rng.uniform(-120, 120, 3)
        frames[index] = np.clip(128 + 50 * texture + disc, 0, 255)
        pitch, beat = rng.uniform(150, 3000, 2), rng.uniform(0.3, 2, 2)
        tones = np.sin(2 * np.pi * np.outer(pitch, seconds)) * np.sin(np.pi * np.outer(beat, seconds)) ** 2
        waveform[index] = 0.3 * tones.sum(axis=0) + 0.02 * rng.standard_normal(seconds.size)
    return {"frames": frames, audio.value: _as_form(waveform, audio, clip.frames, rng, record)}, masks


def _as_form(
    waveform: NDArray[np.float32], audio: AudioForm, frames: int, rng: np.random.Generator, record: NetworkRecord
) -> NDArray[np.generic]:
    if audio is AudioForm.WAVEFORM:
        return waveform
    if audio is AudioForm.SPECTROGRAM:
        assert record.spectrogram is not None
        made: NDArray[np.float32] = load_object(record.spectrogram.module)()(torch.from_numpy(waveform)).numpy()
        return made[:, None]
    if audio is AudioForm.LOG_MEL:
        return np.stack([log_mel(row)[:frames].numpy() for row in waveform])
    # VGGish ends in a ReLU: embeddings are not negative.
    return rng.random((waveform.shape[0], *audio.shape(frames)), dtype=np.float32)


def _keep(name: str, array: NDArray[np.float32]) -> Arrays:
    if array.size <= _WHOLE:
        return {name: array}
    moments = np.array([array.mean(), array.std(), array.min(), array.max()], np.float64)
    return {f"{name}.probe": probe(array, _PROBE), f"{name}.moments": moments}
