"""Holding a backend against a bundle's test vectors: what PyTorch returned for the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends import Arrays, Backend
from avsbg.runtime.bundle import Bundle, Vectors
from avsbg.runtime.bundle.engine_record import AccuracyRecord
from avsbg.runtime.errors import BundleError
from avsbg.runtime.verify.iou import mask_iou

Array = NDArray[Any]

# The largest difference of an output that passes by default: float32 engines order their sums differently.
TOLERANCE = 1e-3
DECISION = 0.5
# The gate of a precision whose record holds none: the mean IoU that its masks must have with PyTorch's.
LEAST_MIOU = 0.99


@dataclass(frozen=True)
class Comparison:
    """One output of one backend against one file of test vectors.

    Attributes:
        vectors: the file, and `clips` its batch.
        output: the output's name.
        largest_absolute: the largest |difference|; NaN where either side has one.
        largest_relative: that, divided by the largest magnitude of the reference.
        flips: for `probability`, how many pixels are on the other side of 0.5, out of `elements`; else None.
        passed: whether `largest_absolute` is within the tolerance.
    """

    vectors: str
    clips: int
    output: str
    elements: int
    largest_absolute: float
    largest_relative: float
    flips: int | None
    passed: bool


@dataclass(frozen=True)
class ClipAccuracy:
    """One clip as the task sees it: the masks of a backend against those of PyTorch.

    Attributes:
        vectors: the file, and `clip` which of its clips.
        miou: mean over the frames of the masks' IoU; 1 where both are empty.
        flipped: the share of pixels on the other side of 0.5.
    """

    vectors: str
    clip: int
    miou: float
    flipped: float


@dataclass(frozen=True)
class Verdict:
    """What a backend's outputs are worth.

    Attributes:
        rule: `tolerance`: every output within the tolerance, for fp32; `gate`: the mean IoU reaches `least_miou`, for
            the precisions that are meant to differ.
        least_miou: the gate; None under the rule `tolerance`.
        miou: mean over all clips.
        flipped: mean over all clips.
        passed: by the rule. An output that is not finite never passes.
        comparisons: each output.
        clips: each clip.
    """

    rule: Literal["tolerance", "gate"]
    least_miou: float | None
    miou: float
    flipped: float
    passed: bool
    comparisons: tuple[Comparison, ...]
    clips: tuple[ClipAccuracy, ...]


def judge(
    backend: Backend,
    vectors: Iterable[Vectors],
    *,
    tolerance: float = TOLERANCE,
    precision: str = "fp32",
    accuracy: AccuracyRecord | None = None,
    see: Callable[[Vectors, Arrays], None] | None = None,
) -> Verdict:
    """Run an open backend on test vectors and judge its outputs by what its precision promises.

    Args:
        backend: it takes the vectors' inputs.
        vectors: at least one file.
        tolerance: the largest difference that passes in fp32.
        precision: of what the backend executes.
        accuracy: its record of what the precision costs, whose gate holds; without one, `LEAST_MIOU`. Where the gate
            was judged on other clips, the vectors must give about what they gave then.
        see: called with each file of vectors and the outputs.

    Raises:
        BackendError: the backend does not take the inputs, lacks an output, or failed.
    """
    comparisons: list[Comparison] = []
    clips: list[ClipAccuracy] = []
    for one in vectors:
        results = backend.run(one.inputs, list(one.outputs))
        if see is not None:
            see(one, results)
        comparisons += [
            _compare_output(one, name, want, results[name], tolerance) for name, want in one.outputs.items()
        ]
        if "probability" in one.outputs:
            clips += clip_accuracies(one, results["probability"])
    miou = float(np.mean([clip.miou for clip in clips])) if clips else float("nan")
    flipped = float(np.mean([clip.flipped for clip in clips])) if clips else float("nan")
    within = all(comparison.passed for comparison in comparisons)
    if precision == "fp32":
        return Verdict("tolerance", None, miou, flipped, within, tuple(comparisons), tuple(clips))
    least = LEAST_MIOU if accuracy is None else _least_on_vectors(accuracy)
    finite = all(np.isfinite(comparison.largest_absolute) for comparison in comparisons)
    return Verdict("gate", least, miou, flipped, finite and miou >= least, tuple(comparisons), tuple(clips))


def _least_on_vectors(accuracy: AccuracyRecord) -> float:
    """What the vectors must reach: the gate, or, where that was judged on other clips, what they gave at the time.

    As much again may be lost of that as the gate allows: another backend rounds differently.
    """
    if accuracy.vectors_miou is None:
        return accuracy.min_miou
    return max(0.0, min(accuracy.min_miou, accuracy.vectors_miou - (1.0 - accuracy.min_miou)))


def clip_accuracies(vectors: Vectors, probability: Array) -> list[ClipAccuracy]:
    """Each clip of `probability` `[B, T, H, W]` against that of the vectors."""
    ours, theirs = probability > DECISION, vectors.outputs["probability"] > DECISION
    iou = mask_iou(ours, theirs).mean(axis=1)
    flipped = (ours != theirs).mean(axis=(1, 2, 3))
    return [ClipAccuracy(vectors.record.file, clip, float(iou[clip]), float(flipped[clip])) for clip in range(len(iou))]


def select_vectors(bundle: Bundle, clips: Sequence[int] = ()) -> Iterator[Vectors]:
    """The bundle's test vectors with those numbers of clips; all if none are named.

    Raises:
        BundleError: the bundle has no test vectors, or none with a number of clips that was asked for.
    """
    records = bundle.manifest.vectors
    if not records:
        raise BundleError(f"{bundle.path} holds no test vectors.", "Export the bundle again.")
    have = sorted({record.clips for record in records})
    if unknown := [number for number in clips if number not in have]:
        raise BundleError(
            f"{bundle.path} has no test vectors of {unknown[0]} clips.", f"It has: {', '.join(map(str, have))}."
        )
    return (vectors for vectors in bundle.vectors() if not clips or vectors.record.clips in clips)


def compare(backend: Backend, vectors: Vectors, tolerance: float = TOLERANCE) -> list[Comparison]:
    """Run an open backend on the vectors' inputs and compare each output.

    Raises:
        BackendError: the backend does not take the inputs, lacks an output, or failed.
    """
    results = backend.run(vectors.inputs, list(vectors.outputs))
    return [
        _compare_output(vectors, name, reference, results[name], tolerance)
        for name, reference in vectors.outputs.items()
    ]


def _compare_output(vectors: Vectors, name: str, reference: Array, result: Array, tolerance: float) -> Comparison:
    with np.errstate(invalid="ignore"):  # infinity less infinity: NaN, which does not pass
        difference = np.abs(result.astype(np.float64) - reference)
    largest = float(difference.max())
    flips = int(((result > DECISION) != (reference > DECISION)).sum()) if name == "probability" else None
    return Comparison(
        vectors=vectors.record.file,
        clips=vectors.record.clips,
        output=name,
        elements=reference.size,
        largest_absolute=largest,
        largest_relative=largest / max(float(np.abs(reference).max()), float(np.finfo(np.float32).tiny)),
        flips=flips,
        # Not `largest > tolerance`: NaN compares false either way and must fail.
        passed=bool(largest <= tolerance),
    )
