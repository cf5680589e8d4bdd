"""Diagnosis of a machine: what it has, what each verb can do with it, how to install what is missing."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from avsbg.errors import AvsbgError
from avsbg.native_library import NativeLibraryError, native_library
from avsbg.runtime.device.gpu import CudaDriver, driver_version, read_cuda_driver
from avsbg.runtime.device.jetson import JetsonState, read_jetson

# The findings that each use needs.
_GRAPHS = ["ONNX", "onnxscript", "ONNX Runtime"]
_NEEDS = {
    "avsbg export": ["PyTorch", *_GRAPHS],
    "avsbg quantize": _GRAPHS,
    "avsbg package": ["packaging", "zstandard"],
    "avsbg package without --wheel": ["packaging", "zstandard", "scikit-build-core"],
    "avsbg train": ["PyTorch", "Accelerate"],
    "avsbg eval, data": ["PyTorch"],
    "avsbg batch": ["pyarrow"],
    "avsbg batch --engine ray": ["pyarrow", "Ray"],
    "avsbg demo-page": ["gradio"],
    "avsbg visualize": ["matplotlib", "ONNX", "ONNX Runtime"],
    "avsbg bench run": ["psutil", "SciPy", "matplotlib"],
    "avsbg bench stream": ["psutil", "SciPy"],
    "avsbg bench compare": ["SciPy"],
    "avsbg bench report": ["SciPy", "matplotlib", "Jinja2"],
    "avsbg verify, run, bench --backend triton": ["Triton's client"],
    "avsbg verify, run, bench --backend onnxruntime": ["ONNX Runtime"],
    "avsbg verify, run, bench --backend onnxruntime:native": ["ONNX Runtime", "ONNX Runtime operators"],
    "avsbg verify, run, bench --backend openvino": ["OpenVINO"],
    "avsbg verify, run, bench --backend torch": ["PyTorch"],
    "avsbg verify, run, bench --backend onnxruntime-cuda": ["GPU", "ONNX Runtime's CUDA"],
    "avsbg verify, run, bench --backend onnxruntime-cuda:native": [
        *("GPU", "ONNX Runtime's CUDA", "ONNX Runtime operators", "CUDA kernels"),
    ],
    "avsbg verify, run, bench --backend torch --device cuda": ["GPU", "PyTorch", "CUDA kernels"],
    "avsbg verify, run, bench --backend onnxruntime-tensorrt": ["GPU", "ONNX Runtime's TensorRT"],
    "avsbg verify, run, bench --backend onnxruntime-tensorrt:plugin": [
        *("GPU", "ONNX Runtime's TensorRT", "TensorRT plugin"),
    ],
    "avsbg build --backend tensorrt-rtx --implementation plain": ["TensorRT for RTX", *_GRAPHS],
    "avsbg build --backend tensorrt-rtx --implementation plugin": ["TensorRT for RTX", *_GRAPHS, "TensorRT plugin"],
    "avsbg build --backend tensorrt --implementation plain": ["GPU", "TensorRT", *_GRAPHS],
    "avsbg build --backend tensorrt": ["GPU", "TensorRT", *_GRAPHS, "TensorRT plugin"],
    "avsbg verify, run, bench --backend tensorrt": ["GPU", "TensorRT", "pycuda", "TensorRT plugin"],
    "avsbg verify, run, bench --backend tensorrt-rtx": ["GPU", "TensorRT for RTX", "pycuda", "TensorRT plugin"],
    "CUDA graphs with tensorrt and tensorrt-rtx": ["GPU", "pycuda", "cuda-bindings"],
}

# Of the extras that bring what one verb or backend needs: the name of each package, and as it is imported.
_OF_EXTRAS = {
    "bench": {"psutil": "psutil", "SciPy": "scipy", "matplotlib": "matplotlib", "Jinja2": "jinja2"},
    "cluster": {"pyarrow": "pyarrow", "Ray": "ray"},
    "package": {
        "packaging": "packaging",
        "zstandard": "zstandard",
        "scikit-build-core": "scikit_build_core",
    },
    "page": {"gradio": "gradio"},
    "serve": {"Triton's client": "tritonclient"},
    "train": {"Accelerate": "accelerate"},
}
_EXTRAS = {"6": "jetson6", "7": "jetson7"}  # JetPack -> the extra with what executes engines


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    name: str
    found: str | None  # in words; None where it is missing
    why: str | None = None  # why it is missing, or what limits what was found
    remedy: str | None = None  # the command that installs it, where there is one
    details: dict[str, Any] = field(default_factory=dict)  # for programs


@dataclass(frozen=True)
class Ability:
    """One use of the tool, a verb with the option that matters, and whether this machine has what it needs."""

    use: str
    possible: bool
    why_not: str | None = None
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """The findings of `diagnose`, and what follows for each use."""

    findings: tuple[Finding, ...]
    abilities: tuple[Ability, ...]


def diagnose() -> Diagnosis:
    """Look for everything that avsbg can use."""
    driver, jetson = read_cuda_driver(), read_jetson()
    tensorrt_remedy = "pip install 'avsbg[tensorrt]'"
    cuda_remedy = "pip install 'avsbg[cuda]' (needs nvcc)"
    if jetson is not None:
        tensorrt_remedy = "apt install python3-libnvinfer (venv --system-site-packages)"
        cuda_remedy = cuda_remedy.replace("cuda]", f"{_EXTRAS.get(jetson.jetpack or '', 'cuda')}]")
    findings = [
        _system(jetson),
        *([] if jetson is None else _jetson_settings(jetson)),
        _gpu(driver),
        _toolkit(),
        _package("ONNX Runtime", "onnxruntime", "pip install 'avsbg[cpu]'", _providers),
        _provider("ONNX Runtime's CUDA", "CUDAExecutionProvider"),
        _provider("ONNX Runtime's TensorRT", "TensorrtExecutionProvider"),
        _native("ONNX Runtime operators", "onnxruntime", driver),
        _package("OpenVINO", "openvino", "pip install 'avsbg[openvino]'", _openvino_precisions),
        _package("TensorRT", "tensorrt", tensorrt_remedy, _tensorrt),
        _package("TensorRT for RTX", "tensorrt_rtx", "pip install 'avsbg[rtx]'", _rtx_capabilities),
        _package("pycuda", "pycuda", cuda_remedy),
        _bindings(driver, cuda_remedy),
        _native("CUDA kernels", "cuda", driver),
        _native("TensorRT plugin", "tensorrt", driver),
        _package("PyTorch", "torch", "pip install 'avsbg[export]'"),
        _package("ONNX", "onnx", "pip install 'avsbg[build]'"),
        _package("onnxscript", "onnxscript", "pip install 'avsbg[build]'"),
        *(
            _package(name, package, f"pip install 'avsbg[{extra}]'")
            for extra, packages in _OF_EXTRAS.items()
            for name, package in packages.items()
        ),
    ]
    found, abilities = {finding.name: finding for finding in findings}, []
    for use, needs in _NEEDS.items():
        missing = [name for name in needs if found[name].found is None]
        remedies = tuple(dict.fromkeys(remedy for name in missing if (remedy := found[name].remedy) is not None))
        abilities.append(Ability(use, not missing, f"needs {', '.join(missing)}" if missing else None, remedies))
    return Diagnosis(tuple(findings), tuple(abilities))


def _system(jetson: JetsonState | None) -> Finding:
    text = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if jetson is None:
        return Finding("system", text, details={"jetson_linux": None, "power_mode": None})
    jetpack = f" (JetPack {jetson.jetpack})" if jetson.jetpack else ""
    details = {"jetson_linux": jetson.release, "jetpack": jetson.jetpack, "module": jetson.module}
    details["power_mode"] = None if jetson.mode is None else str(jetson.mode)
    return Finding("system", f"{text}, Jetson Linux {jetson.release}{jetpack}", details=details)


def _jetson_settings(jetson: JetsonState) -> list[Finding]:
    """The module, and the settings that decide its speed."""
    memory = f", {jetson.memory_bytes / 2**30:.0f} GiB for processor and GPU" if jetson.memory_bytes else ""
    commands = jetson.fast_commands()
    slow = None if jetson.is_fast else f"the fast setting: {' && '.join(commands) or 'cooler'}"
    rails = {name: round(rail.watts, 2) for name, rail in jetson.rails.items()}
    events = sum(jetson.overcurrent_events.values())
    power = ", ".join(f"{name} {watts:g} W" for name, watts in rails.items()) or "no rails can be read"
    details = {"fast": jetson.is_fast, "fast_commands": commands, "throttled": jetson.throttled}
    over = f"slowed down {events} times by over-current since the start" if events else None
    return [
        Finding(
            "Jetson", f"{jetson.module or 'unknown module'}{memory}", details={"memory_bytes": jetson.memory_bytes}
        ),
        Finding("speed setting", jetson.describe(), slow, details=details),
        Finding("power", power, over, details={"watts": rails, "overcurrent_events": jetson.overcurrent_events}),
    ]


def _bindings(driver: CudaDriver, remedy: str) -> Finding:
    found = _package("cuda-bindings", "cuda.bindings", remedy)
    theirs, ours = (str(one).partition(".")[0] for one in (found.details.get("version"), driver.version))
    if theirs.isdecimal() and ours.isdecimal() and int(theirs) > int(ours):
        why = f"it is of CUDA {theirs}, and the driver's is {driver.version}"
        # The extra `cuda` has no upper bound: pip would leave what is there.
        return replace(found, why=why, remedy=f"pip install 'cuda-bindings=={ours}.*'")
    return found


def _toolkit() -> Finding:
    """CUDA's compiler, which builds the plugin and pycuda; running engines needs none."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        why = "nvcc is not on the PATH; it is needed to build the plugin and pycuda, not to run"
        remedy = "apt install cuda-toolkit (NVIDIA's; only to build)"
        return Finding("CUDA toolkit", None, why, remedy)
    try:
        said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("CUDA toolkit", None, f"{nvcc} cannot be run: {error}")
    found = re.search(r"release (\d+\.\d+)", said)
    version = found[1] if found else "unknown version"
    return Finding("CUDA toolkit", f"{version}, {nvcc}", details={"version": version, "nvcc": nvcc})


def _gpu(driver: CudaDriver) -> Finding:
    version = driver_version()
    details = {"cuda": driver.version, "driver": version, "gpus": [vars(gpu) for gpu in driver.gpus]}
    if driver.problem is not None:
        remedy = "install NVIDIA's driver (docker: run --gpus all)"
        return Finding("GPU", None, driver.problem, remedy, details)
    gpus = "; ".join(
        f"{gpu.name}, compute capability {gpu.compute_capability / 10:.1f}, {gpu.memory_bytes / 2**30:.0f} GiB"
        for gpu in driver.gpus
    )
    text = f"{gpus} (driver{f' {version}' if version else ''} for CUDA {driver.version})"
    return Finding("GPU", text, details=details)


def _package(
    name: str, package: str, remedy: str, inspect: Callable[[], tuple[str, dict[str, Any]]] | None = None
) -> Finding:
    try:
        present = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # a part of a package that is not there, or one without a specification
        present = package in sys.modules
    if not present:
        return Finding(name, None, f"the Python package {package} is not installed", remedy)
    if inspect is None:
        return Finding(name, _version(package), details={"version": _version(package)})
    try:
        text, details = inspect()
    except (AvsbgError, ImportError, OSError) as error:
        return Finding(name, None, f"it is installed but cannot be used: {error}", remedy)
    return Finding(name, f"{_version(package)}, {text}", details={"version": _version(package), **details})


# Import names to distributions; reads the records of every installed one.
_distributions = functools.cache(importlib.metadata.packages_distributions)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(_distributions().get(package, [package])[0])
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def _providers() -> tuple[str, dict[str, Any]]:
    onnxruntime = importlib.import_module("onnxruntime")
    providers = onnxruntime.get_available_providers()
    return ", ".join(name.removesuffix("ExecutionProvider") for name in providers), {"providers": providers}


def _provider(name: str, provider: str) -> Finding:
    if importlib.util.find_spec("onnxruntime") is None:
        return Finding(name, None, "the Python package onnxruntime is not installed", "pip install 'avsbg[gpu]'")
    if provider not in importlib.import_module("onnxruntime").get_available_providers():
        remedy = "pip uninstall onnxruntime && pip install 'avsbg[gpu]'"
        return Finding(name, None, f"this onnxruntime was built without {provider}", remedy)
    return Finding(name, f"{provider} is built in; whether it starts shows when it is asked for")


def _tensorrt() -> tuple[str, dict[str, Any]]:
    from avsbg.runtime.backends.tensorrt.engine import import_runtime

    version = str(import_runtime("tensorrt").__version__)
    return f"library {version}", {"library": version}


def _openvino_precisions() -> tuple[str, dict[str, Any]]:
    offers = importlib.import_module("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precisions = [name.lower() for name in ("FP32", "BF16", "FP16", "INT8") if name in offers]
    return f"executes {', '.join(precisions)} on this processor", {"precisions": precisions}


def _rtx_capabilities() -> tuple[str, dict[str, Any]]:
    from avsbg.runtime.backends.tensorrt.rtx import import_tensorrt_rtx

    names = [name for name in dir(import_tensorrt_rtx().ComputeCapability) if name.startswith("SM")]
    numbers = sorted(int(name.removeprefix("SM")) for name in names)
    return f"builds for compute capabilities {', '.join(map(str, numbers))}", {"compute_capabilities": numbers}


def _native(name: str, library: str, driver: CudaDriver) -> Finding:
    try:
        found = native_library(library)
    except NativeLibraryError as error:
        return Finding(name, None, error.message, error.hint)
    contents = found.built_with.get("architectures") or found.built_with.get("paths", "")
    ptx_of, why = found.built_with.get("ptx", ""), None
    if library in ("cuda", "tensorrt"):
        built, ptx = ({int(number) for number in text.split() if number.isdecimal()} for text in (contents, ptx_of))
        lacking = [gpu for gpu in driver.gpus if gpu.compute_capability not in built]
        compiled = [gpu for gpu in lacking if any(gpu.compute_capability >= number for number in ptx)]
        jit = ": the driver compiles it at its first use, from code for an older GPU; build it for this one"
        if lacking:
            why = f"it holds no code for {', '.join(gpu.name for gpu in lacking)}" + jit * (lacking == compiled)
    details = {"path": str(found.path), **found.built_with}
    return Finding(name, f"{found.path.name} with code for {contents}", why, details=details)
