#!/usr/bin/env python3
"""Compiles the plugin's sources with what the package index has of JetPack 6's CUDA 12.6: as far as that goes.

There is no nvcc of CUDA 12 on the index and no static runtime for aarch64, so the library itself can only be built on
the device (scripts/build-on-device.sh). This compiles the two halves apart, and links nothing:

* every kernel for Orin (sm_87), with NVRTC 12.6, which contains the device compiler of that toolkit;
* every C++ source for aarch64, against the headers of CUDA 12.6, with warnings as errors.

Needs aarch64-linux-gnu-g++ and pip; fetches about 50 MB into build/jetpack6.
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "jetpack6"
KERNELS = ROOT / "runtime" / "native" / "cuda"
SOURCES = ROOT / "runtime" / "native" / "tensorrt"
WHEELS = ("nvidia-cuda-nvrtc-cu12==12.6.85", "nvidia-cuda-runtime-cu12==12.6.77", "nvidia-cuda-nvcc-cu12==12.6.85")

# NVRTC has no host headers; the device code uses this much of them.
_FIXED = {8: "char", 16: "short", 32: "int", 64: "long long"}
HEADERS = {
    "cstdint": "#define INT64_MAX 0x7fffffffffffffffll\nnamespace std {"
    + "".join(f"using int{bits}_t = {name}; using uint{bits}_t = unsigned {name};" for bits, name in _FIXED.items())
    + "using uintptr_t = unsigned long long; }",
    "cstddef": "namespace std { using size_t = unsigned long; }",
    "string": "namespace std { class string; }",
    "algorithm": "namespace std {"
    "template <class T> constexpr const T& min(const T& a, const T& b) { return b < a ? b : a; }"
    "template <class T> constexpr const T& max(const T& a, const T& b) { return a < b ? b : a; }"
    "template <class T> constexpr const T& clamp(const T& a, const T& low, const T& high)"
    "{ return min(max(a, low), high); }"
    "template <class T> constexpr T min(initializer_list<T> all)"
    "{ T least = *all.begin(); for (T one : all) least = min(least, one); return least; } }",
    "cuda_runtime.h": "",
}


def fetch() -> None:
    """Download and unpack the wheels, and TensorRT's headers."""
    if not list(BUILD.glob("*.whl")):
        requirements = [*WHEELS, "kernel-lens==2.0.1"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", BUILD, *requirements], check=True)
    for wheel in BUILD.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(BUILD)


def kernel_names() -> list[str]:
    """The kernels that the launcher (correlation.cu) chooses from."""
    streamed = itertools.product(("Fp16", "Bf16", "Tf32", "Fp32"), (0,), ("kRows", "kRowsAndColumns", "kVolume"))
    resident = itertools.product(("Fp16", "Bf16", "Tf32"), (4, 8, 16), ("kRows", "kRowsAndColumns"))
    return [
        f"avsbg::correlate<avsbg::Correlation<avsbg::{operand}, {units}, avsbg::Output::{output}>>"
        for operand, units, output in (*streamed, *resident)
    ] + ["avsbg::combine"]


def compile_kernels() -> int:
    """Compile all kernels for sm_87 with NVRTC; the size of the machine code in bytes."""
    headers = BUILD / "headers"
    headers.mkdir(exist_ok=True)
    for name, text in HEADERS.items():
        (headers / name).write_text(text)
    nvrtc = ctypes.CDLL(str(BUILD / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"))
    version = (ctypes.c_int(), ctypes.c_int())
    nvrtc.nvrtcVersion(*map(ctypes.byref, version))
    print(f"NVRTC {version[0].value}.{version[1].value}")
    program = ctypes.c_void_p()
    source = b'#include "correlation.cuh"\n#include "combine.cuh"\n'
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None)
    for name in kernel_names():
        nvrtc.nvrtcAddNameExpression(program, name.encode())
    options = ["--gpu-architecture=sm_87", "--std=c++17", "-default-device", f"-I{headers}", f"-I{KERNELS}"]
    arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
    size = ctypes.c_size_t()
    if failed:
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        sys.exit(f"error: NVRTC cannot compile the kernels for sm_87:\n{log.value.decode()}")
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    return size.value


def compile_sources() -> int:
    """Compile the C++ sources for aarch64; their number."""
    includes = [BUILD / "kernel_lens/include/tensorrt", *BUILD.glob("nvidia/*/include")]
    flags = [flag for include in includes for flag in ("-isystem", include)]
    sources = [*sorted(SOURCES.glob("*.cpp")), KERNELS / "avsbg_cuda.cpp"]
    for source in sources:
        command = ["aarch64-linux-gnu-g++", "-std=c++17", "-O2", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{KERNELS}"]
        subprocess.run([*command, *flags, "-c", source, "-o", BUILD / f"{source.stem}.o"], check=True)
    return len(sources)


def main() -> None:
    """Compile both halves and say what was compiled."""
    if len(sys.argv) > 1:
        print(__doc__)
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)
    BUILD.mkdir(parents=True, exist_ok=True)
    fetch()
    print(f"{len(kernel_names())} kernels compiled for sm_87: {compile_kernels()} bytes")
    print(f"{compile_sources()} C++ sources compiled for aarch64 against CUDA 12.6")


if __name__ == "__main__":
    main()
