"""`avsbg doctor` says what is there, what is missing and what follows, on any machine."""

from __future__ import annotations

import json

import pytest

from avsbg.runtime import doctor
from avsbg.runtime.device.gpu import CudaDriver, Gpu
from fixtures.cli import run_avsbg

ORIN = Gpu("Orin", 87, 8 * 2**30, 8, integrated=True)


def _by_name(monkeypatch: pytest.MonkeyPatch, driver: CudaDriver) -> dict[str, doctor.Finding]:
    monkeypatch.setattr(doctor, "read_cuda_driver", lambda: driver)
    return {finding.name: finding for finding in doctor.diagnose().findings}


def test_says_why_there_is_no_gpu_and_that_tensorrt_cannot_build_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "read_cuda_driver", lambda: CudaDriver(None, "the NVIDIA driver is not installed"))
    result = run_avsbg("doctor", "--json")
    assert result.code == 0, result.output
    document = json.loads(result.out)
    gpu = next(finding for finding in document["findings"] if finding["name"] == "GPU")
    assert gpu["found"] is None and gpu["why"] == "the NVIDIA driver is not installed"
    build = next(ability for ability in document["abilities"] if ability["use"] == "avsbg build --backend tensorrt")
    assert not build["possible"] and "GPU" in build["why_not"]


def test_describes_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _by_name(monkeypatch, CudaDriver("12.6", None, (ORIN,)))
    assert found["GPU"].found == "Orin, compute capability 8.7, 8 GiB (driver for CUDA 12.6)"


def test_a_plugin_without_code_for_the_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    volta = Gpu("Tesla V100", 70, 16 * 2**30, 80, integrated=False)
    plugin = _by_name(monkeypatch, CudaDriver("12.6", None, (ORIN, volta)))["TensorRT plugin"]
    if plugin.found is None:
        assert plugin.why and plugin.remedy
    else:
        assert plugin.why == "it holds no code for Tesla V100"


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    found = _by_name(monkeypatch, CudaDriver(None, "no driver"))
    assert found["TensorRT for RTX"].found is None
    assert found["TensorRT for RTX"].remedy == "pip install 'avsbg[rtx]'"
    text = run_avsbg("doctor").output
    assert "pip install 'avsbg[rtx]'" in text


def test_each_use_names_the_commands_that_make_it_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(doctor, "read_cuda_driver", lambda: CudaDriver("12.6", None, (ORIN,)))
    abilities = {ability.use: ability for ability in doctor.diagnose().abilities}
    run = abilities["avsbg verify, run, bench --backend tensorrt"]
    assert not run.possible and "TensorRT, pycuda" in str(run.why_not)
    assert any(remedy.startswith("pip install pycuda") for remedy in run.remedies)
    assert any("avsbg[tensorrt]" in remedy for remedy in run.remedies)
    assert abilities["CUDA graphs with tensorrt and tensorrt-rtx"].remedies[-1] == "pip install cuda-bindings"
    text = run_avsbg("doctor", columns=250).output
    assert "pip install cuda-bindings" in text


def test_a_jetson_is_told_what_jetpack_it_has_and_how_tensorrt_comes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "jetson_release", lambda: "R36, REVISION: 4.3")
    monkeypatch.setattr(doctor, "driver_version", lambda: "540.4.0")
    found = _by_name(monkeypatch, CudaDriver("12.6", None, (ORIN,)))
    assert "JetPack 6" in str(found["system"].found)
    assert found["system"].details["jetpack"] == "6"
    assert found["GPU"].found == "Orin, compute capability 8.7, 8 GiB (driver 540.4.0 for CUDA 12.6)"
    if found["TensorRT"].found is None:
        assert "apt install python3-libnvinfer" in str(found["TensorRT"].remedy)


def test_a_tensorrt_that_is_too_old_or_broken_is_not_taken_for_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    old = types.ModuleType("tensorrt")
    old.__version__ = "8.6.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    found = _by_name(monkeypatch, CudaDriver("12.6", None, (ORIN,)))["TensorRT"]
    assert found.found is None and "8.6.1 is too old" in str(found.why)


@pytest.mark.parametrize("built_in", [True, False])
def test_providers_of_onnx_runtime(monkeypatch: pytest.MonkeyPatch, built_in: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if built_in else ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    found = _by_name(monkeypatch, CudaDriver("12.6", None, (ORIN,)))
    assert (found["ONNX Runtime's CUDA"].found is not None) == built_in
    assert found["ONNX Runtime's TensorRT"].found is None
    assert "avsbg[gpu]" in str(found["ONNX Runtime's TensorRT"].remedy)
