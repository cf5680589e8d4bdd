"""Loading an engine of a bundle, and our plugin where it needs that: what can be checked is checked first.

Deserialising an engine runs native code that the engine's author chose. So an engine is loaded only if this user built
it on this machine, which `avsbg build` notes, or says that its source is trusted.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avsbg.atomic import atomic_file
from avsbg.native_library import NativeLibraryError, native_library
from avsbg.runtime.backends.tensorrt.logger import describe_errors, message_log
from avsbg.runtime.backends.tensorrt.objects import create_object
from avsbg.runtime.backends.tensorrt.rtx import import_tensorrt_rtx
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.engine_record import EngineRecord
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.device.gpu import module_name, read_cuda_driver
from avsbg.runtime.errors import BackendError

# The first version whose plugins (IPluginV3) and Python interface we use; JetPack 6 has it.
_OLDEST = (10, 3)
# Our operators in a TensorRT registry.
PLUGIN_OPERATORS = ("MeanCorrelation", "CorrelationVolume", "MeanCorrelations")
PLUGIN_VERSION = "1"
PLUGIN_NAMESPACE = ""
# The first bytes of a file, and the backend that it is of.
_BACKENDS = {b"ptrt": "tensorrt", b"vtrt": "tensorrt-rtx"}


def find_engine(bundle: Bundle, name: str) -> EngineRecord:
    """The record of an engine; a `BackendError` that names those there are, where the bundle has none of that name."""
    engines = bundle.manifest.engines
    if name not in engines:
        have = f"It has: {', '.join(engines)}." if engines else "It has none: make one with `avsbg build`."
        raise BackendError(f"{bundle.path} has no engine {name!r}.", have)
    return engines[name]


def choose_engine(
    bundle: Bundle,
    backend: str,
    graph: str,
    *,
    operator: str | None = None,
    precision: str | None = None,
    rest: str | None = None,
    gpu: int = 0,
) -> str:
    """The name of the one engine that fits; of several that differ only in the GPU, the one for this machine's `gpu`.

    `graph` is the graph's role or full name; None stands for any operator, precision or rest. It is a
    `BackendError` if none fits, with the command that builds one, or if several do, with their names.
    """
    fitting = {
        name: record
        for name, record in bundle.manifest.engines.items()
        if record.backend == backend
        and graph in (record.graph, GraphName.parse(record.graph).role)
        and operator in (None, record.operator)
        and precision in (None, record.precision)
        and rest in (None, record.rest or "fp32")
    }
    if not fitting:
        asked = " ".join(filter(None, (precision, rest and f"rest-{rest}", operator, f"engine of {backend}")))
        others = [name for name, record in bundle.manifest.engines.items() if record.backend == backend]
        have = f"It has: {', '.join(others)}. " if others else ""
        build = f"avsbg build {bundle.path} --backend {backend} --precision {precision or 'fp16'}"
        build += f" --rest {rest}" * bool(rest) + f" --implementation {operator}" * bool(operator)
        raise BackendError(f"{bundle.path} has no {asked} for the graph {graph}.", f"{have}Make one: {build}")
    gpus = read_cuda_driver().gpus
    if len(fitting) > 1 and gpu < len(gpus):
        here = gpus[gpu].compute_capability
        local = {name: one for name, one in fitting.items() if here in one.device.compute_capabilities}
        fitting = local or fitting
    if len(fitting) > 1:
        raise BackendError(
            f"{len(fitting)} engines of {bundle.path} fit: {', '.join(fitting)}.",
            f"Say which: by precision and implementation ({backend}:plugin:fp16, {backend}:rest-fp16:int8), or by its "
            "name (--engine NAME).",
        )
    return next(iter(fitting))


def load_engine(bundle: Bundle, name: str, *, trust: bool = False, plugin: Path | None = None, device: int = 0) -> Any:
    """Deserialise an engine of an open bundle, whose files have been held against their hashes.

    Args:
        trust: load it even though this user did not build it on this machine.
        plugin: the plugin library, for an engine that needs one; by default the one installed with avsbg.
        device: the number of the GPU that is current.

    Raises:
        BackendError: it is not what its record says, was built for another device or by another version, comes from an
            unknown source, or TensorRT refuses it.
        NativeLibraryError: the plugin is missing or cannot be used.
    """
    record = find_engine(bundle, name)
    path = bundle.file(record.file)
    first = next(iter(record.profile.values()))  # every input begins with the number of clips
    rebuild = f"Rebuild it: avsbg build {bundle.path} --backend {record.backend} --precision {record.precision}"
    rebuild += f" --rest {record.rest}" if record.rest else ""
    rebuild += (
        f" --implementation {record.operator} --batch-range {first.smallest[0]} {first.optimal[0]} {first.largest[0]}."
    )
    _check_magic(path, record, rebuild)
    if not trust and sha256(path) not in _read_built(_built_list()):
        raise BackendError(
            f"{path} was not built by this user on this machine, and an engine is native code.",
            f"{rebuild} Or, if you trust where it comes from, load it with --trust (trust=True in Python).",
        )
    trt = import_runtime(record.backend)
    _check_version(path, record, str(trt.__version__), rebuild)
    _check_device(path, record, rebuild, device)
    library = None
    if record.plugin is not None:
        library = native_library("tensorrt").path if plugin is None else plugin
        _check_plugin(path, record, library, rebuild)
    with message_log(trt).collect() as messages:
        try:
            operators = () if record.plugin is None else record.plugin.operators
            runtime = make_runtime(trt, library, operators, version_compatible=is_version_compatible(record))
            engine = runtime.deserialize_cuda_engine(path.read_bytes())
        except RuntimeError as error:
            raise BackendError(f"{record.backend} refuses the engine {path}: {error}.", rebuild) from error
    if engine is None:
        raise BackendError(f"{record.backend} refuses the engine {path}: {describe_errors(messages)}.", rebuild)
    return engine


def is_version_compatible(record: EngineRecord) -> bool:
    """Whether an engine also runs on later versions of TensorRT than the one that built it."""
    return bool(record.options.get("VERSION_COMPATIBLE"))


def make_runtime(
    trt: Any, plugin: Path | None, operators: Sequence[str] = PLUGIN_OPERATORS, *, version_compatible: bool
) -> Any:
    """A TensorRT runtime that meets an engine with its plugin loaded; a NativeLibraryError if that cannot be used.

    It is a BackendError where TensorRT makes no runtime.
    A version-compatible plan brings a lean runtime along, which is host code: TensorRT returns no engine unless
    `engine_host_code_allowed` is set. Set it only for engines whose source is trusted. The lean runtime does not see
    the registry of the installed TensorRT, which outlives every runtime, so the plugin goes to the runtime's own.
    """
    log = message_log(trt)
    runtime = create_object(log, "a runtime", lambda: trt.Runtime(log))
    if version_compatible:
        runtime.engine_host_code_allowed = True
    if plugin is not None:
        owner = runtime if version_compatible else trt
        load_plugin(create_object(log, "a registry of plugins", owner.get_plugin_registry), plugin, operators)
    return runtime


def load_plugin(registry: Any, path: Path | None = None, operators: Sequence[str] = PLUGIN_OPERATORS) -> Path:
    """Load the plugin library into a registry, check that it brought these operators, and return the library's path.

    `registry` is of the builder or runtime that will meet the operators; `path` is by default the library built with
    this installation. One that is missing, cannot be loaded or lacks an operator is a `NativeLibraryError`.
    """
    path = native_library("tensorrt").path if path is None else Path(path)
    if not path.is_file():
        hint = "Build it (docs/plugin.md) or leave the path out to use our own."
        raise NativeLibraryError(f"there is no plugin library {path}.", hint)
    if not _has(registry, operators) and (
        registry.load_library(str(path.resolve())) is None or not _has(registry, operators)
    ):
        raise NativeLibraryError(
            f"the plugin library {path} cannot be used: {_why_unusable(registry, path, operators)}"
        )
    return path


def _creators(registry: Any) -> list[tuple[str, str, str]]:
    return [(creator.name, creator.plugin_version, creator.plugin_namespace) for creator in registry.all_creators]


def _has(registry: Any, operators: Sequence[str]) -> bool:
    return {(operator, PLUGIN_VERSION, PLUGIN_NAMESPACE) for operator in operators} <= set(_creators(registry))


def _why_unusable(registry: Any, path: Path, operators: Sequence[str]) -> str:
    """TensorRT reports the cause only to its logger, so it is looked for again."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"{error}."
    if not hasattr(library, "getCreators"):
        return "it exports no getCreators, so it is not a TensorRT plugin library."
    present = [f"{name} version {version}" for name, version, _ in _creators(registry) if name in operators]
    wanted = [f"{name} version {PLUGIN_VERSION}" for name in operators]
    return f"avsbg needs {' and '.join(wanted)}; the registry has {' and '.join(present) or 'none of them'}."


def remember_built(digest: str) -> None:
    """Note that this user built the engine with this hash on this machine."""
    path = _built_list()
    known = _read_built(path)
    if digest not in known:
        with atomic_file(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in [*known, digest]), encoding="ascii")


def _built_list() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "avsbg" / "built-engines"


def _read_built(path: Path) -> list[str]:
    return path.read_text(encoding="ascii", errors="replace").split() if path.is_file() else []


def _check_magic(path: Path, record: EngineRecord, rebuild: str) -> None:
    with path.open("rb") as stream:
        magic = stream.read(4)
    found = _BACKENDS.get(magic)
    if found is None:
        raise BackendError(f"{path} is {'not a TensorRT engine' if magic else 'empty'}.", rebuild)
    if found != record.backend:
        raise BackendError(f"{path} is an engine of {found}; its record says {record.backend}.", rebuild)


def import_runtime(backend: str) -> Any:
    """The module of a backend; a `BackendError` where it is not installed, cannot be loaded, or is too old."""
    if backend == "tensorrt-rtx":
        return import_tensorrt_rtx()
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        hint = "`avsbg doctor` says how to install it on this machine."
        raise BackendError(f"TensorRT cannot be imported: {error}.", hint) from error
    if not hasattr(tensorrt, "__version__"):
        # A folder of that name on the path is taken for a package.
        raise BackendError(
            f"what Python finds as tensorrt is not TensorRT: {list(getattr(tensorrt, '__path__', []))}.",
            "Rename the folder, or install TensorRT: `avsbg doctor` says how.",
        )
    version = str(tensorrt.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise BackendError(f"TensorRT {version} is too old.", "avsbg needs 10.3 or later (JetPack 6 and later).")
    return tensorrt


def _check_version(path: Path, record: EngineRecord, installed: str, rebuild: str) -> None:
    """A version-compatible plan runs on its own version and on later ones, 10 on 11 too; any other on its own alone."""
    built = record.versions.get(record.backend, "unknown")
    if built == installed:
        return
    message = f"{path} was built by {record.backend} {built}; installed is {installed}."
    if not is_version_compatible(record) or not re.match(r"\d", built):
        raise BackendError(message, rebuild)
    if _version_numbers(installed) < _version_numbers(built):
        raise BackendError(f"{message} A version-compatible engine needs the same version or a later one.", rebuild)


def _version_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _check_device(path: Path, record: EngineRecord, rebuild: str, index: int) -> None:
    driver = read_cuda_driver()
    if driver.problem is not None:
        raise BackendError(f"the engine {path} needs a GPU: {driver.problem}.", "`avsbg doctor` shows what is here.")
    if index >= len(driver.gpus):
        raise BackendError(f"there is no GPU number {index}.", f"This machine has {len(driver.gpus)}.")
    gpu, wanted = driver.gpus[index], record.device
    if gpu.compute_capability not in wanted.compute_capabilities:
        built_for = ", ".join(f"{number / 10:.1f}" for number in wanted.compute_capabilities)
        here = f"this GPU, {gpu.name}, has {gpu.compute_capability / 10:.1f}"
        raise BackendError(f"{path} was built for compute capability {built_for}; {here}.", rebuild)
    if record.backend != "tensorrt":
        return
    # All GPUs of a Jetson generation have one name and one compute capability, from 4 to 16 multiprocessors.
    for what, theirs, ours in (
        ("name", wanted.name, gpu.name),
        ("multiprocessors", wanted.multiprocessors, gpu.multiprocessors),
        ("GiB of memory", wanted.memory_gib, gpu.memory_class),
        ("module", wanted.module, module_name()),
    ):
        if theirs not in (None, ours):
            raise BackendError(f"{path} was built on another GPU: {what} {theirs}, here {ours}.", rebuild)


def _check_plugin(path: Path, record: EngineRecord, library: Path, rebuild: str) -> None:
    assert record.plugin is not None
    if not library.is_file():
        raise BackendError(f"the engine {path} needs the plugin library, and there is none at {library}.")
    if (found := sha256(library)) != record.plugin.sha256:
        hashes = f"its sha256 is {found}, the record says {record.plugin.sha256}"
        raise BackendError(
            f"{library} is not the plugin that {path} was built with: {hashes}.",
            f"{rebuild} Or name the library that it was built with.",
        )
