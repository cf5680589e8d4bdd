"""The native libraries of this installation: where they are and what they were built with, or why they are missing.

A leaf module: every part may import it, and it imports only `avsbg.errors`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import avsbg
from avsbg.errors import AvsbgError

NAMES = ("cuda", "onnxruntime", "tensorrt", "libavsbg", "avsbg-run")


class NativeLibraryError(AvsbgError):
    """A native library was not built, is not there, or cannot be loaded."""


@dataclass(frozen=True)
class NativeLibrary:
    """A native library that was built with this installation."""

    name: str  # `cuda` (the kernels), `onnxruntime` (operators for it), `tensorrt` (the plugin) or `libavsbg`
    path: Path
    built_with: dict[str, str]  # compiler, CUDA version and architectures, version of TensorRT's headers


def native_library(name: str) -> NativeLibrary:
    """Find a library of `NAMES`, or raise a `NativeLibraryError` that says why it is not there."""
    if name not in NAMES:
        raise ValueError(f"no native library is named {name!r}; there are: {', '.join(NAMES)}")
    folder = next((folder for folder in _folders() if (folder / "native.json").is_file()), None)
    if folder is None:
        raise NativeLibraryError(
            "this installation of avsbg has no native libraries.",
            "Reinstall it; `pip install -v` shows what is built and what is skipped.",
        )
    record = json.loads((folder / "native.json").read_text(encoding="utf-8"))
    built = record["built"].get(name)
    if built is not None:
        path = folder / built.pop("file")
        if not path.is_file():
            raise NativeLibraryError(f"the native library {path} was built but is no longer there.", "Reinstall avsbg.")
        return NativeLibrary(name, path, built)
    reason = record["skipped"].get(name, "The record of the build does not know it: build them again (`make native`).")
    raise NativeLibraryError(f"the native library {name} was not built when avsbg was installed.", reason)


def _folders() -> list[Path]:
    """The package's folders: an editable install has two, the sources and what was built."""
    return [Path(folder) / "runtime" / "lib" for folder in avsbg.__path__]
