"""ONNX Runtime's GPU providers on a real GPU: what was asked for runs, and agrees with PyTorch."""

from __future__ import annotations

import onnxruntime
import pytest

from avsbg.runtime.backends import create
from avsbg.runtime.backends.onnxruntime.providers import CUDA, TENSORRT
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.verify.verify import select_vectors, verify_backend

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("name", "provider", "operator"),
    [
        ("onnxruntime-cuda", CUDA, "function"),
        ("onnxruntime-cuda", CUDA, "native"),
        ("onnxruntime-tensorrt", TENSORRT, "function"),
    ],
)
def test_every_node_that_computes_is_on_the_gpu(tiny: Bundle, name: str, provider: str, operator: str) -> None:
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime was built without {provider}: pip install 'avsbg[gpu]'")
    with create(name, tiny, operator=operator) as backend:
        verdict = verify_backend(backend, select_vectors(tiny), tolerance=1e-3)
        described = backend.describe()
    assert verdict.passed
    assert described["providers"][0] == provider
    assert described["nodes"][provider] > 0
