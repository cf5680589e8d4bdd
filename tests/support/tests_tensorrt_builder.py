"""The building half of TensorRT's Python interface, version by version, recording calls; no library behind it.

It has what our code may use and no more, so an attribute that a version lacks is an AttributeError as with the real
one. Where each fact is from:

* builder flags, and which of them went with weak typing in 11: NVIDIA's "Removed Python APIs and Replacements"
  (docs.nvidia.com/deeplearning/tensorrt/11.4.0/api/migration/tensorrt-10x-to-11x-python-api-reference.html) and the
  bindings (github.com/NVIDIA/TensorRT, python/src/infer/pyCore.cpp). Flags that came after 10.3 are left out of 10.3.
* `NetworkDefinitionCreationFlag` of 11: EXPLICIT_BATCH is gone, STRONGLY_TYPED is kept and ignored
  (.../tensorrt/11.0.0/_static/python-api/infer/Core/Builder.html).
* the inspector's JSON: `Format/Datatype` in 10, `Format` and `DataType` and no `Bindings` in 11
  (.../11.3.0/api/migration/tensorrt-10x-to-11x-IEngineInspector.html).
* an inspector shows no formats, and -1 for sizes, unless an execution context with all input shapes is set
  (NvInferRuntime.h, IEngineInspector::setExecutionContext).
* a plugin is looked for in the registry of the object that meets it, and in the global one, its parent
  (IBuilder::getPluginRegistry, IRuntime::getPluginRegistry).
"""

from __future__ import annotations

import enum
import importlib.machinery
import json
import types
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

WEAK_TYPING = (
    "FP16",
    "INT8",
    "FP8",
    "BF16",
    "INT4",
    "FP4",
    "OBEY_PRECISION_CONSTRAINTS",
    "PREFER_PRECISION_CONSTRAINTS",
)
_FLAGS_10_3 = (
    *("FP16", "INT8", "DEBUG", "GPU_FALLBACK", "REFIT", "DISABLE_TIMING_CACHE", "TF32", "SPARSE_WEIGHTS"),
    *("SAFETY_SCOPE", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS", "DIRECT_IO"),
    *("REJECT_EMPTY_ALGORITHMS", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "FP8", "ERROR_ON_TIMING_CACHE_MISS"),
    *("BF16", "DISABLE_COMPILATION_CACHE", "STRIP_PLAN", "REFIT_IDENTICAL", "WEIGHT_STREAMING"),
)
_LATER_10 = ("INT4", "REFIT_INDIVIDUAL", "STRICT_NANS", "MONITOR_MEMORY", "FP4", "EDITABLE_TIMING_CACHE")
_GONE_IN_11 = {*WEAK_TYPING, "REJECT_EMPTY_ALGORITHMS"}
_OPERATORS = ("MeanCorrelation", "CorrelationVolume")
_WORDS = {1: ("Float", "FP32"), 10: ("Half", "FP16"), 16: ("BFloat16", "BF16"), 3: ("Int8", "Int8")}


@dataclass
class Recording:
    """What was called, and how the fake is to behave.

    Attributes:
        flags: builder flags as they stand at the build.
        network_flags: what `create_network` was given.
        calls: counts of calls by name.
        wrong: nodes -> ONNX element type: a builder that computes them in another type.
        fail: `build_serialized_network` returns None, with that error in the log.
        mismatch: a timing cache that was made elsewhere.
    """

    version: str
    flags: dict[str, bool] = field(default_factory=dict)
    network_flags: list[int] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, int] = field(default_factory=dict)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    pools: dict[str, int] = field(default_factory=dict)
    fail: str | None = None
    mismatch: bool = False
    libraries: list[str] = field(default_factory=list)


def fake_tensorrt(version: str, recording: Recording) -> Any:
    """A module like `tensorrt` of that version."""
    major, minor = (int(part) for part in version.split(".")[:2])
    names = list(_FLAGS_10_3)
    if (major, minor) >= (10, 13):
        names += _LATER_10
    if major >= 11:
        names = [name for name in names if name not in _GONE_IN_11]
    flag_names = ["STRONGLY_TYPED"] if major >= 11 else ["EXPLICIT_BATCH", "STRONGLY_TYPED"]

    class Module:
        __version__ = version
        BuilderFlag = enum.IntEnum("BuilderFlag", {name: number for number, name in enumerate(names)})
        NetworkDefinitionCreationFlag = enum.IntEnum(
            "NetworkDefinitionCreationFlag", {name: number + (major >= 11) for number, name in enumerate(flag_names)}
        )
        ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "LAYER_NAMES_ONLY DETAILED NONE")
        MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE DLA_MANAGED_SRAM TACTIC_DRAM")
        LayerInformationFormat = enum.Enum("LayerInformationFormat", "ONELINE JSON")
        LayerType = enum.Enum("LayerType", "CONVOLUTION MATRIX_MULTIPLY ELEMENTWISE PLUGIN_V2 PLUGIN_V3")

        class ILogger:
            def __init__(self) -> None:
                pass

        class IProgressMonitor:
            def __init__(self) -> None:
                pass

        OnnxParser: Any = None
        Builder: Any = None
        Runtime: Any = None
        get_plugin_registry: Any = None

    registry = _Registry(recording, None)
    Module.get_plugin_registry = staticmethod(lambda: registry)
    Module.OnnxParser = lambda network, log: _Parser(Module, recording, network, log)
    Module.Builder = lambda log: _Builder(Module, recording, log, registry)
    Module.Runtime = lambda log: _Runtime(recording, log, registry, major)
    module = types.ModuleType("tensorrt")
    module.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    for name, thing in vars(Module).items():
        if not name.startswith("__") or name == "__version__":
            setattr(module, name, getattr(Module, name, thing))
    return module


class _Creator:
    __slots__ = ("name", "plugin_namespace", "plugin_version")

    def __init__(self, name: str) -> None:
        self.name, self.plugin_version, self.plugin_namespace = name, "1", ""


class _Registry:
    __slots__ = ("_parent", "_recording", "all_creators")

    def __init__(self, recording: Recording, parent: _Registry | None) -> None:
        self._recording, self._parent = recording, parent
        self.all_creators: list[_Creator] = []

    def load_library(self, plugin_path: str) -> object:
        assert Path(plugin_path).is_file()
        self._recording.libraries.append(plugin_path)
        self.all_creators += [_Creator(name) for name in _OPERATORS]
        return object()

    def knows(self, name: str) -> bool:
        return any(creator.name == name for creator in self.all_creators) or (
            self._parent is not None and self._parent.knows(name)
        )


class _Layer:
    __slots__ = ("type",)

    def __init__(self, kind: Any) -> None:
        self.type = kind


class _Network:
    __slots__ = ("_layers", "_model", "_registry")

    def __init__(self, registry: _Registry) -> None:
        self._registry, self._layers, self._model = registry, [], None

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> _Layer:
        return self._layers[index]


class _Parser:
    __slots__ = ("_log", "_network", "_recording", "_trt", "num_errors")

    def __init__(self, trt: Any, recording: Recording, network: _Network, log: Any) -> None:
        self._trt, self._recording, self._network, self._log, self.num_errors = trt, recording, network, log, 0

    def parse_from_file(self, model: str) -> bool:
        self._recording.calls["parse_from_file"] += 1
        network = self._network
        network._model = onnx.shape_inference.infer_shapes(onnx.load(model, load_external_data=False))
        kinds = self._trt.LayerType
        for node in network._model.graph.node:
            plugin = node.domain == "avsbg" and network._registry.knows(node.op_type)
            kind = {"Conv": kinds.CONVOLUTION, "MatMul": kinds.MATRIX_MULTIPLY}.get(node.op_type, kinds.ELEMENTWISE)
            network._layers.append(_Layer(kinds.PLUGIN_V3 if plugin else kind))
        return True


class _Profile:
    __slots__ = ("shapes",)

    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))


class _TimingCache:
    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"measured"


class _Config:
    __slots__ = (
        "_cache",
        "_flags",
        "_profiles",
        "_recording",
        "_trt",
        "max_aux_streams",
        "profiling_verbosity",
        "progress_monitor",
    )

    def __init__(self, trt: Any, recording: Recording) -> None:
        self._trt, self._recording = trt, recording
        self._flags = {trt.BuilderFlag.TF32}  # "Enabled by default"
        self._profiles: list[_Profile] = []
        self._cache: _TimingCache | None = None
        self.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        self.progress_monitor: Any = None
        self.max_aux_streams = -1

    def set_flag(self, flag: Any) -> None:
        self._flags.add(self._trt.BuilderFlag(flag))

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(self._trt.BuilderFlag(flag))

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._recording.pools[pool.name] = pool_size

    def add_optimization_profile(self, profile: _Profile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> _TimingCache:
        return _TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return ignore_mismatch or not self._recording.mismatch

    def get_timing_cache(self) -> _TimingCache | None:
        return self._cache


class _Builder:
    __slots__ = ("_log", "_recording", "_registry", "_trt")

    def __init__(self, trt: Any, recording: Recording, log: Any, parent: _Registry) -> None:
        self._trt, self._recording, self._log, self._registry = trt, recording, log, _Registry(recording, parent)

    def get_plugin_registry(self) -> _Registry:
        return self._registry

    def create_network(self, flags: int = 0) -> _Network:
        self._recording.network_flags.append(flags)
        return _Network(self._registry)

    def create_builder_config(self) -> _Config:
        return _Config(self._trt, self._recording)

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        recording = self._recording
        recording.flags = {flag.name: flag in config._flags for flag in self._trt.BuilderFlag}
        recording.profiles = [profile.shapes for profile in config._profiles]
        monitor = config.progress_monitor
        monitor.phase_start("Building Engine", None, 2)
        if not all(monitor.step_complete("Building Engine", step) for step in range(2)):
            return None
        monitor.phase_finish("Building Engine")
        if recording.fail is not None:
            self._log.log(1, recording.fail)
            return None
        for line in ("Total Activation Memory: 4096 bytes", "Total Weights Memory: 8192 bytes"):
            self._log.log(4, line)
        model = network._model
        kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
            kinds[value.name] = value.type.tensor_type.elem_type
        layers = [
            {
                "name": node.name,
                "plugin": node.op_type if layer.type is self._trt.LayerType.PLUGIN_V3 else None,
                "kind": layer.type.name,
                "types": [recording.wrong.get(node.name, kinds.get(name, 1)) for name in node.input if name],
            }
            for node, layer in zip(model.graph.node, network._layers, strict=True)
        ]
        detailed = config.profiling_verbosity is self._trt.ProfilingVerbosity.DETAILED
        inputs = [value.name for value in model.graph.input]
        return b"ptrt" + json.dumps({"layers": layers, "detailed": detailed, "inputs": inputs}).encode()


class _Context:
    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def set_input_shape(self, name: str, shape: Any) -> bool:
        self._shapes[name] = tuple(shape)
        return True


class _Inspector:
    __slots__ = ("_major", "_plan", "execution_context")

    def __init__(self, plan: dict[str, Any], major: int) -> None:
        self._plan, self._major = plan, major
        self.execution_context: _Context | None = None

    def get_engine_information(self, format: Any) -> str:
        assert format.name == "JSON"
        names = [layer["name"] for layer in self._plan["layers"]]
        if not self._plan["detailed"]:
            return json.dumps({"Layers": names})
        context = self.execution_context
        known = context is not None and set(context._shapes) == set(self._plan["inputs"])

        def tensor(kind: int) -> dict[str, Any]:
            word, short = _WORDS.get(kind, ("Int64", "INT64"))
            described: dict[str, Any] = {"Name": "t", "Dimensions": [2, 8] if known else [-1, 8]}
            if not known:
                return described
            if self._major >= 11:
                return {**described, "Format": "Row major linear format (kLINEAR)", "DataType": word}
            return {**described, "Format/Datatype": f"Row major linear {short} format"}

        layers = [
            {
                "Name": layer["name"],
                "LayerType": layer["kind"],
                "Inputs": [tensor(kind) for kind in layer["types"]],
                "Outputs": [],
                "TacticName": "fake",
                "Metadata": f"[ONNX Layer: {layer['name']}]",
            }
            for layer in self._plan["layers"]
        ]
        tensors: dict[str, Any] = {"I/O Tensors": []} if self._major >= 11 else {"Bindings": self._plan["inputs"]}
        return json.dumps({"Layers": layers, **tensors})


class _Engine:
    __slots__ = ("_major", "_plan")

    def __init__(self, plan: dict[str, Any], major: int) -> None:
        self._plan, self._major = plan, major

    def create_execution_context(self) -> _Context:
        return _Context()

    def create_engine_inspector(self) -> _Inspector:
        return _Inspector(self._plan, self._major)


class _Runtime:
    __slots__ = ("_log", "_major", "_recording", "_registry")

    def __init__(self, recording: Recording, log: Any, parent: _Registry, major: int) -> None:
        self._recording, self._log, self._registry, self._major = recording, log, _Registry(recording, parent), major

    def get_plugin_registry(self) -> _Registry:
        return self._registry

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> _Engine | None:
        plan = json.loads(serialized_engine.removeprefix(b"ptrt"))
        for layer in plan["layers"]:
            if layer["plugin"] is not None and not self._registry.knows(layer["plugin"]):
                self._log.log(1, f"Cannot find plugin: {layer['plugin']}, version: 1, namespace:.")
                return None
        return _Engine(plan, self._major)
