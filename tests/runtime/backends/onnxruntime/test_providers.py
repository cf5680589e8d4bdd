"""ONNX Runtime's GPU providers are strict. There is no GPU here: refusals are real, sessions on a GPU are played."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from avsbg.native_library import NativeLibrary, NativeLibraryError
from avsbg.runtime.backends import create
from avsbg.runtime.backends.onnxruntime import backend as backend_module
from avsbg.runtime.backends.onnxruntime import operator
from avsbg.runtime.backends.onnxruntime.operator import PLUGIN_PATHS
from avsbg.runtime.backends.onnxruntime.providers import CPU, CUDA, TENSORRT, check_providers
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from fixtures import tiny_bundle
from fixtures.engines import add_engine

GPU = {"onnxruntime-cuda": CUDA, "onnxruntime-tensorrt": TENSORRT}


@pytest.fixture(params=list(GPU))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_a_provider_that_is_not_installed(tiny: Bundle, name: str) -> None:
    with pytest.raises(BackendError, match=rf"has no {GPU[name]}.*avsbg\[gpu\]"), create(name, tiny):
        pass


def test_the_native_operator_has_no_kernel_for_tensorrt(tiny: Bundle) -> None:
    with pytest.raises(BackendError, match=rf"kernels for the CPU and {CUDA}, not for {TENSORRT}.*tensorrt:plugin"):
        create("onnxruntime-tensorrt", tiny, operator="native")


def test_the_threads_of_a_streams_graphs_stop_spinning(tiny_stream: Bundle) -> None:
    spins = {}
    for graph in ("clip", "encode", "decode"):
        with backend_module.OnnxRuntimeBackend(tiny_stream, graph) as backend:
            options = backend._session.get_session_options()
            try:
                spins[graph] = options.get_session_config_entry("session.force_spinning_stop")
            except RuntimeError:  # it was not set
                spins[graph] = None
    assert spins == {"clip": None, "encode": "1", "decode": "1"}


def test_nodes_on_another_provider_are_found_in_a_real_session(tiny: Bundle) -> None:
    """All nodes of this session are on the CPU, and it is held to have been asked for CUDA."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    real = onnxruntime.InferenceSession(str(tiny.path / "clip.plain.onnx"), options, providers=[CPU])
    played = SimpleNamespace(
        get_providers=lambda: [CUDA, CPU],
        get_provider_graph_assignment_info=real.get_provider_graph_assignment_info,
    )
    with pytest.raises(BackendError, match=rf"asked for {CUDA}, ONNX Runtime gave \d+ nodes to another: .* on {CPU}"):
        check_providers(played, CUDA)


class Played:
    """`InferenceSession` on a machine with a GPU: computes on the CPU and says what it is told to say."""

    chosen: list[str] | None = None
    others: tuple[tuple[str, str], ...] = ()

    def __init__(self, path: str, options: Any, providers: list[Any], disabled_optimizers: Sequence[str]) -> None:
        self.asked, self.options = providers[0]
        self.path = path
        self.session_options = options
        assert not disabled_optimizers  # in float32 ONNX Runtime optimises all that it can
        self.record = options.get_session_config_entry("session.record_ep_graph_assignment_info")
        self._real = onnxruntime_session(path, providers=[CPU])
        self.run = self._real.run
        self.get_session_options = self._real.get_session_options
        sessions.append(self)

    def get_providers(self) -> list[str]:
        return self.chosen or [self.asked, CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {self.asked: self.options}

    def get_provider_graph_assignment_info(self) -> list[Any]:
        nodes = [(self.asked, "MatMul"), (self.asked, "Conv"), (CPU, "Shape"), *self.others]
        return [
            SimpleNamespace(ep_name=who, get_nodes=lambda op=op: [SimpleNamespace(op_type=op, name=f"the {op}")])
            for who, op in nodes
        ]


onnxruntime_session = onnxruntime.InferenceSession
sessions: list[Played] = []


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> type[Played]:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Played)
    monkeypatch.setattr(Played, "chosen", None)
    monkeypatch.setattr(Played, "others", ())
    return Played


def test_a_session_on_the_provider(gpu: type[Played], tiny: Bundle, name: str) -> None:
    inputs = tiny_bundle.inputs(1, 0)
    with create(name, tiny, device=1, provider_options={"gpu_mem_limit": "1000000"}, threads=1) as backend:
        results = backend.run(inputs)
        described = backend.describe()
    assert sessions[-1].record == "1"
    expected = tiny_bundle.expected(inputs["frames"], inputs["waveform"])
    assert abs(results["logits"] - expected["logits"]).max() < 1e-4
    assert described["backend"] == name and described["providers"][0] == GPU[name]
    assert described["nodes"] == {GPU[name]: 2, CPU: 1}
    assert described["provider_options"]["device_id"] == "1"
    assert described["provider_options"]["gpu_mem_limit"] == "1000000"
    assert described["provider_options"].get("use_tf32") == {"onnxruntime-cuda": "0"}.get(name)


@pytest.fixture
def cuda_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both native libraries are there; registering them is left out, for want of a GPU to run them on."""
    monkeypatch.setattr(operator, "native_library", lambda name: NativeLibrary(name, Path(f"lib{name}.so"), {}))
    monkeypatch.setattr(backend_module, "native_library", operator.native_library)
    monkeypatch.setattr(operator, "_register", [].append)


def test_the_native_operator_on_cuda(
    gpu: type[Played], cuda_libraries: None, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "others", ((CUDA, "MeanCorrelation"),))
    for asked, tf32 in (({}, "0"), ({"use_tf32": "1"}, "1")):
        with create("onnxruntime-cuda", tiny, operator="native", device="cuda:1", provider_options=asked) as backend:
            described = backend.describe()
        assert (described["operator"], described["provider_options"]["device_id"]) == ("native", "1")
        entry = sessions[-1].session_options.get_session_config_entry
        assert (entry("avsbg.cuda_library"), entry("avsbg.cuda_tf32")) == ("libcuda.so", tf32)


def test_a_function_body_is_not_taken_for_our_kernel(gpu: type[Played], cuda_libraries: None, tiny: Bundle) -> None:
    with (
        pytest.raises(BackendError, match=r"executes the function body of MeanCorrelation, not our kernel"),
        create("onnxruntime-cuda", tiny, operator="native"),
    ):
        pass


@pytest.fixture
def with_plugin_file(bundle_copy: Path) -> Bundle:
    """The tiny bundle with an engine that was built with the plugin; the session that is played can load its file."""
    shutil.copyfile(bundle_copy / "clip.plain.onnx", bundle_copy / "clip.plugin.onnx")
    plugin = {"sha256": "0" * 64, "operators": ["MeanCorrelation"], "version": "1", "namespace": ""}
    return add_engine(
        bundle_copy, "clip.fp32", graph="clip", operator="plugin", plugin=plugin, parsed_file="clip.plugin.onnx"
    )


def test_the_plugin_under_tensorrts_provider(
    gpu: type[Played], cuda_libraries: None, with_plugin_file: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider gets the file that TensorRT parses and the library that registers the plugin."""
    monkeypatch.setattr(gpu, "others", ((TENSORRT, "MeanCorrelations"),))
    with create("onnxruntime-tensorrt", with_plugin_file, operator="plugin") as backend:
        described = backend.describe()
    assert sessions[-1].path == str(with_plugin_file.path / "clip.plugin.onnx")
    assert sessions[-1].options[PLUGIN_PATHS] == "libavsbg_tensorrt_register.so"
    assert (described["operator"], described["kernel"]) == ("plugin", "CUDA unknown")
    own = {PLUGIN_PATHS: "mine.so"}
    with create("onnxruntime-tensorrt", with_plugin_file, operator="plugin", provider_options=own):
        assert sessions[-1].options[PLUGIN_PATHS] == "mine.so"


def test_the_plugin_is_proven_and_never_replaced(
    gpu: type[Played],
    cuda_libraries: None,
    tiny: Bundle,
    with_plugin_file: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def attempt(bundle: Bundle) -> None:
        with create("onnxruntime-tensorrt", bundle, operator="plugin"):
            pass

    with pytest.raises(
        BackendError, match=r"no file of the graph clip, as it is now, for TensorRT's plugin.*avsbg build"
    ):
        attempt(tiny)
    # The graph was made anew since: with other scales, say.
    manifest = with_plugin_file.manifest
    engines = {name: one.model_copy(update={"graph_sha256": "0" * 64}) for name, one in manifest.engines.items()}
    stale = replace(with_plugin_file, manifest=manifest.model_copy(update={"engines": engines}))
    with pytest.raises(BackendError, match=r"no file of the graph clip, as it is now"):
        attempt(stale)
    with pytest.raises(BackendError, match=r"function body of MeanCorrelation, not our kernel"):
        attempt(with_plugin_file)
    monkeypatch.setattr(gpu, "others", ((CPU, "MeanCorrelations"),))
    with pytest.raises(BackendError, match=rf"MeanCorrelations the MeanCorrelations on {CPU}"):
        attempt(with_plugin_file)
    monkeypatch.setattr(onnxruntime, "__version__", "1.21.1")
    with pytest.raises(NativeLibraryError, match=r"1\.21\.1 sees no plugin.*1\.22 or later"):
        attempt(with_plugin_file)


def test_a_provider_that_did_not_start(
    gpu: type[Played], tiny: Bundle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "chosen", [CPU])
    with pytest.raises(BackendError, match=rf"asked for {GPU[name]}, ONNX Runtime chose {CPU}"), create(name, tiny):
        pass


def test_a_node_behind_ones_back(gpu: type[Played], tiny: Bundle, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "others", ((CPU, "LayerNormalization"),))
    with (
        pytest.raises(BackendError, match="gave 1 nodes to another: LayerNormalization the LayerNormalization on CPU"),
        create(name, tiny),
    ):
        pass


def test_a_version_that_cannot_tell_is_kept_off_the_cpu(
    gpu: type[Played], tiny: Bundle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: dict[str, str] = {}
    monkeypatch.delattr(gpu, "get_provider_graph_assignment_info")

    class Options(onnxruntime.SessionOptions):
        def add_session_config_entry(self, key: str, value: str) -> None:
            entries[key] = value

        def get_session_config_entry(self, key: str) -> str:
            return entries.get(key, "")

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    with create(name, tiny) as backend:
        assert backend.describe()["nodes"] == {}
    assert entries == {"session.disable_cpu_ep_fallback": "1"}
