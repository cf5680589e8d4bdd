"""The accuracy of a precision: how far masks and logits lie from a reference, clip by clip, in ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.export.precision.calibrate import CalibrationClips, Progress
from avsbg.export.precision.emulated import EmulatedBackend
from avsbg.runtime.backends import Backend
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.engine_record import AccuracyRecord
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.verify.verify import mask_iou

# Stands for the difference of an output that is not finite, in records that hold finite numbers only.
_NOT_FINITE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ClipAgreement:
    """One clip: the sums that the figures of all clips are made of."""

    name: str
    miou: float  # mean over the frames; 1 for frames where both masks are empty
    flipped: int  # of its `pixels`, those in one mask only
    pixels: int
    largest: float  # |difference| of a logit; infinite where one is not finite
    squares: float  # the sum of the squared differences
    reference: tuple[float, float]  # of the reference's logits, the sum and the sum of squares


def decide(logits: NDArray[Any]) -> NDArray[Any]:
    """Masks `[B, T, H, W]`: bool of logits of that shape, numbers of classes of logits `[B, T, classes, H, W]`."""
    return logits > 0 if logits.ndim == 4 else logits.argmax(axis=2)


def clip_agreement(name: str, logits: NDArray[Any], reference: NDArray[Any]) -> ClipAgreement:
    """Compare the logits of a clip.

    A pixel of `[T, H, W]` belongs to the mask where its logit exceeds 0; one of several classes, `[T, classes, H, W]`,
    to the class of the largest.
    """
    ours, theirs = decide(logits[None])[0], decide(reference[None])[0]
    wanted = reference.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        differences = logits.astype(np.float64) - wanted
        finite = bool(np.isfinite(differences).all())
        squares = float(np.square(differences).sum()) if finite else math.inf
    return ClipAgreement(
        name=name,
        miou=float(mask_iou(ours, theirs).mean()),
        flipped=int((ours != theirs).sum()) * (logits.size // ours.size),  # counted as `pixels` are, once per logit
        pixels=logits.size,
        largest=float(np.abs(differences).max()) if finite else math.inf,
        squares=squares,
        reference=(float(wanted.sum()), float(np.square(wanted).sum())),
    )


@dataclass(frozen=True)
class Agreement:
    """All clips together."""

    clips: int
    logit_error: float  # root mean square, as a share of the reference's standard deviation
    largest: float  # |difference| of a logit
    miou: float
    flipped: float  # share of the pixels
    worst: tuple[str, float]  # the clip with the least mIoU, and that
    finite: bool  # every logit; where not, the first two figures are float32's largest number


def summarize(clips: Sequence[ClipAgreement]) -> Agreement:
    """The figures of clips of one size; a ValueError where there are none."""
    if not clips:
        raise ValueError("no clips to compare")
    pixels = sum(clip.pixels for clip in clips)
    mean = sum(clip.reference[0] for clip in clips) / pixels
    variance = sum(clip.reference[1] for clip in clips) / pixels - mean**2
    scale = max(math.sqrt(max(variance, 0.0)), float(np.finfo(np.float32).tiny))
    error = math.sqrt(sum(clip.squares for clip in clips) / pixels) / scale
    worst = min(clips, key=lambda clip: clip.miou)
    return Agreement(
        clips=len(clips),
        logit_error=min(error, _NOT_FINITE),
        largest=min(max(clip.largest for clip in clips), _NOT_FINITE),
        miou=float(np.mean([clip.miou for clip in clips])),
        flipped=sum(clip.flipped for clip in clips) / pixels,
        worst=(worst.name, worst.miou),
        finite=math.isfinite(error),
    )


@dataclass(frozen=True)
class Reference:
    """Clips to measure accuracy on, and the logits `[T, H, W]` of the float32 graph for each."""

    clips: CalibrationClips
    logits: list[NDArray[np.generic]]


def float32_reference(bundle: Bundle, clips: CalibrationClips, progress: Progress) -> Reference:
    """Run the float32 `clip` graph on clips in ONNX Runtime, which export compared with PyTorch."""
    logits = []
    with OnnxRuntimeBackend(bundle, "clip") as backend:
        for index, inputs in enumerate(clips.clips()):
            progress("running the float32 graph on the clips to measure on", index, clips.record.clips)
            logits.append(backend.run(inputs, ["logits"])["logits"][0])
    return Reference(clips, logits)


def measure_accuracy(
    bundle: Bundle,
    graph: str,
    min_miou: float | None = None,
    *,
    precision: Precision | None = None,
    reference: Reference | None = None,
    progress: Progress = lambda *_: None,
) -> AccuracyRecord:
    """Run a graph on the bundle's vectors and compare with PyTorch's outputs: in ONNX Runtime, or emulated there.

    The graph takes clips, and is executed in `precision`, by default its own; a float32 graph may be executed in tf32.
    `min_miou` is the accuracy threshold, by default the precision's. `reference` has clips to measure on in place of
    the vectors. A BackendError says that ONNX Runtime cannot run the graph.
    """
    precision = precision or bundle.graph(graph).precision
    min_miou = PRECISIONS[precision].min_miou if min_miou is None else min_miou
    with accuracy_backend(bundle, graph, precision) as backend:
        on_vectors = []
        for one in bundle.vectors():
            pairs = zip(backend.run(one.inputs, ["logits"])["logits"], one.outputs["logits"], strict=True)
            on_vectors += [clip_agreement(f"{one.record.file}, clip {clip}", *pair) for clip, pair in enumerate(pairs)]
        agreement = summarize(on_vectors) if reference is None else _agreement_on(reference, backend, progress)
    return AccuracyRecord(
        largest_difference=agreement.largest,
        flipped=agreement.flipped,
        miou=agreement.miou,
        min_miou=min_miou,
        passed=agreement.finite and agreement.miou >= min_miou,
        emulated=PRECISIONS[precision].emulated,
        measured_on=None if reference is None else reference.clips.record,
        vectors_miou=summarize(on_vectors).miou if reference is not None and on_vectors else None,
    )


def _agreement_on(reference: Reference, backend: Backend, progress: Progress) -> Agreement:
    found = []
    for index, (inputs, theirs) in enumerate(zip(reference.clips.clips(), reference.logits, strict=True)):
        progress("comparing with the float32 graph", index, len(reference.logits))
        found.append(clip_agreement(f"clip {index}", backend.run(inputs, ["logits"])["logits"][0], theirs))
    return summarize(found)


def accuracy_backend(bundle: Bundle, graph: str, precision: Precision, *, threads: int | None = None) -> Backend:
    """A backend that computes a graph in a precision on the CPU, though it missed its accuracy threshold."""
    if PRECISIONS[precision].emulated:
        return EmulatedBackend(bundle, graph, precision=precision, threads=threads)
    return OnnxRuntimeBackend(bundle, graph, threads=threads, allow_failed_accuracy=True)
