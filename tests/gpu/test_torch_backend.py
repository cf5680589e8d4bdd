"""The backend torch on a real GPU: every operator and precision against the bundle's vectors, which the CPU made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle

pytestmark = pytest.mark.gpu
DEVICE = "cuda"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from avsbg.export.bundle_writer import export_bundle
    from avsbg.export.graphs import AudioForm
    from avsbg.export.shape import ClipShape
    from avsbg.export.weights import from_seed
    from avsbg.model import named_variant

    path: Path = tmp_path_factory.mktemp("gpu") / "torch"
    module, weights = from_seed(named_variant("avs-bg", encoder="pvt_v2_b0"), AudioForm.EMBEDDING, seed=1)
    export_bundle(module, path, weights=weights, shape=ClipShape(3, 64, 64))
    return Bundle.open(path)


# Largest error of the logits, whose largest is about 1.
BOUNDS = {"fp32": 1e-3, "tf32": 2e-2, "fp16": 2e-2, "bf16": 1e-1}


@pytest.mark.parametrize("operator", ["native", "efficient", "published"])
@pytest.mark.parametrize("precision", BOUNDS)
def test_the_vectors_of_the_cpu(bundle: Bundle, operator: str, precision: str) -> None:
    from avsbg.export.torch_backend import TorchBackend

    with TorchBackend(bundle, operator=operator, precision=precision, device=DEVICE) as backend:
        assert backend.describe()["operator"] == operator
        for vectors in bundle.vectors():
            logits = backend.run(vectors.inputs, ["logits"])["logits"]
            scale = np.abs(vectors.outputs["logits"]).max()
            assert np.abs(logits - vectors.outputs["logits"]).max() < BOUNDS[precision] * scale


def test_an_output_stays_on_the_gpu(bundle: Bundle) -> None:
    from avsbg.export.torch_backend import TorchBackend, TorchTensor

    vectors = next(bundle.vectors())
    with TorchBackend(bundle, device=DEVICE) as backend:
        outputs = backend.run(vectors.inputs, ["logits"], device_outputs=["logits"])
        kept = outputs["logits"]
        assert isinstance(kept, TorchTensor) and kept.tensor.device.type == DEVICE
        np.testing.assert_allclose(kept.numpy(), vectors.outputs["logits"], rtol=0, atol=1e-2)
