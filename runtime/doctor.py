"""What this machine has, what each verb can do with it, and how to mend what is missing."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from avsbg.errors import AvsbgError
from avsbg.runtime.errors import NativeLibraryError
from avsbg.runtime.gpu import CudaDriver, jetson_release, power_mode, read_cuda_driver
from avsbg.runtime.native_library import NativeLibrary, native_library


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: what.
        found: what was found, in words; None where it is missing.
        why: why it is missing, or what limits what was found.
        remedy: the command that mends it, where there is one.
        details: what programs want to know.
    """

    name: str
    found: str | None
    why: str | None = None
    remedy: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ability:
    """What one use of the tool needs.

    Attributes:
        use: the verb, with the option that matters.
        possible: whether it can be done here.
        why_not: what is missing; None where nothing is.
    """

    use: str
    possible: bool
    why_not: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found."""

    findings: tuple[Finding, ...]
    abilities: tuple[Ability, ...]


def diagnose() -> Diagnosis:
    """Look for everything that avsbg can use."""
    driver = read_cuda_driver()
    findings = [
        _system(),
        _gpu(driver),
        _package("ONNX Runtime", "onnxruntime", "pip install 'avsbg[cpu]'", _providers),
        _native("ONNX Runtime operators", "onnxruntime", driver),
        _package("TensorRT", "tensorrt", "pip install 'avsbg[tensorrt]' (on a Jetson: apt install python3-libnvinfer)"),
        _package("TensorRT for RTX", "tensorrt_rtx", "pip install 'avsbg[rtx]'", _rtx_capabilities),
        _native("TensorRT plugin", "tensorrt", driver),
        _package("PyTorch", "torch", "pip install 'avsbg[export]'"),
        _package("ONNX", "onnx", "pip install 'avsbg[export]'"),
    ]
    return Diagnosis(tuple(findings), _abilities({finding.name: finding for finding in findings}))


def _system() -> Finding:
    jetson = jetson_release()
    details = {"jetson_linux": jetson, "power_mode": power_mode()}
    text = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if jetson is not None:
        text += f", Jetson Linux {jetson}, power mode {details['power_mode'] or 'unknown'}"
    return Finding("system", text, details=details)


def _gpu(driver: CudaDriver) -> Finding:
    details = {"cuda": driver.version, "gpus": [vars(gpu) for gpu in driver.gpus]}
    if driver.problem is not None:
        remedy = "install NVIDIA's driver, and in a container pass the GPU on (docker run --gpus all)"
        return Finding("GPU", None, driver.problem, remedy, details)
    gpus = [
        f"{gpu.name}, compute capability {gpu.compute_capability / 10:.1f}, {gpu.memory_bytes / 2**30:.0f} GiB"
        for gpu in driver.gpus
    ]
    return Finding("GPU", f"{'; '.join(gpus)} (driver for CUDA {driver.version})", details=details)


def _package(
    name: str, package: str, remedy: str, inspect: Callable[[], tuple[str, dict[str, Any]]] | None = None
) -> Finding:
    if importlib.util.find_spec(package) is None:
        return Finding(name, None, f"the Python package {package} is not installed", remedy)
    if inspect is None:
        return Finding(name, _version(package), details={"version": _version(package)})
    try:
        text, details = inspect()
    except (AvsbgError, ImportError, OSError) as error:
        return Finding(name, None, f"it is installed but cannot be used: {error}", remedy)
    return Finding(name, f"{_version(package)}, {text}", details={"version": _version(package), **details})


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Import names to distributions; reads the records of every installed one."""
    return importlib.metadata.packages_distributions()


def _version(package: str) -> str:
    distributions = _distributions().get(package, [package])
    try:
        return importlib.metadata.version(distributions[0])
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def _providers() -> tuple[str, dict[str, Any]]:
    onnxruntime = importlib.import_module("onnxruntime")
    providers = onnxruntime.get_available_providers()
    return ", ".join(name.removesuffix("ExecutionProvider") for name in providers), {"providers": providers}


def _rtx_capabilities() -> tuple[str, dict[str, Any]]:
    from avsbg.runtime.tensorrt_rtx import import_tensorrt_rtx

    names = [name for name in dir(import_tensorrt_rtx().ComputeCapability) if name.startswith("SM")]
    numbers = sorted(int(name.removeprefix("SM")) for name in names)
    return f"builds for compute capabilities {', '.join(map(str, numbers))}", {"compute_capabilities": numbers}


def _native(name: str, library: str, driver: CudaDriver) -> Finding:
    try:
        found: NativeLibrary = native_library(library)
    except NativeLibraryError as error:
        return Finding(name, None, error.message, error.hint)
    details = {"path": str(found.path), **found.built_with}
    contents = found.built_with.get("architectures") or found.built_with.get("paths", "")
    why = None
    if library == "tensorrt":
        built = {int(number) for number in contents.split() if number.isdecimal()}
        lacking = [gpu.name for gpu in driver.gpus if gpu.compute_capability not in built]
        if lacking:
            why = f"it holds no code for {', '.join(lacking)}"
    return Finding(name, f"{found.path.name} with code for {contents}", why, details=details)


def _abilities(found: dict[str, Finding]) -> tuple[Ability, ...]:
    needs = {
        "avsbg export": ["PyTorch", "ONNX"],
        "avsbg verify, run --backend onnxruntime": ["ONNX Runtime"],
        "avsbg verify, run --operator native": ["ONNX Runtime", "ONNX Runtime operators"],
        "avsbg build --backend tensorrt-rtx --operator plain": ["TensorRT for RTX", "ONNX"],
        "avsbg build --backend tensorrt-rtx --operator plugin": ["TensorRT for RTX", "ONNX", "TensorRT plugin"],
        "avsbg build --backend tensorrt": ["GPU", "TensorRT", "ONNX", "TensorRT plugin"],
    }
    abilities = []
    for use, names in needs.items():
        missing = [name for name in names if found[name].found is None]
        abilities.append(Ability(use, not missing, f"needs {', '.join(missing)}" if missing else None))
    return tuple(abilities)
