"""Holding a backend against a bundle's test vectors: what PyTorch returned for the same inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends import Backend
from avsbg.runtime.bundle import Bundle, Vectors
from avsbg.runtime.errors import BundleError

Array = NDArray[Any]

# The largest difference of an output that passes by default: float32 engines order their sums differently.
TOLERANCE = 1e-3
DECISION = 0.5


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
