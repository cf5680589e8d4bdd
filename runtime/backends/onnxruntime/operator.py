"""The operators for ONNX Runtime: registering the native library for the CPU or a GPU, and what it runs here."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from avsbg.native_library import NativeLibraryError, native_library

OPERATOR = "MeanCorrelation"  # what graphs with a custom node hold; the domain has CorrelationVolume too
# Node types of graphs for TensorRT's plugin, one or the other; the provider's option that names plugin libraries.
PLUGIN_OPERATORS = ("MeanCorrelation", "MeanCorrelations")
PLUGIN_PATHS = "trt_extra_plugin_lib_paths"
# The first ONNX Runtime whose TensorRT provider looks for plugins of our kind (microsoft/onnxruntime#24211).
_OLDEST_WITH_PLUGINS = (1, 22)
_PATH_KEY = "avsbg.cpu_path"
_CUDA_KEY, _TF32_KEY = "avsbg.cuda_library", "avsbg.cuda_tf32"


def available_paths() -> list[str]:
    """The instruction sets that the library can use on this CPU, the best first; a `NativeLibraryError` without it.

    Those whose name ends in `bf16` round fp32 descriptors to bf16; they run only when they are named.
    """
    library = ctypes.CDLL(str(native_library("onnxruntime").path))
    library.avsbg_cpu_paths.restype = ctypes.c_char_p
    names: bytes = library.avsbg_cpu_paths()
    return names.decode().split(", ")


def register(options: Any, path: str = "auto") -> str:
    """Register the operators of the domain avsbg with an `onnxruntime.SessionOptions`.

    Its sessions then prefer the library to a function body. `path` is an instruction set of `available_paths`, or
    `auto`; the one that will run is returned. It is a `NativeLibraryError` if the library was not built, this CPU has
    no such path, or ONNX Runtime is too old.
    """
    paths = available_paths()
    if path not in ("auto", *paths):
        hint = f"Choose one of: auto, {', '.join(paths)}."
        raise NativeLibraryError(f"the operator's path {path!r} cannot run on this CPU.", hint)
    options.add_session_config_entry(_PATH_KEY, path)
    _register(options)
    return paths[0] if path == "auto" else path


def register_cuda(options: Any, *, tf32: bool = False) -> str:
    """Register the operators for CUDAExecutionProvider with an `onnxruntime.SessionOptions`, as `register` for the CPU.

    They run libavsbg_cuda on the session's stream, in the graph's type; `tf32` lets float32 be rounded to it. Returns
    what the kernels were built with. It is a `NativeLibraryError` if one of the two libraries was not built.
    """
    kernels = native_library("cuda")
    options.add_session_config_entry(_CUDA_KEY, str(kernels.path))
    options.add_session_config_entry(_TF32_KEY, str(int(tf32)))
    _register(options)
    return f"CUDA {kernels.built_with.get('cuda', 'unknown')}{', tf32' if tf32 else ''}"


def find_plugin(version: str) -> tuple[str, Path]:
    """The libraries of TensorRT's plugin's build, and the one that ONNX Runtime's TensorRT provider is to open for it.

    The provider only opens a library, which then registers the plugin by itself. It is a `NativeLibraryError` if the
    plugin was not built, or this version of ONNX Runtime does not see plugins of its kind.
    """
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_WITH_PLUGINS:
        oldest = ".".join(map(str, _OLDEST_WITH_PLUGINS))
        raise NativeLibraryError(
            f"ONNX Runtime {version} sees no plugin of TensorRT 10.", f"Install onnxruntime-gpu {oldest} or later."
        )
    plugin = native_library("tensorrt")
    return f"CUDA {plugin.built_with.get('cuda', 'unknown')}", plugin.path.with_name("libavsbg_tensorrt_register.so")


def _register(options: Any) -> None:
    try:
        options.register_custom_ops_library(str(native_library("onnxruntime").path))
    except Exception as error:  # ONNX Runtime's exceptions share no base class.
        raise NativeLibraryError(f"ONNX Runtime refuses the operator library: {error}") from error
