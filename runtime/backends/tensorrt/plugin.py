"""Our plugin in a TensorRT registry, for TensorRT and TensorRT for RTX alike: both have the same Python interface."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from avsbg.runtime.device.native_library import native_library
from avsbg.runtime.errors import NativeLibraryError

OPERATORS = ("MeanCorrelation", "CorrelationVolume")
VERSION = "1"
NAMESPACE = ""


def load_plugin(registry: Any, path: Path | None = None) -> Path:
    """Load the plugin library into a registry, check that it brought our operators, and return the library's path.

    Args:
        registry: `get_plugin_registry()` of the builder or the runtime that will meet the operators.
        path: the library; by default the one built with this installation.

    Raises:
        NativeLibraryError: there is no such library, it cannot be loaded, or it lacks one of our operators.
    """
    path = native_library("tensorrt").path if path is None else Path(path)
    if not path.is_file():
        hint = "Build it (docs/plugin.md) or leave the path out to use our own."
        raise NativeLibraryError(f"there is no plugin library {path}.", hint)
    if not _is_complete(registry) and (
        registry.load_library(str(path.resolve())) is None or not _is_complete(registry)
    ):
        raise NativeLibraryError(f"the plugin library {path} cannot be used: {_why_unusable(registry, path)}")
    return path


def _creators(registry: Any) -> list[tuple[str, str, str]]:
    return [(creator.name, creator.plugin_version, creator.plugin_namespace) for creator in registry.all_creators]


def _is_complete(registry: Any) -> bool:
    return {(operator, VERSION, NAMESPACE) for operator in OPERATORS} <= set(_creators(registry))


def _why_unusable(registry: Any, path: Path) -> str:
    """TensorRT reports the cause only to its logger, so it is looked for again."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"{error}."
    if not hasattr(library, "getCreators"):
        return "it exports no getCreators, so it is not a TensorRT plugin library."
    present = [f"{name} version {version}" for name, version, _ in _creators(registry) if name in OPERATORS]
    wanted = [f"{name} version {VERSION}" for name in OPERATORS]
    return f"avsbg needs {' and '.join(wanted)}; the registry has {' and '.join(present) or 'neither'}."
