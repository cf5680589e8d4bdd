"""ONNX Runtime's GPU providers on a real GPU: what was asked for runs, and agrees with PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnxruntime
import pytest

from avsbg.runtime.backends import create
from avsbg.runtime.backends.onnxruntime.providers import CUDA, TENSORRT
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.verify.verify import select_vectors, verify_backend
from fixtures.engines import add_engine

pytestmark = pytest.mark.gpu


@pytest.fixture
def with_plugin_graph(tiny: Bundle, tmp_path: Path) -> Bundle:
    """The bundle with the graph that TensorRT parses for its plugin, and the record of an engine built from it."""
    from avsbg.export.plugin_graph import write_plugin_graph

    path = Path(shutil.copytree(tiny.path, tmp_path / "bundle"))
    write_plugin_graph(path / "clip.onnx", path / "clip.plugin.onnx")
    plugin = {"sha256": "0" * 64, "operators": ["MeanCorrelation"], "version": "1", "namespace": ""}
    record = {"graph": "clip", "operator": "plugin", "precision": "fp32", "plugin": plugin}
    return add_engine(path, "clip.fp32", parsed_file="clip.plugin.onnx", **record)


@pytest.mark.parametrize(
    ("name", "provider", "operator"),
    [
        ("onnxruntime-cuda", CUDA, "function"),
        ("onnxruntime-cuda", CUDA, "native"),
        ("onnxruntime-tensorrt", TENSORRT, "function"),
        ("onnxruntime-tensorrt", TENSORRT, "plugin"),
    ],
)
def test_every_node_that_computes_is_on_the_gpu(
    with_plugin_graph: Bundle, name: str, provider: str, operator: str
) -> None:
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime was built without {provider}: pip install 'avsbg[gpu]'")
    with create(name, with_plugin_graph, operator=operator) as backend:
        verdict = verify_backend(backend, select_vectors(with_plugin_graph), tolerance=1e-3)
        described = backend.describe()
    assert verdict.passed
    assert (described["providers"][0], described["operator"]) == (provider, operator)
    assert described["nodes"][provider] > 0
