"""A case's time by part of the network, from its backend's profiler.

The profilers of ONNX Runtime and OpenVINO time their kernels, hooks time the modules of PyTorch; nodes and layers carry
the names of the modules that they come from. Profiling slows a run down, so its times are never published as latency;
what is published are their proportions.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.measure.cases import GRAPH, BenchmarkCase, describe_bundle
from avsbg.benchmarks.measure.runner import ran_as
from avsbg.benchmarks.measure.workloads import Workload, random_inputs
from avsbg.benchmarks.results.schema import Measurement, Metric
from avsbg.progress import Progress
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.backends.openvino import OpenVinoBackend
from avsbg.runtime.bundle import Bundle

WARMUP, RUNS = 2, 5
_SLOWEST = 20
# Module -> part. TPAVI is AVSBench's fusion; what precedes the network is the front end.
_MODULES = {
    "log_mel": "front end",
    "spectrogram": "front end",
    "vggish": "front end",
    "encoder": "encoder",
    "neck": "neck",
    "fusion": "fusion",
    "tpavi": "fusion",
    "correlation": "correlation",
    "decoder": "decoder",
    "head": "head",
}
PARTS = tuple(dict.fromkeys(_MODULES.values()))
_MODULE = re.compile(rf"(?:^|[ ./])(?:network\.)?({'|'.join(_MODULES)})(?=[./_ ]|$)")
# Between the modules of a network: gathering of neighbours, reshapes.
_BETWEEN = "between modules"


@dataclass(frozen=True)
class Layer:
    """A kernel, layer or module as a profiler timed it in one run; `part` where the name does not tell it."""

    name: str
    kind: str
    seconds: float
    part: str | None = None


def profile(case: BenchmarkCase, clips: int) -> Measurement | None:
    """Profile a case on so many clips; None if its backend has no profiler."""
    if case.backend not in (profilers := {"onnxruntime": _onnxruntime, "openvino": _openvino, "torch": _torch}):
        return None
    source, described, runs = profilers[case.backend](case, clips)
    layers = sorted(runs, key=lambda run: sum(layer.seconds for layer in run))[len(runs) // 2]
    assigned = assign_parts([layer.name for layer in layers])
    parts: defaultdict[str, float] = defaultdict(float)
    named: defaultdict[str, float] = defaultdict(float)
    kinds: defaultdict[str, float] = defaultdict(float)
    for layer, assigned_part in zip(layers, assigned, strict=True):
        part, seconds = layer.part or assigned_part, layer.seconds / clips
        parts[part] += seconds
        named[f"{part}/{layer.name} ({layer.kind})"] += seconds
        kinds[layer.kind or layer.name] += seconds
    slowest = dict(sorted(named.items(), key=lambda item: -item[1])[:_SLOWEST])
    return Measurement(
        kind="profile",
        label=case.label,
        case={"clips": clips, "source": source, "runs": len(runs)},
        metrics={
            "time": Metric(unit="s", value=sum(parts.values()), parts=in_order(parts)),
            "layers": Metric(unit="s", parts=slowest),
            "kinds": Metric(unit="s", parts=dict(sorted(kinds.items(), key=lambda item: -item[1]))),
        },
        ran=describe_bundle(case.bundle, variant=ran_as(case), backend=described),
        environment=describe_environment(),
    )


def profile_all(cases: Sequence[BenchmarkCase], workload: Workload, progress: Progress) -> list[Measurement]:
    """The profiles of those cases whose backend has a profiler; a `BenchmarkError` for a whole video."""
    if workload.scope != "model":
        raise BenchmarkError("parts are timed in the scope model.", "Leave out --profile, or --scope.")
    found = []
    for number, case in enumerate(cases, start=1):
        found.append(profile(case, workload.clips))
        progress("profiling, one by one", number, len(cases))
    return [row for row in found if row is not None]


def find_part(name: str) -> str | None:
    """The part whose module a node's name tells, e.g. `network.decoder.3.conv/Conv`; None if it tells none."""
    found = _MODULE.search(name)
    return _MODULES[found[1]] if found else None


def part_title(part: str) -> str:
    """The part of a profile that a part of the network, as `flops.parts` names it, belongs to."""
    return _MODULES.get(part, part)


def assign_parts(names: Sequence[str]) -> list[str]:
    """A part for each of the layers of one run, given in the order of execution.

    Engines add layers of their own (changes of layout, fused remains) and drop names. Such a layer belongs to the part
    of the layer before it, but what reorders an input to that of the layer after it; whatever comes before the first
    layer of the encoder and tells no module scales and normalises, and is front end.
    """
    known = [find_part(name) for name in names]
    first = known.index("encoder") if "encoder" in known else 0
    parts: list[str] = []
    for position, (name, part) in enumerate(zip(names, known, strict=True)):
        if part is not None:
            parts.append(part)
        elif position < first:
            parts.append("front end")
        elif name.startswith(("ReorderInput", "gemm_input_reshape")):
            following = next((later for later in known[position:] if later is not None), None)
            parts.append(following or parts[-1])
        else:
            parts.append(parts[-1] if parts else "front end")
    return parts


def in_order(seconds: Mapping[str, float]) -> dict[str, float]:
    """Parts in the order of execution, others last; those that take no time are left out."""
    names = [*PARTS, *(name for name in seconds if name not in PARTS)]
    return {name: seconds[name] for name in names if seconds.get(name)}


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


def _onnxruntime(case: BenchmarkCase, clips: int) -> _Profiled:
    described, runs = profile_onnxruntime(case.bundle, GRAPH, case.options, clips)
    return "the profiler of ONNX Runtime", described, runs


def profile_onnxruntime(
    bundle: Bundle, graph: str, options: Mapping[str, Any], count: int
) -> tuple[dict[str, Any], list[list[Layer]]]:
    """The backend's description, and the kernels of each run of a graph on so many clips or frames."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        backend = _ProfiledOnnxRuntime(bundle, graph, **options)
        backend.folder = Path(folder)
        with backend:
            inputs = random_inputs(backend.contract.inputs, count)
            for _ in range(WARMUP + RUNS):
                backend.run(inputs)
            described = backend.describe()
            trace = json.loads(backend.finish().read_text(encoding="utf-8"))
    nodes = onnx.load(bundle.file(bundle.graph(backend.graph).file), load_external_data=False).graph.node
    origin = {output: node.name for node in nodes for output in node.output}
    return described, read_trace(trace, origin)[WARMUP:]


def read_trace(events: Sequence[Mapping[str, Any]], origin: Mapping[str, str]) -> list[list[Layer]]:
    """The kernels of each run of an ONNX Runtime trace.

    `origin` maps outputs to the nodes that make them: convolutions in the blocked layout are named after their output.
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


class _ProfiledOpenVino(OpenVinoBackend):
    """With OpenVINO's counters, which hold the mean of all calls."""

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "PERF_COUNT": True}

    def read_layers(self) -> list[Layer]:
        """The layers of the compiled graph that took time, in the order of execution."""
        counted = [(info, info.real_time.total_seconds()) for info in self._request.get_profiling_info()]
        return [Layer(info.node_name, info.node_type, seconds) for info, seconds in counted if seconds]


def _openvino(case: BenchmarkCase, clips: int) -> _Profiled:
    with _ProfiledOpenVino(case.bundle, GRAPH, **case.options) as backend:
        inputs = random_inputs(backend.contract.inputs, clips)
        for _ in range(WARMUP + RUNS):
            backend.run(inputs)
        return "OpenVINO's counters", backend.describe(), [backend.read_layers()]


def _torch(case: BenchmarkCase, clips: int) -> _Profiled:
    import torch

    from avsbg.export.torch_backend import TorchBackend

    class Profiled(TorchBackend):
        """With hooks around the parts of the network; a list of modules is never called itself, its elements are."""

        def add_hooks(self, layers: list[Layer]) -> None:
            assert self._module is not None
            outer = dict(self._module.named_children())
            modules = dict(outer.pop("network").named_children())
            modules = {f"network.{name}": module for name, module in modules.items()} | outer
            started: list[float] = []

            def enter(*_: object) -> None:
                self.synchronise()
                started.append(time.perf_counter())

            def leave(name: str, module: torch.nn.Module, *_: object) -> None:
                self.synchronise()
                layers.append(Layer(name, type(module).__name__, time.perf_counter() - started.pop()))

            for name, module in modules.items():
                inner = module.named_children() if isinstance(module, torch.nn.ModuleList) else [("", module)]
                for number, part in inner:
                    part.register_forward_pre_hook(enter)
                    part.register_forward_hook(partial(leave, f"{name}.{number}".rstrip(".")))

        def synchronise(self) -> None:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)

    with Profiled(case.bundle, GRAPH, **case.options) as backend:
        layers: list[Layer] = []
        backend.add_hooks(layers)
        inputs = random_inputs(backend.contract.inputs, clips)
        runs = []
        for _ in range(WARMUP + RUNS):
            layers.clear()
            began = time.perf_counter()
            backend.run(inputs)
            rest = time.perf_counter() - began - sum(layer.seconds for layer in layers)
            runs.append([*layers, Layer(_BETWEEN, "", max(0.0, rest), part=_BETWEEN)])
        return "hooks around PyTorch's modules", backend.describe(), runs[WARMUP:]
