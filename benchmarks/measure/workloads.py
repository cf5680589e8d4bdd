"""Workloads of one call: a clip from arrays in memory (scope `model`), or a whole video (`end-to-end`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import Facts
from avsbg.runtime.backends import Backend
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import TensorRecord
from avsbg.runtime.media.container import probe
from avsbg.runtime.media.samples import clip_inputs, read_clips

# Forms of sound that the network itself takes, with no front end in the graph.
NETWORK_INPUTS = ("audio_embedding", "spectrogram")
OUTPUT = "probability"
_SEED = 0

Scope = Literal["model", "end-to-end"]


@dataclass(frozen=True)
class Workload:
    """The work that is timed.

    `model` runs the graph on frames and audio embeddings (or a network's own spectrograms) in memory, as the paper
    timed it; `end-to-end` decodes a video with its sound and makes every mask of it.
    """

    scope: Scope = "model"
    clips: int = 1  # per call; scope `model` only
    video: Path | None = None  # scope `end-to-end` only

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise BenchmarkError(f"the number of clips must be at least 1, not {self.clips}.")
        if self.scope == "end-to-end" and self.video is None:
            raise BenchmarkError("the scope end-to-end decodes a video, and none is given.", "Give one with --video.")
        if self.scope == "model" and self.video is not None:
            raise BenchmarkError("the scope model decodes no video.", "Use --scope end-to-end, or leave out --video.")
        if self.scope == "end-to-end" and self.clips != 1:
            raise BenchmarkError("the scope end-to-end takes its clips one by one.", "Leave out --batch.")

    def check(self, bundle: Bundle) -> None:
        """Raise a `BenchmarkError` for a bundle that takes the sound in a form that this scope has no use for."""
        manifest = bundle.manifest
        audio, wanted = manifest.clip.audio, "spectrogram" if manifest.clip.shared_sound else "embedding"
        if self.scope == "model" and audio not in NETWORK_INPUTS and manifest.uses_audio:
            taken = "spectrograms" if manifest.clip.shared_sound else "audio embeddings"
            message = f"the scope model times the network on {taken}, and {bundle.path} takes {audio}."
            raise BenchmarkError(message, f"Export it with --audio {wanted}, or use --scope end-to-end.")
        if self.scope == "end-to-end" and audio in NETWORK_INPUTS and manifest.uses_audio:
            message = f"the scope end-to-end starts from a video, and {bundle.path} takes {audio.replace('_', ' ')}s."
            raise BenchmarkError(message, "Export it with --audio waveform, or use --scope model.")

    def prepare(self, backend: Backend) -> Callable[[], object]:
        """The call to time, on an open backend."""
        if self.video is not None:
            return partial(masks_of_video, backend, self.video)
        inputs = random_inputs(backend.contract.inputs, self.clips)
        return partial(backend.run, inputs, [OUTPUT])

    def describe(self, bundle: Bundle) -> Facts:
        """The parameters of the case: the workload with the bundle's shapes."""
        clip, clips = bundle.manifest.clip, self.clips
        if self.video is not None:
            clips = sum(1 for _ in read_clips(probe(self.video), bundle.manifest))
        video = {"video_sha256": sha256(self.video)} if self.video else {}
        shape = {"frames": clip.frames, "height": clip.height, "width": clip.width}
        return {"scope": self.scope, "clips": clips, **shape, "audio": clip.audio, **video}


def masks_of_video(backend: Backend, video: Path) -> list[NDArray[Any]]:
    """Decode a video and its sound, and make the masks of its frames: from the file to booleans `[T, H, W]`."""
    manifest = backend.bundle.manifest
    masks = []
    for samples in read_clips(probe(video), manifest):
        probability = backend.run(clip_inputs(samples, manifest, backend.contract), [OUTPUT])[OUTPUT]
        masks.append(probability[0, : len(samples)] > 0.5)
    return masks


def random_inputs(tensors: tuple[TensorRecord, ...], clips: int) -> dict[str, NDArray[Any]]:
    """Arrays for a graph's inputs that are the same in every process: bytes, and floats from 0 to 1."""
    rng = np.random.default_rng(_SEED)
    arrays: dict[str, NDArray[Any]] = {}
    for tensor in tensors:
        shape = [clips if isinstance(size, str) else size for size in tensor.shape]
        if tensor.dtype == "uint8":
            arrays[tensor.name] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            arrays[tensor.name] = rng.random(shape).astype(tensor.dtype)
    return arrays
