"""Where a contender's time goes: each backend's own profiler, folded into the stages of the network.

ONNX Runtime's profiler times its kernels, hooks time the modules of PyTorch, and another backend offers
`profile_layers` (TensorRT's IProfiler, OpenVINO's performance counters). Profiling slows a run down, so its times are
never published as latency; what is published are their proportions.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from avsbg.benchmarks.measure.cases import GRAPH, BenchmarkCase
from avsbg.benchmarks.measure.runner import ran_as
from avsbg.benchmarks.measure.stages import fold, in_order
from avsbg.benchmarks.measure.workloads import random_inputs
from avsbg.benchmarks.results.profile_rows import LayerRow, ProfileRow
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.bundle import Bundle

WARMUP, RUNS = 2, 5
_SLOWEST = 20
# Between the modules of a network: gathering of neighbours, reshapes.
_ACTIVATION_DTYPE = "between modules"

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Layer:
    """What a profiler timed in one run: a kernel, a layer or a module; `stage` where the name does not tell it."""

    name: str
    kind: str
    seconds: float
    stage: str | None = None


@runtime_checkable
class LayerProfiled(Protocol):
    """A backend with a profiler of its own."""

    def profile_layers(self, inputs: Inputs) -> Sequence[tuple[str, float]]:
        """Run once and return each layer's name and seconds, in the order of execution."""


def profile(contender: BenchmarkCase, clips: int) -> ProfileRow | None:
    """Profile a contender on so many clips; None if its backend has no profiler.

    Raises:
        BackendError: the backend cannot run the graph.
    """
    if contender.backend == "onnxruntime":
        source, described, runs = _onnxruntime(contender, clips)
    elif contender.backend == "torch":
        source, described, runs = _torch(contender, clips)
    else:
        with contender.create() as backend:
            if not isinstance(backend, LayerProfiled):
                return None
            inputs = random_inputs(backend.contract.inputs, clips)
            timed = [backend.profile_layers(inputs) for _ in range(WARMUP + RUNS)][WARMUP:]
            runs = [[Layer(name, "", seconds) for name, seconds in layers] for layers in timed]
            source, described = f"the profiler of {contender.backend}", backend.describe()
    layers = sorted(runs, key=lambda run: sum(layer.seconds for layer in run))[len(runs) // 2]
    folded = fold([layer.name for layer in layers])
    rows = [
        LayerRow(name=layer.name, stage=layer.stage or stage, kind=layer.kind, seconds=layer.seconds / clips)
        for layer, stage in zip(layers, folded, strict=True)
    ]
    stages: dict[str, float] = {}
    for row in rows:
        stages[row.stage] = stages.get(row.stage, 0.0) + row.seconds
    return ProfileRow(
        label=contender.label,
        variant=ran_as(contender),
        backend=described,
        source=source,
        clips=clips,
        runs=len(runs),
        stages=in_order(stages),
        slowest=tuple(sorted(rows, key=lambda row: -row.seconds)[:_SLOWEST]),
    )


_Profiled = tuple[str, dict[str, Any], list[list[Layer]]]


class _ProfiledOnnxRuntime(OnnxRuntimeBackend):
    """With ONNX Runtime's profiler, which writes a trace into `folder`."""

    folder = Path()

    def _options(self, onnxruntime: Any) -> Any:
        options = super()._options(onnxruntime)
        options.enable_profiling = True
        options.profile_file_prefix = str(self.folder / "profile")
        return options

    def finish(self) -> Path:
        """The trace."""
        return Path(self._session.end_profiling())


def _onnxruntime(contender: BenchmarkCase, clips: int) -> _Profiled:
    with tempfile.TemporaryDirectory() as folder:
        backend = _ProfiledOnnxRuntime(contender.bundle, GRAPH, **contender.options)
        backend.folder = Path(folder)
        with backend:
            inputs = random_inputs(backend.contract.inputs, clips)
            for _ in range(WARMUP + RUNS):
                backend.run(inputs)
            described = backend.describe()
            trace = json.loads(backend.finish().read_text(encoding="utf-8"))
    origin = _node_of_output(contender.bundle, backend.graph)
    return "the profiler of ONNX Runtime", described, read_trace(trace, origin)[WARMUP:]


def read_trace(events: Sequence[Mapping[str, Any]], origin: Mapping[str, str]) -> list[list[Layer]]:
    """The kernels of each run of an ONNX Runtime trace.

    Args:
        events: the trace.
        origin: output -> the node that makes it. Convolutions in the blocked layout are named after their output.
    """
    runs = sorted((e for e in events if e["name"] == "model_run"), key=lambda e: e["ts"])
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    found = []
    for run in runs:
        begin, end = run["ts"], run["ts"] + run["dur"]
        inside = sorted((e for e in kernels if begin <= e["ts"] < end), key=lambda e: e["ts"])
        found.append([Layer(_node_name(e["name"], origin), e["args"]["op_name"], e["dur"] / 1e6) for e in inside])
    return found


def _node_name(event: str, origin: Mapping[str, str]) -> str:
    name = event.removesuffix("_kernel_time").removeprefix("fused ")
    return origin.get(name.removesuffix("_nchwc"), name) if name.endswith("_nchwc") else name


def _node_of_output(bundle: Bundle, graph: str) -> dict[str, str]:
    import onnx

    model = onnx.load(bundle.file(bundle.graph(graph).file), load_external_data=False)
    return {output: node.name for node in model.graph.node for output in node.output}


def _torch(contender: BenchmarkCase, clips: int) -> _Profiled:
    import torch
    from torch import nn

    from avsbg.export.torch_backend import TorchBackend

    class Profiled(TorchBackend):
        """With hooks around the parts of the network; a list of modules is never called itself, its elements are."""

        def hooked(self) -> list[tuple[str, nn.Module]]:
            assert self._module is not None
            parts = dict(self._module.named_children())
            network = parts.pop("network")
            found = [(name, part) for name, part in parts.items() if isinstance(part, nn.Module)]
            for name, part in network.named_children():
                inner = part.named_children() if isinstance(part, nn.ModuleList) else [("", part)]
                found += [(f"network.{name}.{number}".rstrip("."), module) for number, module in inner]
            return found

        def synchronise(self) -> None:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)

    with Profiled(contender.bundle, GRAPH, **contender.options) as backend:
        layers: list[Layer] = []
        started: list[float] = []

        def enter(*_: object) -> None:
            backend.synchronise()
            started.append(time.perf_counter())

        for name, module in backend.hooked():

            def leave(*_: object, name: str = name, kind: str = type(module).__name__) -> None:
                backend.synchronise()
                layers.append(Layer(name, kind, time.perf_counter() - started.pop()))

            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave)
        inputs = random_inputs(backend.contract.inputs, clips)
        runs = []
        for _ in range(WARMUP + RUNS):
            layers.clear()
            began = time.perf_counter()
            backend.run(inputs)
            rest = time.perf_counter() - began - sum(layer.seconds for layer in layers)
            runs.append([*layers, Layer(_ACTIVATION_DTYPE, "", max(0.0, rest), stage=_ACTIVATION_DTYPE)])
        return "hooks around PyTorch's modules", backend.describe(), runs[WARMUP:]
