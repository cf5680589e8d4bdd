"""The native libraries of this installation: where they are and what they were built with, or why they are missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import avsbg.runtime
from avsbg.runtime.errors import NativeLibraryError


@dataclass(frozen=True)
class NativeLibrary:
    """A native library that was built with this installation.

    Attributes:
        name: `onnxruntime` (operators for ONNX Runtime) or `tensorrt` (the TensorRT plugin).
        path: the shared library.
        built_with: what the build recorded: compiler, CUDA version and architectures, version of TensorRT's headers.
    """

    name: str
    path: Path
    built_with: dict[str, str]


def native_library(name: str) -> NativeLibrary:
    """Find a native library.

    Args:
        name: `onnxruntime` or `tensorrt`.

    Raises:
        NativeLibraryError: it was not built, with the reason that the build gave, or is no longer there.
    """
    for folder in _folders():
        record = folder / "native.json"
        if record.is_file():
            return _from_record(name, folder, json.loads(record.read_text(encoding="utf-8")))
    raise NativeLibraryError(
        "this installation of avsbg has no native libraries.",
        "Reinstall it; `pip install -v` shows what is built and what is skipped.",
    )


def _folders() -> list[Path]:
    """The package's folders: an editable install has two, the sources and what was built."""
    return [Path(folder) / "lib" for folder in avsbg.runtime.__path__]


def _from_record(name: str, folder: Path, record: dict[str, dict[str, dict[str, str] | str]]) -> NativeLibrary:
    built = record["built"].get(name)
    if isinstance(built, dict):
        path = folder / built["file"]
        if not path.is_file():
            raise NativeLibraryError(f"the native library {path} was built but is no longer there.", "Reinstall avsbg.")
        return NativeLibrary(name, path, {key: value for key, value in built.items() if key != "file"})
    reason = record["skipped"].get(name)
    if reason is None:
        known = ", ".join(sorted({*record["built"], *record["skipped"]}))
        raise ValueError(f"no native library is named {name!r}; there are: {known}")
    raise NativeLibraryError(f"the native library {name} was not built when avsbg was installed.", str(reason))
