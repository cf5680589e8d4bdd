"""The differences between `tensorrt` 10.3 to 11 and `tensorrt_rtx`, and nothing else.

Everything else of the build is one code, since the Python interface is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsbg.atomic import atomic_file
from avsbg.export.engine.request import BuildError, EngineRequest
from avsbg.runtime.backends.tensorrt.engine import import_runtime
from avsbg.runtime.backends.tensorrt.logger import message_log
from avsbg.runtime.backends.tensorrt.objects import create_object
from avsbg.runtime.backends.tensorrt.rtx import import_tensorrt_rtx
from avsbg.runtime.bundle.engine_record import DeviceRecord
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.device.gpu import module_name, power_mode, read_cuda_driver


@dataclass(frozen=True)
class TensorRT:
    """A TensorRT that can build: `tensorrt` or `tensorrt-rtx`, its Python module, and its version."""

    backend: str
    module: Any
    version: str

    def network_flags(self) -> int:
        """For `create_network`: strongly typed, which is the only kind from TensorRT 11 on (and in RTX)."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)


def import_tensorrt(backend: str) -> TensorRT:
    """Import the module of a backend; a BackendError says that it is not installed, or too old."""
    if backend == "tensorrt-rtx":
        module = import_tensorrt_rtx()
        return TensorRT(backend, module, module.__version__)
    tensorrt = import_runtime(backend)
    return TensorRT(backend, tensorrt, str(tensorrt.__version__))


def validate_builder_options(request: EngineRequest) -> None:
    """Raise a BuildError for an option that the request's backend would ignore or cannot do."""
    if request.backend == "tensorrt":
        if request.compute_capabilities:
            raise BuildError(
                "--compute-capability has no effect with --backend tensorrt, which builds for the GPU that it runs on.",
                "Build on the device, or use --backend tensorrt-rtx.",
            )
        # It is written after a build that may take minutes.
        if request.timing_cache is not None and not request.timing_cache.absolute().parent.is_dir():
            raise BuildError(
                f"--timing-cache {request.timing_cache}: there is no folder {request.timing_cache.parent}.",
                "Make it first.",
            )
        return
    if request.version_compatible:
        raise BuildError(
            "--version-compatible is not possible with --backend tensorrt-rtx: its engines carry no lean runtime.",
            "Rebuild the engine for each version; TensorRT for RTX builds in seconds.",
        )
    if request.timing_cache is not None:
        raise BuildError(
            "--timing-cache has no effect with --backend tensorrt-rtx, which times nothing while it builds.",
            "Leave it out.",
        )
    if request.strip_weights and read_cuda_driver().version is None:
        raise BuildError(
            "--strip-weights needs an NVIDIA driver with --backend tensorrt-rtx, and there is none.",
            "Leave it out, or build where there is a GPU.",
        )


def choose_device(api: TensorRT, request: EngineRequest) -> DeviceRecord:
    """Choose the device to build for; a BuildError where none is here or named, or the backend cannot build for it."""
    driver = read_cuda_driver()
    gpu = driver.gpus[0] if driver.gpus else None
    wanted = request.compute_capabilities
    if api.backend == "tensorrt-rtx":
        names = dir(api.module.ComputeCapability)
        known = sorted(int(name.removeprefix("SM")) for name in names if name.startswith("SM"))
        if not wanted and gpu is None:
            raise BuildError(
                f"nothing says what to build for: {driver.problem}.",
                f"Name it with --compute-capability, one of: {', '.join(map(str, known))}.",
            )
        own = gpu if gpu is not None and not wanted else None
        chosen = wanted if own is None else (own.compute_capability,)
        if unknown := [number for number in chosen if number not in known]:
            raise BuildError(
                f"TensorRT for RTX {api.version} does not build for compute capability {unknown[0]}.",
                f"It builds for: {', '.join(map(str, known))}. For a Jetson or a data-centre GPU, use --backend "
                "tensorrt on the device.",
            )
        _check_type(request, chosen, known)
        return DeviceRecord(compute_capabilities=chosen, name=None if own is None else own.name)
    if gpu is None:
        raise BuildError(
            f"TensorRT builds only where there is a GPU, and {driver.problem}.",
            "Copy the bundle to the device and run this command there, or use --backend tensorrt-rtx.",
        )
    _check_type(request, (gpu.compute_capability,), ())
    return DeviceRecord(
        compute_capabilities=(gpu.compute_capability,),
        name=gpu.name,
        multiprocessors=gpu.multiprocessors,
        memory_gib=gpu.memory_class,
        module=module_name(),
        power_mode=power_mode(),
    )


def _check_type(request: EngineRequest, chosen: tuple[int, ...], known: Sequence[int]) -> None:
    """Refuse what the builder calls "HW-specific datatypes", at the end of a long build, without a remedy."""
    precision = PRECISIONS[request.precision]
    least = precision.min_compute_capability
    if lacking := [number for number in chosen if number < least]:
        able = [number for number in known if number >= least]
        device = f"--compute-capability {', '.join(map(str, able))}" if able else "a newer GPU"
        raise BuildError(
            f"--precision {request.precision} needs compute capability {least / 10} or later, and "
            f"{lacking[0] / 10} has no products in that type.",
            f"Use --precision {precision.alternative}, or {device}.",
        )


def configure(api: TensorRT, config: Any, request: EngineRequest, device: DeviceRecord) -> dict[str, str | int | bool]:
    """Set a builder configuration and return what was set, by TensorRT's names."""
    trt = api.module
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    options: dict[str, str | int | bool] = {"strongly_typed": True, "profiling_verbosity": "DETAILED"}
    # TensorRT allows tf32 unless told otherwise.
    options["TF32"] = _set_flag(config, trt.BuilderFlag.TF32, request.precision == "tf32")
    for name, wanted in (("VERSION_COMPATIBLE", request.version_compatible), ("STRIP_PLAN", request.strip_weights)):
        options[name] = _set_flag(config, getattr(trt.BuilderFlag, name), wanted)
    if request.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_mb * 2**20)
        options["workspace_bytes"] = request.workspace_mb * 2**20
    if request.aux_streams is not None:
        config.max_aux_streams = request.aux_streams
        options["max_aux_streams"] = request.aux_streams
    if api.backend == "tensorrt-rtx":
        config.num_compute_capabilities = len(device.compute_capabilities)
        for index, number in enumerate(device.compute_capabilities):
            if not config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{number}"), index):
                raise BuildError(f"TensorRT for RTX {api.version} refuses the compute capability {number / 10:.1f}.")
    if request.timing_cache is not None:
        _take_timing_cache(trt, config, request.timing_cache)
        options["timing_cache"] = True
    return options


def _take_timing_cache(trt: Any, config: Any, path: Path) -> None:
    """Read a timing cache; it is a BuildError where TensorRT would take an empty one, and write it there afterwards."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise BuildError(f"the timing cache {path} cannot be read: {error.strerror}.", "Name another file.") from error
    log, hint = message_log(trt), "Delete it, or name another file."
    with log.collect() as messages:
        cache = create_object(log, "a timing cache", lambda: config.create_timing_cache(content))
    # "Failed to deserialize timing cache. Returning an empty timing cache." is a warning.
    said = [message.text for message in messages if message.level >= logging.WARNING and "cache" in message.text]
    if content and said:
        raise BuildError(f"{path} is no timing cache that this TensorRT can read: {said[-1]}", hint)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        raise BuildError(f"the timing cache {path} was made on another device or by another TensorRT.", hint)


def _set_flag(config: Any, flag: Any, wanted: bool) -> bool:
    (config.set_flag if wanted else config.clear_flag)(flag)
    if config.get_flag(flag) != wanted:
        raise BuildError(f"this TensorRT does not let the builder flag {flag} be set to {wanted}.")
    return wanted


def save_timing_cache(config: Any, path: Path) -> None:
    """Write what the builder measured."""
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        raise BuildError(
            f"the timing cache {path} cannot be written: {error.strerror}.", "Name another file."
        ) from error
