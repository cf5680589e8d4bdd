"""The operators for CUDAExecutionProvider: the same source on the emulated CUDA, in the real ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from avsbg.native_library import NativeLibrary, NativeLibraryError
from avsbg.runtime.backends import create
from avsbg.runtime.backends.onnxruntime import backend as backend_module
from avsbg.runtime.backends.onnxruntime import operator
from avsbg.runtime.bundle import Bundle
from fixtures import tiny_bundle
from fixtures.emulation import compile_library
from fixtures.operator_graphs import descriptors, graph, means, volume
from fixtures.operator_library import compile_operators

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def built() -> dict[str, Path]:
    return {"cuda": compile_library(), "onnxruntime": compile_operators()}


@pytest.fixture
def libraries(built: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The emulated libraries in place of those of this installation."""

    def find(name: str) -> NativeLibrary:
        return NativeLibrary(name, built[name], {"cuda": "emulated"})

    monkeypatch.setattr(operator, "native_library", find)
    monkeypatch.setattr(backend_module, "native_library", find)
    return built


def session(model: onnx.ModelProto, *, tf32: bool = False) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    assert operator.register_cuda(options, tf32=tf32) == "CUDA emulated" + (", tf32" if tf32 else "")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


TYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}


@pytest.mark.parametrize("cast", TYPES)
@pytest.mark.parametrize("shape", [(0, 3, 4, 8), (1, 1, 1, 8), (2, 49, 49, 128), (2, 130, 33, 24)])
def test_means_in_the_types_of_the_graph(libraries: Any, cast: int, shape: tuple[int, ...]) -> None:
    feed = descriptors(*shape)
    rounded = {name: array.astype(TYPES[cast]) for name, array in feed.items()}
    runs = session(graph(cast=cast))
    for _ in range(2):  # the second in memory that the first returned
        for result, expected in zip(runs.run(None, feed), means(**rounded), strict=True):
            assert result.dtype == np.float32
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("outputs", [("mean_a",), ("mean_a", "")])
def test_the_second_output_may_be_left_out(libraries: Any, outputs: tuple[str, ...]) -> None:
    feed = descriptors(2, 200, 40, 16)
    (result,) = session(graph(outputs=outputs)).run(None, feed)
    np.testing.assert_allclose(result, means(**feed)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relu", [None, 0, 1])
def test_the_volume(libraries: Any, relu: int | None) -> None:
    feed = descriptors(2, 50, 77, 40)
    attributes = {} if relu is None else {"relu": relu}
    result = session(graph("CorrelationVolume", outputs=("volume",), **attributes)).run(None, feed)[0]
    expected = volume(**feed)
    np.testing.assert_allclose(result, np.maximum(expected, 0) if relu else expected, rtol=1e-5, atol=1e-4)


def test_tf32_only_where_it_is_asked_for(libraries: Any) -> None:
    feed = descriptors(1, 40, 40, 64)
    exact, rounded = (session(graph(), tf32=tf32).run(None, feed)[0] for tf32 in (False, True))
    expected = means(**feed)[0]
    assert np.abs(exact - expected).max() < 1e-5
    assert 1e-5 < np.abs(rounded - expected).max() < 1e-2


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("MeanCorrelation", (1, 3, 4, 12), "C = 12 channels: must be a multiple of 8"),
        ("CorrelationVolume", (1, 3, 4, 520), "C = 520 channels"),
        ("MeanCorrelation", (1, 0, 4, 8), r"at least 1, but a is \[1, 0, 8\]"),
    ],
)
def test_what_the_kernels_decline_is_an_error_of_the_run(
    libraries: Any, name: str, shape: tuple[int, ...], message: str
) -> None:
    outputs = ("mean_a",) if name == "MeanCorrelation" else ("volume",)
    runs = session(graph(name, outputs=outputs))
    with pytest.raises(Exception, match=f"{name}: .*{message}"):
        runs.run(None, descriptors(*shape))


def test_a_whole_graph(libraries: Any, tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is preferred to the function body that the graph holds."""
    calls: list[str] = []

    def register(options: Any) -> str:
        calls.append(operator.register_cuda(options))
        return calls[-1]

    monkeypatch.setattr(backend_module, "register", register)
    inputs = tiny_bundle.inputs(2, 0)
    with create("onnxruntime", tiny, operator="native") as backend:
        results = backend.run(inputs)
        assert backend.describe()["kernel"] == "CUDA emulated"
    expected = tiny_bundle.expected(inputs["frames"], inputs["waveform"])
    assert np.abs(results["logits"] - expected["logits"]).max() < 1e-4
    assert len(calls) == 1


def test_a_library_that_cannot_be_used_is_named(libraries: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words in (("missing.so", "cannot be loaded"), (str(libraries["onnxruntime"]), "has no function avsbg_")):
        monkeypatch.setitem(libraries, "cuda", Path(name))
        with pytest.raises(NativeLibraryError, match=words):
            operator.register_cuda(onnxruntime.SessionOptions())
