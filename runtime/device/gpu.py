"""The NVIDIA GPUs of this machine, asked of the CUDA driver itself: no toolkit or other program is needed."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path

# Values of CUdevice_attribute (CUDA Driver API, cuDeviceGetAttribute).
_MAJOR, _MINOR, _MULTIPROCESSORS, _INTEGRATED = 75, 76, 16, 18
_JETPACKS = {"R35": "5", "R36": "6", "R38": "7"}  # releases of Jetson Linux -> major versions of JetPack
# nvmlDeviceGetCurrentClocksEventReasons (NVML API reference): bit -> why the clock is not the highest. Idle and the
# setting of application clocks are no throttling.
THROTTLING = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal, software",
    0x40: "thermal, hardware",
    0x80: "power brake",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU; an integrated one (Jetson) shares the processor's memory. The compute capability is e.g. 87 for 8.7."""

    name: str
    compute_capability: int
    memory_bytes: int
    multiprocessors: int
    integrated: bool

    @property
    def memory_class(self) -> int:
        """The memory in GiB that it is sold with, up to a power of two: 61.4 GiB that are left of 64 are 64."""
        return 1 << (math.ceil(self.memory_bytes / 2**30) - 1).bit_length()


@dataclass(frozen=True)
class CudaDriver:
    """The answers of the CUDA driver."""

    version: str | None  # the latest CUDA version that it supports, e.g. `13.0`; None where there is no driver
    problem: str | None  # why no GPU can be used; None where one can
    gpus: tuple[Gpu, ...] = ()  # in CUDA's order


def read_cuda_driver() -> CudaDriver:
    """Ask the driver. A machine without one is a normal answer, not an error."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return CudaDriver(None, "the NVIDIA driver is not installed (libcuda.so.1 is not found)")
    number = ctypes.c_int()
    version = None
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if status := cuda.cuInit(0):
        text = ctypes.c_char_p()
        known = cuda.cuGetErrorString(status, ctypes.byref(text)) == 0 and text.value
        error = known.decode(errors="replace") if known else f"error {status}"
        return CudaDriver(version, f"the NVIDIA driver reports: {error}")
    cuda.cuDeviceGetCount(ctypes.byref(number))
    gpus = tuple(_describe(cuda, index) for index in range(number.value))
    return CudaDriver(version, None if gpus else "the NVIDIA driver finds no GPU", gpus)


def _describe(cuda: ctypes.CDLL, index: int) -> Gpu:
    device = ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device)
        return value.value

    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    text, capability = name.value.decode(errors="replace"), 10 * attribute(_MAJOR) + attribute(_MINOR)
    return Gpu(text, capability, memory.value, attribute(_MULTIPROCESSORS), bool(attribute(_INTEGRATED)))


def driver_version() -> str | None:
    """The version of NVIDIA's kernel driver, e.g. `580.65.06`; None where it is not loaded."""
    return _read(Path("/sys/module/nvidia/version"))


def jetson_release(root: Path = Path("/")) -> str | None:
    """The Jetson Linux release (`R36, REVISION: 4.3`), on which JetPack is named; None on other machines."""
    text = _read(root / "etc/nv_tegra_release")
    return None if text is None else text.splitlines()[0].lstrip("# ").split(", GCID")[0].replace(" (release)", "")


def jetpack_version(root: Path = Path("/")) -> str | None:
    """The major version of JetPack, by the release of Jetson Linux; None on other machines."""
    return _JETPACKS.get((jetson_release(root) or "").split(",", maxsplit=1)[0].strip())


def power_mode(root: Path = Path("/")) -> str | None:
    """The number of the power mode that nvpmodel has set on a Jetson; None on other machines."""
    text = _read(root / "var/lib/nvpmodel/status")
    return None if text is None else text.removeprefix("pmode:").strip()


def module_name(root: Path = Path("/")) -> str | None:
    """The name of a Jetson in the device tree, e.g. `NVIDIA Jetson AGX Orin Developer Kit`; None on other machines.

    The GPUs of all modules of a generation have one name in CUDA, `Orin`.
    """
    text = _read(root / "proc/device-tree/model")
    return text.rstrip("\0") if text is not None and jetson_release(root) is not None else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
