from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tests_bundle

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BundleError
from avsbg.runtime.verify import compare, select_vectors


@pytest.mark.parametrize("operator", ["function", "plain"])
def test_the_bundles_own_outputs_pass(tiny: Bundle, operator: str) -> None:
    with create("onnxruntime", tiny, operator=operator) as backend:
        comparisons = [c for vectors in select_vectors(tiny) for c in compare(backend, vectors)]
    assert [(c.clips, c.output) for c in comparisons] == [
        (1, "logits"), (1, "probability"), (3, "logits"), (3, "probability"),
    ]  # fmt: skip
    assert all(c.passed and c.largest_absolute < 1e-5 for c in comparisons)
    assert [c.flips for c in comparisons] == [None, 0, None, 0]


def test_a_difference_is_measured_and_fails(tiny: Bundle) -> None:
    (vectors,) = select_vectors(tiny, [1])
    logits, probability = (array.copy() for array in (vectors.outputs["logits"], vectors.outputs["probability"]))
    logits.flat[7] += 0.5
    sounding = np.argmax(probability)
    probability.flat[sounding] = 0.25
    changed = replace(vectors, outputs={"logits": logits, "probability": probability})
    with create("onnxruntime", tiny) as backend:
        of_logits, of_probability = compare(backend, changed, tolerance=0.1)
        assert compare(backend, changed, tolerance=1.0)[0].passed
    assert of_logits.largest_absolute == pytest.approx(0.5, abs=1e-5)
    assert of_logits.largest_relative == pytest.approx(0.5 / np.abs(logits).max(), rel=1e-4)
    assert not of_logits.passed
    assert of_probability.flips == 1
    assert not of_probability.passed


def test_nan_never_passes(tiny: Bundle) -> None:
    (vectors,) = select_vectors(tiny, [1])
    logits = vectors.outputs["logits"].copy()
    logits.flat[0] = np.nan
    with create("onnxruntime", tiny) as backend:
        (comparison,) = compare(backend, replace(vectors, outputs={"logits": logits}), tolerance=1e9)
    assert not comparison.passed


def test_vectors_that_are_not_there(tiny: Bundle, tmp_path: object) -> None:
    with pytest.raises(BundleError, match=r"no test vectors of 2 clips.*1, 3"):
        select_vectors(tiny, [2])


def test_a_bundle_without_vectors(tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = tests_bundle.make_bundle(tmp_path_factory.mktemp("v") / "bare", vectors=False)
    with pytest.raises(BundleError, match="holds no test vectors"):
        select_vectors(bundle)
