"""Backends: one call of a graph on ONNX Runtime, OpenVINO or TensorRT."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from avsbg.runtime.backends.base import Arrays, Backend, DeviceTensor
from avsbg.runtime.backends.spec import BackendSpec, OperatorImplementation
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError

__all__ = [
    "Arrays",
    "Backend",
    "BackendSpec",
    "DeviceTensor",
    "OperatorImplementation",
    "create",
    "names",
    "options",
    "register",
]

# Name -> module:class, imported when asked for, since an engine's package need not be installed.
_BACKENDS = {
    "onnxruntime": "avsbg.runtime.backends.onnxruntime.backend:OnnxRuntimeBackend",
    "openvino": "avsbg.runtime.backends.openvino:OpenVinoBackend",
    "onnxruntime-cuda": "avsbg.runtime.backends.onnxruntime.backend:OnnxRuntimeCudaBackend",
    "onnxruntime-tensorrt": "avsbg.runtime.backends.onnxruntime.backend:OnnxRuntimeTensorRtBackend",
    "tensorrt": "avsbg.runtime.backends.tensorrt.backend:TensorRtBackend",
    "tensorrt-rtx": "avsbg.runtime.backends.tensorrt.backend:TensorRtRtxBackend",
    "triton": "avsbg.runtime.serving.triton:TritonBackend",
}


def register(name: str, location: str) -> None:
    """Add a backend that lives outside the runtime as `package.module:Class`, imported only when it is created."""
    _BACKENDS[name] = location


def names() -> tuple[str, ...]:
    """The names of the backends that can be asked for."""
    return tuple(_BACKENDS)


def options(name: str) -> tuple[str, ...]:
    """The options that the backend's constructor takes; a `BackendError` if it is unknown or cannot be imported."""
    return tuple(option for option in inspect.signature(_import(name)).parameters if option not in ("bundle", "graph"))


def create(name: str, bundle: Bundle, *, graph: str = "clip", **arguments: Any) -> Backend:
    """Create the backend `name` for a graph of the bundle; enter its `with` block to use it.

    `arguments` are options of its constructor; None leaves one at its default.

    Raises:
        BackendError: no such backend or option, or the backend refuses what was asked for.
        BundleError: the bundle has no such graph.
    """
    backend = _import(name)
    given = {option: value for option, value in arguments.items() if value is not None}
    valid = options(name)
    if unknown := [option for option in given if option not in valid]:
        hint = f"Its options: {', '.join(valid) or 'none'}."
        raise BackendError(f"the backend {name} has no option {unknown[0]!r}.", hint)
    return backend(bundle, graph=graph, **given)


def _import(name: str) -> type[Backend]:
    if name not in _BACKENDS:
        raise BackendError(f"unknown backend {name!r}.", f"Choose one of: {', '.join(_BACKENDS)}.")
    module, _, attribute = _BACKENDS[name].partition(":")
    try:
        backend: type[Backend] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        hint = "Install the extra of avsbg that it belongs to."
        raise BackendError(f"the backend {name} cannot be imported: {error}.", hint) from error
    return backend
