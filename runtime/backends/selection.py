"""The backend `auto`: the fastest that this machine can run and that the bundle holds a graph or an engine for.

What can be told apart without a measurement is: a backend whose package, library, GPU or engine is not there is passed
over with that reason. The rest is timed on one clip, and the result is cached for this bundle, machine and versions,
unless a backend failed: what was wrong with it may be gone at the next run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from avsbg import __version__
from avsbg.atomic import atomic_file
from avsbg.errors import AvsbgError
from avsbg.native_library import NativeLibraryError, native_library
from avsbg.runtime.backends.base import Backend, Inputs
from avsbg.runtime.backends.spec import BackendSpec, OperatorImplementation
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import STREAM_ROLES, GraphName
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.device.gpu import read_cuda_driver
from avsbg.runtime.device.system_files import processor_name
from avsbg.runtime.errors import BackendError
from avsbg.runtime.threads import usable_cores

AUTO = "auto"
# After a first call, which also allocates: at most so many calls, and none after so many seconds of them.
CALLS, SECONDS = 3, 1.0
# Packages whose versions decide how fast a backend is.
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13")
_ENGINES = ("tensorrt", "tensorrt-rtx")

Open = Callable[[BackendSpec], Backend]


@dataclass(frozen=True)
class Selection:
    """A choice of `select_backend`, with the reasons for it."""

    backend: str  # as `BackendSpec` reads it
    seconds: dict[str, float] = field(default_factory=dict)  # a clip by backend; empty where one alone can run
    passed_over: dict[str, str] = field(default_factory=dict)  # backends that cannot run here, and why
    source: str = "measured"  # or `cached`, or `the only one`
    not_cached: str | None = None  # why the measurement could not be kept

    def __str__(self) -> str:
        times = [f"{name} {1000 * seconds:.0f} ms" for name, seconds in self.seconds.items()]
        measured = f", by the time of one clip ({self.source}): {', '.join(times)}" if times else f", {self.source}"
        reasons: dict[str, list[str]] = {}
        for name, reason in self.passed_over.items():
            reasons.setdefault(reason.rstrip("."), []).append(name)
        passed = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
        kept = f"; the measurement could not be cached: {self.not_cached}" if self.not_cached else ""
        return f"{AUTO} took {self.backend}{measured}{kept}{f'. Passed over: {passed}' if passed else ''}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for the record of a run."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def select_backend(
    bundle: Bundle, asked: BackendSpec, open_backend: Open, *, role: str = "clip", options: Mapping[str, Any]
) -> Selection:
    """Choose the fastest backend for a bundle on this machine.

    Args:
        bundle: an open bundle.
        asked: `auto`, possibly with an implementation and a precision; without one, fp32.
        open_backend: makes a backend of a specification, not yet open, that takes the inputs of the clip graph.
        role: `clip`, or `stream` where `open_backend` makes the pair of a stream's graphs.
        options: what the user asked for besides: `device`, `threads`, `engine` and so on; part of the cache's key.

    Raises:
        BackendError: none can run here; with the reason for each.
    """
    candidates, passed_over = list_candidates(bundle, asked, role, options.get("device"))
    if (name := options.get("engine")) in bundle.manifest.engines:
        return Selection(bundle.manifest.engines[str(name)].backend, source=f"which the engine {name} is for")
    names = [str(candidate) for candidate in candidates]
    if len(names) == 1:
        return Selection(names[0], {}, passed_over, source="the only one that can run here")
    path = cache_directory() / f"{_key(bundle, names, role, options)}.json"
    if (cached := _read(path, names)) is not None:
        return Selection(cached["backend"], cached["seconds"], passed_over, source="cached")
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    for candidate in candidates:
        try:
            with open_backend(candidate) as backend:
                seconds[str(candidate)] = _time_clip(backend)
        except AvsbgError as error:
            refused[str(candidate)] = str(error)
    passed_over = {**refused, **passed_over}
    if not seconds:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
        raise BackendError(f"no backend can run {bundle.path} here. {reasons}")
    fastest = min(seconds, key=lambda name: seconds[name])
    # A full GPU or a package that is half installed is no property of the machine.
    not_cached = None if refused else _write(path, {"backend": fastest, "seconds": seconds})
    return Selection(fastest, seconds, passed_over, not_cached=not_cached)


def measure_backend(bundle: Bundle, spec: str, backend: Backend, *, role: str, options: Mapping[str, Any]) -> float:
    """The seconds of a clip on an open backend that was named, as cached, or measured now and cached."""
    path = cache_directory() / f"{_key(bundle, [spec], role, options)}.json"
    if (cached := _read(path, [spec])) is not None and spec in cached["seconds"]:
        return float(cached["seconds"][spec])
    seconds = _time_clip(backend)
    _write(path, {"backend": spec, "seconds": {spec: seconds}})
    return seconds


def list_candidates(
    bundle: Bundle, asked: BackendSpec, role: str, device: str | None = None
) -> tuple[list[BackendSpec], dict[str, str]]:
    """The backends that may be able to run a bundle here, and the reason for each that cannot."""
    graphs = bundle.manifest.graphs
    names = STREAM_ROLES if role == "stream" else ("clip",)
    needs_operator = any(graphs[name].operator == "custom" for name in names if name in graphs)
    # A graph without our operator is plain, and no implementation is to be named.
    implementation = OperatorImplementation.FUNCTION if needs_operator else None
    found: list[BackendSpec] = []
    passed_over: dict[str, str] = {}
    if not str(device or "cpu").startswith("cuda"):
        _add_processor_backends(bundle, names, implementation, found, passed_over)
    problem = "the processor was asked for" if device == "cpu" else read_cuda_driver().problem
    cuda = BackendSpec("onnxruntime-cuda", implementation)
    if problem is not None:
        passed_over.update(dict.fromkeys((cuda.backend, *_ENGINES), problem))
    else:
        libraries = ("onnxruntime", "cuda")
        found.append(replace(cuda, operator=_best_implementation(cuda.backend, implementation, libraries, passed_over)))
        found += _engine_specs(bundle, asked.precision or "fp32", passed_over)
    if asked.operator is not None:
        found = [replace(spec, operator=asked.operator) for spec in found]
    if asked.precision is not None or asked.rest is not None:
        found = [replace(spec, precision=asked.precision or spec.precision, rest=asked.rest) for spec in found]
    return found, passed_over


def _add_processor_backends(
    bundle: Bundle,
    names: Iterable[str],
    implementation: OperatorImplementation | None,
    found: list[BackendSpec],
    passed_over: dict[str, str],
) -> None:
    """Add ONNX Runtime with the best implementation of our operator that is there, and OpenVINO."""
    operator = _best_implementation("onnxruntime", implementation, ("onnxruntime",), passed_over)
    found.append(BackendSpec("onnxruntime", operator))
    graphs = bundle.manifest.graphs
    plain = [name if graphs[name].operator == "plain" else str(GraphName.parse(name).plain()) for name in names]
    if importlib.util.find_spec("openvino") is None:
        passed_over["openvino"] = "it is not installed: pip install 'avsbg[openvino]'"
    elif missing := [name for name in plain if name not in graphs]:
        passed_over["openvino"] = f"the bundle has no graph {missing[0]}"
    else:
        found.append(BackendSpec("openvino"))


def _best_implementation(
    backend: str, implementation: OperatorImplementation | None, libraries: Iterable[str], passed_over: dict[str, str]
) -> OperatorImplementation | None:
    """Our kernel, where the graph has our operator and the libraries are there; otherwise `implementation`."""
    if implementation is None:
        return None
    try:
        for library in libraries:
            native_library(library)
    except NativeLibraryError as error:
        passed_over[f"{backend}:native"] = str(error)
        return implementation
    return OperatorImplementation.NATIVE


def _engine_specs(bundle: Bundle, precision: Precision, passed_over: dict[str, str]) -> list[BackendSpec]:
    """The specification of each kind of engine that the bundle holds in a precision."""
    engines = [engine for engine in bundle.manifest.engines.values() if engine.precision == precision]
    for name in _ENGINES:
        if all(engine.backend != name for engine in engines):
            passed_over[name] = f"the bundle holds no engine of it in {precision}"
    kinds = {(engine.backend, engine.operator): None for engine in engines}
    return [BackendSpec(backend, OperatorImplementation(operator), precision) for backend, operator in kinds]


def _time_clip(backend: Backend) -> float:
    """The shortest time of a call with one clip, seconds."""
    inputs = example_inputs(backend)
    backend.run(inputs)
    times: list[float] = []
    while len(times) < CALLS and sum(times) < SECONDS:
        began = time.perf_counter()
        backend.run(inputs)
        times.append(time.perf_counter() - began)
    return round(min(times), 6)


def example_inputs(backend: Backend) -> Inputs:
    """One clip or frame of noise, as the backend's graph takes it."""
    random = np.random.default_rng(0)
    return {
        tensor.name: random.integers(0, 256, tensor.single_shape, np.uint8)
        if tensor.dtype == "uint8"
        else random.normal(0, 0.1, tensor.single_shape).astype(tensor.dtype)
        for tensor in backend.contract.inputs
    }


def cache_directory() -> Path:
    """The folder of measurements, as each system has it: `$AVSBG_CACHE`, or `avsbg/backends` where caches lie."""
    if given := os.environ.get("AVSBG_CACHE"):
        return Path(given)
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  (Path.home() is an error where there is none)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(base) / "avsbg" / "backends"


def _key(bundle: Bundle, candidates: list[str], role: str, options: Mapping[str, Any]) -> str:
    """The name of a measurement: of this bundle, on this machine, with these versions."""
    versions = {"avsbg": __version__}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    driver = read_cuda_driver()
    gpus = [driver.version, *(gpu.name for gpu in driver.gpus)]
    machine = [platform.machine(), processor_name(), len(usable_cores()), gpus]
    given = {name: value for name, value in options.items() if value}
    document = [bundle.manifest_sha256, role, candidates, versions, machine, given, _native_libraries()]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _native_libraries() -> dict[str, Any]:
    """The identity of the libraries that backends load: compiler and architectures, size and time of the build."""
    found: dict[str, Any] = {}
    for name in ("cuda", "onnxruntime", "tensorrt"):
        with suppress(NativeLibraryError):
            library = native_library(name)
            status = library.path.stat()
            found[name] = [library.built_with, status.st_size, status.st_mtime_ns]
    return found


def _read(path: Path, candidates: list[str]) -> dict[str, Any] | None:
    """A cached measurement; None without one that can be read and names backends that are candidates."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        valid = record["backend"] in candidates and record["seconds"].keys() <= set(candidates)
        record = {**record, "seconds": {name: float(value) for name, value in record["seconds"].items()}}
        return record if valid else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _write(path: Path, record: dict[str, Any]) -> str | None:
    """Cache a measurement; returns why that could not be done, and a run goes on without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        return f"{path.parent}: {error.strerror or error}"
    return None
