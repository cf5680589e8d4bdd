"""`avsbg doctor` says what is there, what is missing and what follows, on any machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from avsbg.native_library import NativeLibrary, NativeLibraryError
from avsbg.runtime import backends, doctor
from avsbg.runtime.device.gpu import CudaDriver, Gpu
from avsbg.runtime.device.jetson import read_jetson
from fixtures import ROOT
from fixtures.cli import run_avsbg
from fixtures.jetson import write_jetson

ORIN = Gpu("Orin", 87, 8 * 2**30, 8, integrated=True)


def _by_name(monkeypatch: pytest.MonkeyPatch, driver: CudaDriver) -> dict[str, doctor.Finding]:
    monkeypatch.setattr(doctor, "read_cuda_driver", lambda: driver)
    return {finding.name: finding for finding in doctor.diagnose().findings}


def test_says_why_there_is_no_gpu_and_that_tensorrt_cannot_build_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "read_cuda_driver", lambda: CudaDriver(None, "the NVIDIA driver is not installed"))
    result = run_avsbg("doctor", "--format", "json")
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


def test_a_plugin_that_the_driver_compiles_for_the_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    built = NativeLibrary("tensorrt", Path("plugin.so"), {"architectures": "87 110", "ptx": "87 110"})
    monkeypatch.setattr(doctor, "native_library", lambda _: built)
    turing, ada = Gpu("T4", 75, 2**34, 40, integrated=False), Gpu("L4", 89, 2**34, 58, integrated=False)
    whys = [
        _by_name(monkeypatch, CudaDriver("13.0", None, gpus))["TensorRT plugin"].why
        for gpus in ((ORIN,), (ada,), (turing,), (ada, turing))
    ]
    assert whys[0] is None and whys[2:] == ["it holds no code for T4", "it holds no code for L4, T4"]
    assert str(whys[1]).startswith("it holds no code for L4: the driver compiles it at its first use")


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
    assert any("avsbg[cuda]" in remedy and "nvcc" in remedy for remedy in run.remedies)
    assert any("avsbg[tensorrt]" in remedy for remedy in run.remedies)
    assert "avsbg[cuda]" in abilities["CUDA graphs with tensorrt and tensorrt-rtx"].remedies[-1]
    assert "pip install 'avsbg[cuda]'" in run_avsbg("doctor", columns=250).output


def test_a_jetson_is_told_what_jetpack_it_has_and_how_tensorrt_comes_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jetson = read_jetson(write_jetson(tmp_path))
    monkeypatch.setattr(doctor, "read_jetson", lambda: jetson)
    monkeypatch.setattr(doctor, "driver_version", lambda: "540.4.0")
    found = _by_name(monkeypatch, CudaDriver("12.6", None, (ORIN,)))
    assert "JetPack 6" in str(found["system"].found)
    assert found["system"].details["jetpack"] == "6"
    assert found["GPU"].found == "Orin, compute capability 8.7, 8 GiB (driver 540.4.0 for CUDA 12.6)"
    assert found["Jetson"].found == "NVIDIA Jetson AGX Orin Developer Kit, 61 GiB for processor and GPU"
    assert found["speed setting"].why == "the fast setting: sudo nvpmodel -m 0 && sudo jetson_clocks"
    assert found["power"].found == "VDD_GPU_SOC 4 W, VIN_SYS_5V0 10 W"
    assert found["power"].why == "slowed down 3 times by over-current since the start"
    if found["TensorRT"].found is None:
        assert "apt install python3-libnvinfer" in str(found["TensorRT"].remedy)


def test_the_plugin_under_onnx_runtime_needs_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `onnxruntime-tensorrt`, the plugin's own library is all that the form `plugin` needs beyond the others."""
    real = doctor.native_library

    def without_plugin(name: str) -> NativeLibrary:
        if name == "tensorrt":
            raise NativeLibraryError("the TensorRT plugin was not built.", "make native")
        return real(name)

    monkeypatch.setattr(doctor, "read_cuda_driver", lambda: CudaDriver("12.6", None, (ORIN,)))
    monkeypatch.setattr(doctor, "_provider", lambda name, _: doctor.Finding(name, "there"))
    monkeypatch.setattr(doctor, "native_library", without_plugin)
    abilities = {ability.use: ability for ability in doctor.diagnose().abilities}
    use = "avsbg verify, run, bench --backend onnxruntime-tensorrt"
    assert abilities[use].possible
    assert abilities[f"{use}:plugin"].why_not == "needs TensorRT plugin"


def test_builds_are_promised_only_where_all_that_they_import_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.util.find_spec
    for missing, remedy in (("onnxscript", "avsbg[build]"), ("onnx", "avsbg[build]"), ("onnxruntime", "avsbg[cpu]")):
        monkeypatch.setattr(
            doctor.importlib.util, "find_spec", lambda name, missing=missing: None if name == missing else real(name)
        )
        builds = [ability for ability in doctor.diagnose().abilities if ability.use.startswith("avsbg build")]
        assert len(builds) == 4 and not any(ability.possible for ability in builds)
        assert all(any(remedy in one for one in ability.remedies) for ability in builds)
        # PyTorch is no part of it.
        assert not any("PyTorch" in str(ability.why_not) for ability in builds)


@pytest.mark.parametrize(
    ("release", "cuda", "extra"),
    [
        ("R36 (release), REVISION: 4.3", "12.6", "jetson6"),
        ("R38 (release), REVISION: 2.0", "13.0", "jetson7"),
        (None, "12.8", "cuda"),
    ],
)
def test_what_executes_engines_comes_with_the_extra_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, release: str | None, cuda: str, extra: str
) -> None:
    jetson = None if release is None else read_jetson(write_jetson(tmp_path, release=release))
    monkeypatch.setattr(doctor, "read_jetson", lambda: jetson)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    found = _by_name(monkeypatch, CudaDriver(cuda, None, (ORIN,)))
    assert all(f"avsbg[{extra}]" in str(found[name].remedy) for name in ("pycuda", "cuda-bindings"))


@pytest.mark.parametrize(("version", "fits"), [("12.9.10", True), ("13.4.1", False)])
def test_bindings_of_a_later_cuda_than_the_drivers(monkeypatch: pytest.MonkeyPatch, version: str, fits: bool) -> None:
    """The extra `cuda` has no upper bound: on a driver of CUDA 12, installing it again would change nothing."""
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(doctor, "_version", lambda _: version)
    found = doctor._bindings(CudaDriver("12.6", None, (ORIN,)), "pip install 'avsbg[cuda]'")
    assert (found.why is None) == fits
    if not fits:
        assert found.why == "it is of CUDA 13, and the driver's is 12.6"
        assert found.remedy == "pip install 'cuda-bindings==12.*'"


def test_every_backend_and_every_extra_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for extras of developers and of a Jetson, of optional sensors, and one that others bring together."""
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(doctor, "read_cuda_driver", lambda: CudaDriver(None, "no driver"))
    abilities = doctor.diagnose().abilities
    told = " ".join(remedy for ability in abilities for remedy in ability.remedies)
    shown = {extra for extra in extras if f"avsbg[{extra}]" in told}
    assert extras.keys() - shown == {"dev", "docs", "jetson6", "jetson7", "nvml", "visualize"}
    uses = {ability.use.split("--backend ")[-1] for ability in abilities}
    # Registered when it is asked for, as PyTorch's.
    assert uses >= {*backends.names(), "torch"}


def test_jetpacks_extras_take_nothing_that_the_system_has() -> None:
    """TensorRT of PyPI is another than JetPack's, and bindings of CUDA 13 do not fit JetPack 6's driver."""
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, within, beyond in (("jetson6", "12.9.10", "13.0.0"), ("jetson7", "13.0.3", "12.9.10")):
        requirements = {one.name: one for one in map(Requirement, extras[extra])}
        assert requirements.keys() == {"cuda-bindings", "pycuda"}
        assert (
            within in requirements["cuda-bindings"].specifier and beyond not in requirements["cuda-bindings"].specifier
        )
        assert "2025.1.1" not in requirements["pycuda"].specifier and "2025.1.2" in requirements["pycuda"].specifier


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


def test_the_text_fits_80_columns_with_a_line_for_each_missing_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(doctor, "read_cuda_driver", lambda: CudaDriver(None, "no driver"))
    lines = [line.rstrip() for line in run_avsbg("doctor", columns=80).out.splitlines()]
    assert max(map(len, lines)) <= 80
    missing = [finding for finding in doctor.diagnose().findings if finding.found is None]
    start = lines.index("Missing, and how to get it") + 1
    packages = [finding for finding in missing if "pip install" in (finding.remedy or "")]
    assert len(packages) >= 8
    for finding in packages:
        assert any(line.split() == f"{finding.name} {finding.remedy}".split() for line in lines[start:])
