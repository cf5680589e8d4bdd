"""The backend torch on a GPU: the device asked for, the operator that is chosen, and how the row is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from avsbg.benchmarks.measure.cases import list_cases
from avsbg.export.torch_backend import TorchBackend, _fp32_products, torch_device
from avsbg.model import Variant, operators_cuda
from avsbg.native_library import NativeLibraryError
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.errors import BackendError
from fixtures.cli import run_avsbg


@pytest.fixture
def network(bundle_copy: Path) -> Bundle:
    """A bundle whose manifest names AVS-BG; nothing here executes it."""
    manifest = json.loads((bundle_copy / MANIFEST).read_text())
    (bundle_copy / MANIFEST).write_text(json.dumps(manifest | {"variant": Variant().to_dict()}))
    return Bundle.open(bundle_copy)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch as it answers where two GPUs are."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The native library is there; how often it was asked for."""
    loaded: list[str] = []
    monkeypatch.setattr(operators_cuda, "library", lambda: loaded.append("loaded"))
    return loaded


def test_a_device_that_is_not_there_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:", "cuda:-1", "cpu:0", "CUDA"):
        with pytest.raises(BackendError, match=f"'{name}' names no device"):
            torch_device(name)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(BackendError, match=r"cuda was asked for, but PyTorch .* was built without CUDA"):
        torch_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"for CUDA 13\.0 finds no GPU.*--device cpu"):
        torch_device("cuda:1")


def test_gpus_by_number(gpus: None) -> None:
    assert torch_device("cuda") == torch.device("cuda", 0)
    assert torch_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(BackendError, match=r"there is no GPU number 2\. There are 2"):
        torch_device("cuda:2")


@pytest.mark.parametrize(
    ("operator", "chosen", "loads"),
    [(None, "native", 1), ("native", "native", 1), ("efficient", "efficient", 0), ("published", "published", 0)],
)
def test_on_a_gpu_our_kernels_compute_unless_another_is_named(
    network: Bundle, gpus: None, library: list[str], operator: str | None, chosen: str, loads: int
) -> None:
    described = TorchBackend(network, operator=operator, device="cuda:1", precision="fp16").describe()
    assert (described["operator"], described["device"], described["gpu"]) == (chosen, "cuda:1", "GPU 1")
    assert described["precision"] == "fp16"
    assert len(library) == loads


def test_a_missing_library_stops_what_would_use_it(
    network: Bundle, gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise NativeLibraryError("the kernels were not built.", "make native")

    monkeypatch.setattr(operators_cuda, "library", missing)
    with pytest.raises(NativeLibraryError, match="make native"):
        TorchBackend(network, device="cuda")
    assert TorchBackend(network, device="cuda", operator="efficient").describe()["operator"] == "efficient"


def test_what_the_cpu_does_not_have(network: Bundle) -> None:
    with pytest.raises(BackendError, match=r"our kernels are for GPUs.*torch:efficient"):
        TorchBackend(network, operator="native")
    with pytest.raises(BackendError, match="torch on cpu computes in fp32 or bf16, not in tf32"):
        TorchBackend(network, precision="tf32")


def test_fp32_is_not_tf32_whatever_pytorch_is_set_to() -> None:
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [setting.fp32_precision for setting in settings]
    for precision in ("ieee", "tf32"):
        with _fp32_products(precision):
            assert [setting.fp32_precision for setting in settings] == [precision] * 2
            assert operators_cuda.uses_tf32() == (precision == "tf32")
    assert [setting.fp32_precision for setting in settings] == before


def test_cases_of_a_benchmark_say_what_will_run(network: Bundle, gpus: None, library: list[str]) -> None:
    path = network.path
    native, composite = list_cases([path], ["torch", "torch:efficient"], threads=1, clips=1, device="cuda")
    assert [case.label.partition(":")[2] for case in (native, composite)] == ["torch:native", "torch:efficient"]
    assert native.variant == composite.variant
    assert native.create().describe()["device"] == "cuda:0"
    cpu, other = list_cases([path], ["torch", "onnxruntime"], threads=1, clips=1, device="cpu")
    assert cpu.create().describe()["operator"] == "efficient"
    assert other.options["device"] == "cpu"
    (wrong,) = list_cases([path], ["onnxruntime"], threads=1, clips=1, device="cuda")
    with pytest.raises(BackendError, match=r"onnxruntime runs on cpu, not on cuda\..*onnxruntime-cuda"):
        wrong.create()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
@pytest.mark.parametrize("verb", ["run", "bench", "verify"])
def test_verbs_refuse_a_gpu_that_is_not_there(network: Bundle, embedding: Bundle, tmp_path: Path, verb: str) -> None:
    (video := tmp_path / "video.mp4").touch()
    arguments = {
        "run": (network.path, video, "-o", tmp_path / "out"),
        "bench": (embedding.path, "-o", tmp_path / "rows"),
        "verify": (network.path,),
    }
    result = run_avsbg(verb, *arguments[verb], "--backend", "torch", "--device", "cuda")
    assert isinstance(result.error, BackendError)
    assert "the device cuda was asked for, but PyTorch" in result.paragraph
