"""The backend for TensorRT, on a fake `libnvinfer` and a fake CUDA driver that hold to the rules of the real ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import MANIFEST
from fixtures import fake_libnvinfer, libavsbg
from fixtures.fake_libnvinfer import add_fake_engine

pytestmark = pytest.mark.native

# Of TensorRT 10.3's headers (of the registry, of those of another 10.x of 2024): the places of the methods that the
# backend calls, in the tables of their classes.
PLACES_10_3 = {
    ("NvInferImpl.h", "VRuntime"): {
        "deserializeCudaEngine": 1, "getPluginRegistry": 16, "setEngineHostCodeAllowed": 19,
    },
    ("NvInferImpl.h", "VCudaEngine"): {
        "createExecutionContext": 3, "getNbOptimizationProfiles": 8, "getTensorShape": 17, "getTensorDataType": 18,
        "getTensorLocation": 19, "getTensorIOMode": 21, "getProfileShape": 27, "getNbIOTensors": 28,
    },
    ("NvInferImpl.h", "VExecutionContext"): {
        "getOptimizationProfile": 9, "setOptimizationProfileAsync": 15, "setInputShape": 19, "getTensorShape": 20,
        "setTensorAddress": 22, "inferShapes": 26, "enqueueV3": 35,
    },
    ("NvInferRuntimeCommon.h", "IPluginRegistry"): {"loadLibrary": 9, "getCreator": 13},
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A machine with a GPU and TensorRT, both fake, and a program of threads under AddressSanitizer."""

    program: Path
    headers: tuple[Path, Path]  # of TensorRT and CUDA
    backends: Path
    fakes: Path
    library: str = "libnvinfer.so.10"

    @property
    def onnxruntime(self) -> Path:
        """The backend that executes the fake's engines."""
        return self.backends / "libavsbg_backend_onnxruntime.so"

    def run(self, clips: Path, streams: Path, backend: str = "tensorrt", *more: str, **environment: Any) -> list[str]:
        """The words that the program tells."""
        command = [self.program, clips, streams, self.backends, self.fakes / self.library, backend, *more]
        return libavsbg.run_sanitized(*command, LD_LIBRARY_PATH=self.fakes, **environment)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    programs = libavsbg.build_sanitized("address")
    headers = fake_libnvinfer.find_headers(programs)
    libavsbg.build_sanitized("address", (*libavsbg.SANITIZED_TARGETS, "avsbg_backend_tensorrt"))
    folder = tmp_path_factory.mktemp("tensorrt")
    backends = fake_libnvinfer.install(programs, folder / "backends", "onnxruntime", "tensorrt")
    return Machine(programs / "avsbg_exercise", headers, backends, fake_libnvinfer.build(headers, folder / "fakes"))


def add_engines(machine: Machine, tiny: Bundle, tiny_stream: Bundle, folder: Path, **changes: Any) -> tuple[Path, Path]:
    """Copies of the two bundles with an engine of each graph."""
    clips, streams = shutil.copytree(tiny.path, folder / "clips"), shutil.copytree(tiny_stream.path, folder / "streams")
    add_fake_engine(clips, "clip", machine.onnxruntime, plugin=True, **changes)
    for graph in ("encode", "decode"):
        add_fake_engine(streams, graph, machine.onnxruntime, plugin=graph == "decode", **changes)
    return clips, streams


@pytest.mark.parametrize("capture", [True, False])
def test_clips_and_streams_of_four_threads(
    tiny: Bundle, tiny_stream: Bundle, tmp_path: Path, machine: Machine, capture: bool
) -> None:
    """A step that cannot be captured is enqueued call by call. Of two engines, the one for this GPU is taken."""
    clips, streams = add_engines(machine, tiny, tiny_stream, tmp_path)
    elsewhere = {"device": {"compute_capabilities": [89]}}
    add_fake_engine(clips, "clip", machine.onnxruntime, plugin=True, name="clip.elsewhere", **elsewhere)
    report = tmp_path / "report"
    environment = {} if capture else {"FAKE_CUDA_NO_CAPTURE": "1"}
    told = machine.run(clips, streams, FAKE_CUDA_REPORT=report, **environment)
    # The same as ONNX Runtime's backend tells, but here every mask lies on the GPU too, even after its model.
    assert told == [str(3 * (16 * 24 + 1)), "13", "1", "1", "all"]
    captured, launched = map(int, report.read_text().split())
    if capture:
        assert captured >= 3
        assert launched > captured
    else:
        assert (captured, launched) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "environment", "error"),
    [
        (
            {"version": "10.3.0"},
            {},
            r"was built by tensorrt 10\.3\.0; installed is 10\.13\.3\. Rebuild it: avsbg build .*/clips --backend "
            r"tensorrt --precision fp16 --implementation plugin --batch-range 4 4 4\.",
        ),
        (
            {"version": "10.14.0", "options": {"VERSION_COMPATIBLE": True}},
            {},
            r"installed is 10\.13\.3\. A version-compatible engine needs the same version or a later one\. Rebuild it",
        ),
        (
            {"device": {"compute_capabilities": [89, 120]}},
            {},
            r"was built for compute capability 8\.9, 12\.0; this GPU, Orin, has 8\.7\. Rebuild it",
        ),
        (
            {"device": {"compute_capabilities": [87], "name": "Orin", "multiprocessors": 16}},
            {},
            r"was built on another GPU: multiprocessors 16, here 8\. Rebuild it",
        ),
        (
            {"device": {"compute_capabilities": [87], "memory_gib": 32}},
            {},
            r"was built on another GPU: GiB of memory 32, here 8\. Rebuild it",
        ),
        (
            {"device": {"compute_capabilities": [87], "module": "NVIDIA Jetson Orin Nano"}},
            {},
            r"was built on another GPU: module NVIDIA Jetson Orin Nano, here none\. Rebuild it",
        ),
        (
            {},
            {"FAKE_TENSORRT_VERSION": "100200"},
            r"libnvinfer\.so\.10 is of version 10\.2\.0\. Install TensorRT 10\.3\.0 or later of major version 10",
        ),
        (
            {},
            {"FAKE_TENSORRT_VERSION": "110001"},
            r"libnvinfer\.so\.10 is of version 11\.0\.1\. Install TensorRT 10\.3\.0 or later of major version 10",
        ),
        (
            {"plugin_sha256": 64 * "0"},
            {},
            r"libavsbg_tensorrt\.so is not the plugin that .* was built with: its sha256 is [0-9a-f]{64}, the record "
            r"says 0{64}\. Rebuild it: .* Or install the library that it was built with\.",
        ),
    ],
)
def test_an_engine_that_cannot_run_here_is_refused(
    tiny: Bundle, tmp_path: Path, machine: Machine, changes: dict[str, Any], environment: dict[str, str], error: str
) -> None:
    clips = shutil.copytree(tiny.path, tmp_path / "clips")
    add_fake_engine(clips, "clip", machine.onnxruntime, plugin=True, **changes)
    with pytest.raises(AssertionError, match=error):
        machine.run(clips, clips, **environment)


def test_an_engine_that_may_not_be_loaded_is_refused(tiny: Bundle, tmp_path: Path, machine: Machine) -> None:
    clips = shutil.copytree(tiny.path, tmp_path / "clips")
    bundle = add_fake_engine(clips, "clip", machine.onnxruntime, plugin=True)
    with pytest.raises(
        AssertionError,
        match=r"was not built by this user on this machine, and an engine is native code\. Rebuild it: .* load it with "
        r"--trust \(trust in avsbg_model_options\)\.",
    ):
        machine.run(clips, clips, "tensorrt", "untrusted")
    with pytest.raises(
        AssertionError,
        match=r"has no fp32 rest-bf16 plain engine of tensorrt for the graph clip\. It has: clip\.fake\. Make one: "
        r"avsbg build .* --backend tensorrt --precision fp32 --rest bf16 --implementation plain",
    ):
        machine.run(clips, clips, "tensorrt:plain:fp32:rest-bf16")
    file = bundle.file(bundle.manifest.engines["clip.fake"].file)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"]")
    with pytest.raises(AssertionError, match=r"clip\.fake\.engine of the bundle .* has changed: its sha256 is"):
        machine.run(clips, clips)
    for magic, error in (
        (b"text", r"clip\.fake\.engine is not a TensorRT engine\. Rebuild it: avsbg build"),
        (b"vtrt", r"is an engine of tensorrt-rtx; its record says tensorrt\. Rebuild it: avsbg build"),
    ):
        file.write_bytes(magic + content[4:])
        document = json.loads((clips / MANIFEST).read_text())
        document["files"]["engines/clip.fake.engine"]["sha256"] = sha256(file)
        (clips / MANIFEST).write_text(json.dumps(document))
        with pytest.raises(AssertionError, match=error):
            machine.run(clips, clips)


def test_of_several_engines_for_this_gpu_one_must_be_named(tiny: Bundle, tmp_path: Path, machine: Machine) -> None:
    clips = shutil.copytree(tiny.path, tmp_path / "clips")
    for name in ("first", "second"):
        add_fake_engine(clips, "clip", machine.onnxruntime, plugin=True, name=name)
    with pytest.raises(AssertionError, match=r"2 engines of .* fit: first, second\. Say which: .*\(engine, --engine\)"):
        machine.run(clips, clips)


def test_tensorrt_for_rtx_runs_from_the_same_source(
    tiny: Bundle, tiny_stream: Bundle, tmp_path: Path, machine: Machine
) -> None:
    """With headers as those of TensorRT for RTX have it: another version, and a method that says whether to capture."""
    programs = machine.program.parent
    rtx = fake_libnvinfer.write_rtx_headers(machine.headers[0], programs / "rtx-headers")
    targets = ("avsbg_backend_tensorrt_rtx",)
    libavsbg.build_sanitized("address", targets, f"-DAVSBG_TENSORRT_RTX_INCLUDE_DIR={rtx}")
    backends = fake_libnvinfer.install(programs, tmp_path / "backends", "onnxruntime", "tensorrt-rtx")
    headers = rtx, machine.headers[1]
    fakes = fake_libnvinfer.build(headers, tmp_path / "fakes", "libtensorrt_rtx.so.1", version=10701)
    there = Machine(machine.program, headers, backends, fakes, "libtensorrt_rtx.so.1")
    clips, streams = add_engines(there, tiny, tiny_stream, tmp_path, backend="tensorrt-rtx", version="1.7.1.116")
    with pytest.raises(AssertionError, match=r"finds no libtensorrt_rtx\.so, which TensorRT for RTX needs for plugins"):
        there.run(clips, streams, "tensorrt-rtx")
    (fakes / "libtensorrt_rtx.so").symlink_to("libtensorrt_rtx.so.1")
    report = tmp_path / "report"
    told = there.run(clips, streams, "tensorrt-rtx", FAKE_CUDA_REPORT=report)
    assert told == [str(3 * (16 * 24 + 1)), "13", "1", "1", "all"]
    captured, launched = map(int, report.read_text().split())
    assert captured >= 3
    assert launched > captured


def test_methods_have_the_places_that_they_have_in_tensorrt_10_3(machine: Machine) -> None:
    """A backend that was compiled with later headers runs on JetPack 6's TensorRT."""
    for (header, name), places in PLACES_10_3.items():
        methods = fake_libnvinfer.list_methods(machine.headers[0] / header, name)
        assert {method: methods.index(method) for method in places} == places
