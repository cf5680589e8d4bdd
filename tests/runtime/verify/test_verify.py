from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.engine_record import AccuracyRecord
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.device.gpu import CudaDriver
from avsbg.runtime.errors import BundleError
from avsbg.runtime.verify.plot import FLIPPED, save_masks
from avsbg.runtime.verify.verify import DEFAULT_MIN_MIOU, compare, list_cases, select_vectors, verify_backend
from fixtures import tiny_bundle
from fixtures.engines import DRIVER, add_engine, passed


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
    bundle = tiny_bundle.make_bundle(tmp_path_factory.mktemp("v") / "bare", vectors=False)
    with pytest.raises(BundleError, match="holds no test vectors"):
        select_vectors(bundle)


def test_a_lower_precision_is_judged_by_its_masks(tiny: Bundle) -> None:
    vectors = list(select_vectors(tiny))
    with create("onnxruntime", tiny) as backend:
        exact = verify_backend(backend, vectors)
        assert (exact.rule, exact.min_miou, exact.miou, exact.flipped, exact.passed) == (
            "tolerance", None, 1.0, 0.0, True,
        )  # fmt: skip
        assert [(clip.clip, clip.miou) for clip in exact.clips] == [(0, 1.0), (0, 1.0), (1, 1.0), (2, 1.0)]
        # Logits that are far off, with the masks of before: right for fp16, wrong for fp32.
        off = [
            replace(one, outputs={"logits": one.outputs["logits"] + 1, "probability": one.outputs["probability"]})
            for one in vectors
        ]
        assert not verify_backend(backend, off).passed
        low = verify_backend(backend, off, precision="fp16")
        assert (low.rule, low.min_miou, low.passed) == ("gate", DEFAULT_MIN_MIOU, True)
        # A frame whose mask is the opposite.
        probability = vectors[1].outputs["probability"].copy()
        probability[2, 3] = 1 - probability[2, 3]
        flipped = replace(vectors[1], outputs={**vectors[1].outputs, "probability": probability})
        bad = verify_backend(backend, [flipped], precision="fp16", accuracy=AccuracyRecord(**passed(1.0, 0.95)))
        assert not bad.passed and bad.min_miou == 0.95
        # If other clips decided, the vectors must give about what they gave then: 0.99, less 0.05.
        elsewhere = AccuracyRecord(**passed(1.0, 0.95), vectors_miou=0.99)
        assert not verify_backend(backend, [flipped], precision="fp16", accuracy=elsewhere).passed
        elsewhere = elsewhere.model_copy(update={"vectors_miou": 0.98})
        known = verify_backend(backend, [flipped], precision="fp16", accuracy=elsewhere)
        assert known.passed and known.min_miou == pytest.approx(0.93)
        assert bad.clips[2].miou == pytest.approx(4 / 5) and bad.clips[0].miou == 1
        assert bad.clips[2].flipped == pytest.approx(1 / 5) and bad.miou == pytest.approx(14 / 15)


def test_an_output_that_is_not_finite_passes_no_gate(tiny: Bundle) -> None:
    (vectors,) = select_vectors(tiny, [1])
    logits = vectors.outputs["logits"].copy()
    logits.flat[0] = np.inf
    with create("onnxruntime", tiny) as backend:
        result = verify_backend(
            backend, [replace(vectors, outputs={**vectors.outputs, "logits": logits})], precision="fp16"
        )
    assert result.miou == 1.0 and not result.passed


def test_every_graph_and_engine_is_a_case_and_what_cannot_run_says_why(bundle_copy: Path) -> None:
    bundle = add_engine(bundle_copy, "clip.fp16", accuracy=passed())
    found = {case.label: case for case in list_cases(bundle, CudaDriver(None, "there is no driver"))}
    assert list(found) == ["onnxruntime:function", "onnxruntime:native", "onnxruntime:plain", "clip.fp16"]
    assert found["clip.fp16"].why_not == "an engine needs a GPU: there is no driver"
    assert found["onnxruntime:plain"].why_not is None
    assert found["onnxruntime:plain"].options == {"graph": "clip.plain", "operator": "plain"}
    here = {case.label: case for case in list_cases(bundle, DRIVER)}
    assert here["clip.fp16"].why_not is None
    assert (here["clip.fp16"].backend, here["clip.fp16"].options) == ("tensorrt", {"engine": "clip.fp16"})


def test_a_streams_graphs_are_verified_together(bundle_copy: Path) -> None:
    document = json.loads((bundle_copy / MANIFEST).read_text())
    document["graphs"]["encode"] = document["graphs"]["clip.plain"]
    document["graphs"]["decode"] = document["graphs"]["clip"]
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    add_engine(bundle_copy, "decode.fp16", graph="decode")
    alone = {one.label: one for one in list_cases(Bundle.open(bundle_copy), DRIVER)}
    assert alone["decode.fp16 as a stream"].why_not == "decode.fp16 has no engine of encode beside it"
    add_engine(bundle_copy, "encode.fp16", graph="encode")
    found = {one.label: one for one in list_cases(Bundle.open(bundle_copy), DRIVER)}
    stream = found["onnxruntime:function as a stream"]
    assert (stream.encode, stream.options) == ({"graph": "encode"}, {"graph": "decode", "operator": "function"})
    engines = found["decode.fp16 as a stream"]
    assert (engines.encode, engines.options) == ({"engine": "encode.fp16"}, {"engine": "decode.fp16"})
    assert engines.why_not is None
    assert not {"encode.fp16", "decode.fp16"} & set(found)


def test_graphs_in_precisions_that_the_cpu_lacks(bundle_copy: Path) -> None:
    document = json.loads((bundle_copy / MANIFEST).read_text())
    for precision in ("fp16", "bf16"):
        document["graphs"][f"clip.{precision}"] = {**document["graphs"]["clip"], "precision": precision}
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    found = {one.label: one.why_not for one in list_cases(Bundle.open(bundle_copy), DRIVER)}
    assert found["onnxruntime:function:fp16"] is None
    assert "no bfloat16" in str(found["onnxruntime:function:bf16"])


def test_the_picture_shows_what_flips(tiny: Bundle, tmp_path: Path) -> None:
    (vectors,) = select_vectors(tiny, [1])
    probability = vectors.outputs["probability"].copy()
    probability[0, 1, :4, :6] = 1 - probability[0, 1, :4, :6]
    save_masks(tiny, {"some:target": {vectors.record.file: probability}}, [1], tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as picture:
        pixels = np.asarray(picture)
    assert int((pixels == FLIPPED).all(axis=-1).sum()) == 24
