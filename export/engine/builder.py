"""One build: an ONNX file becomes a serialised engine, with what the builder said about it."""

from __future__ import annotations

import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from avsbg.errors import AvsbgError
from avsbg.export.engine.api import TensorRT, configure, save_timing_cache
from avsbg.export.engine.layers import Layer, layers_from_inspector, layers_from_log
from avsbg.export.engine.request import BuildError, EngineRequest
from avsbg.export.operators import DOMAIN
from avsbg.export.plugin_graph import PLUGIN_DOMAIN
from avsbg.runtime.backends.tensorrt.engine import (
    PLUGIN_NAMESPACE,
    PLUGIN_OPERATORS,
    PLUGIN_VERSION,
    load_plugin,
    make_runtime,
)
from avsbg.runtime.backends.tensorrt.logger import Message, describe_errors, message_log
from avsbg.runtime.backends.tensorrt.objects import create_object
from avsbg.runtime.bundle.engine_record import DeviceRecord, MemoryRecord, ProfileRecord
from avsbg.runtime.bundle.manifest import GraphRecord
from avsbg.runtime.bundle.record_types import validate_shape

# Called with a phase's name, the steps done and the steps there are; done equals all when the phase ends.
Progress = Callable[[str, int, int], None]
# Beginning of the parser's log line that names the plugin a node asks for.
_CHECKING = "Checking if node can be treated as plugin: "


class ParseError(AvsbgError):
    """TensorRT's parser refuses a model."""


@dataclass(frozen=True)
class Built:
    """A serialised engine and what is known of it."""

    plan: bytes
    layers: tuple[Layer, ...]
    source: Literal["inspector", "builder log"]
    memory: MemoryRecord
    options: dict[str, str | int | bool]
    profile: dict[str, ProfileRecord]
    seconds: float


def make_profile(graph: GraphRecord, clips: tuple[int, int, int]) -> dict[str, ProfileRecord]:
    """The shapes of each input for the three numbers of clips; a BuildError for one larger than TensorRT takes."""
    profile = {}
    for tensor in graph.inputs:
        smallest, optimal, largest = (
            tuple(number if isinstance(size, str) else size for size in tensor.shape) for number in clips
        )
        if problem := validate_shape(largest):
            raise BuildError(
                f"--batch-range ... {clips[2]}: the input {tensor.name} {problem}.", "Ask for fewer clips."
            )
        profile[tensor.name] = ProfileRecord(smallest=smallest, optimal=optimal, largest=largest)
    return profile


def build_engine(
    api: TensorRT,
    onnx_file: Path,
    graph: GraphRecord,
    *,
    request: EngineRequest,
    device: DeviceRecord,
    plugin: Path | None,
    progress: Progress,
) -> Built:
    """Build an engine from a graph, beside which its external data lie; `plugin` is None for a plain graph.

    With a plugin, the file holds no model-local functions (`write_plugin_graph`).

    Raises ParseError; NativeLibraryError if the plugin cannot be used; BuildError, also where TensorRT tells too little
    about what it built; BackendError where it makes none of the objects that it builds with, as where CUDA cannot
    start; and KeyboardInterrupt after the build was stopped in an orderly way.
    """
    trt = api.module
    log = message_log(trt)
    builder = create_object(log, "a builder", lambda: trt.Builder(log))
    if plugin is not None:
        load_plugin(create_object(log, "a registry of plugins", builder.get_plugin_registry), plugin)
    network = create_object(log, "a network", lambda: builder.create_network(api.network_flags()))
    parse_onnx(trt, network, onnx_file)
    if plugin is not None:
        _check_plugin_layers(trt, network, onnx_file)
    config = create_object(log, "a configuration", builder.create_builder_config)
    options = configure(api, config, request, device)
    profile = create_object(log, "an optimisation profile", builder.create_optimization_profile)
    shapes = make_profile(graph, request.clips)
    for name, record in shapes.items():
        profile.set_shape(name, record.smallest, record.optimal, record.largest)
    config.add_optimization_profile(profile)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    start = time.monotonic()
    with log.collect() as messages, _interruptible(monitor):
        plan = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - start
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        reason = _errors(messages)
        hint = _TURING_HINT if "FP32 GEMM is not supported" in reason else _HINT
        raise BuildError(f"{request.backend} {api.version} cannot build the engine: {reason}", hint)
    if request.timing_cache is not None:
        save_timing_cache(config, request.timing_cache)
    content = bytes(plan)
    texts = [message.text for message in messages]
    inspected = None
    if api.backend == "tensorrt":
        runtime = make_runtime(trt, plugin, version_compatible=request.version_compatible)
        inspected = _inspect(trt, runtime, content, shapes)
    layers = layers_from_log(texts) if inspected is None else layers_from_inspector(inspected)
    source: Literal["builder log", "inspector"] = "builder log" if inspected is None else "inspector"
    return Built(content, tuple(layers), source, _memory(texts), options, shapes, seconds)


_HINT = "Run again with --verbose for the builder's whole log; --workspace may be too small, or memory short."
# Attention stays float32 in int8, too.
_TURING_HINT = (
    "TensorRT for RTX has no float32 matrix products for Turing: use --precision fp16, or --compute-capability 80 or "
    "later."
)


def parse_onnx(trt: Any, network: Any, path: Path) -> None:
    """Parse an ONNX file into an empty network, whose builder logs to `message_log(trt)`, or raise ParseError."""
    log = message_log(trt)
    parser = create_object(log, "a parser", lambda: trt.OnnxParser(network, log))
    with log.collect() as messages:
        if parser.parse_from_file(str(path)):
            return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    # After what our plugin says, the parser says only that it failed.
    causes = _of_plugin(messages) or [
        f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}" for error in errors
    ]
    causes = causes or [describe_errors(messages)]
    missing = [one for one in errors if one.node_operator() in PLUGIN_OPERATORS and "Plugin not found" in one.desc()]
    hint = None
    if missing:
        asked = [message.text.removeprefix(_CHECKING) for message in messages if message.text.startswith(_CHECKING)]
        hint = (
            f"Load the plugin library before parsing (avsbg.runtime.backends.tensorrt.engine.load_plugin); it provides "
            f"plugin_version {PLUGIN_VERSION!r} in plugin_namespace {PLUGIN_NAMESPACE!r}."
        ) + "".join(f" The node asked for {one}." for one in asked[:1])
    more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
    raise ParseError(f"TensorRT cannot parse {path}: {causes[0]}{more}", hint)


def _check_plugin_layers(trt: Any, network: Any, onnx_file: Path) -> None:
    """Count what the parser took: it uses an operator's function body where it may, and does not say so."""
    model = onnx.load(str(onnx_file), load_external_data=False)
    nodes = sum(node.domain in {DOMAIN, PLUGIN_DOMAIN} for node in model.graph.node)
    layers = [network.get_layer(index).type for index in range(network.num_layers)]
    taken = layers.count(trt.LayerType.PLUGIN_V3)
    if taken != nodes:
        raise BuildError(
            f"the graph has {nodes} nodes for the plugin, but TensorRT made {taken} plugin layers of them and took the "
            "function body for the others.",
            "The file for the parser must hold no model-local functions, and its nodes the attributes plugin_namespace "
            "and plugin_version: export the bundle again.",
        )


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 1)
            progress(phase_name, steps, steps)

    return Monitor()


@contextmanager
def _interruptible(monitor: Any) -> Iterator[None]:
    """Let Ctrl-C stop the build at its next step: an exception must not cross TensorRT's C++ code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def remember(number: int, frame: Any) -> None:
        del number, frame
        monitor.interrupted = True

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _inspect(trt: Any, runtime: Any, plan: bytes, shapes: dict[str, ProfileRecord]) -> str:
    log = message_log(trt)

    def create(what: str, method: Callable[[], Any]) -> Any:
        what = f"{what} of the plan that was just built, so its precision cannot be read back"
        return create_object(log, what, method, error=BuildError)

    engine = create("an engine", lambda: runtime.deserialize_cuda_engine(plan))
    context = create("an execution context", engine.create_execution_context)
    # Without a context whose input shapes are set, the inspector shows no types of tensors with a dynamic dimension
    # (IEngineInspector::setExecutionContext).
    for name, record in shapes.items():
        context.set_input_shape(name, record.optimal)
    inspector = create("an inspector", engine.create_engine_inspector)
    inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _memory(texts: list[str]) -> MemoryRecord:
    def last(label: str) -> int | None:
        sizes = [int(match[1]) for text in texts if (match := re.search(rf"{label} Memory: (\d+)", text))]
        return sizes[-1] if sizes else None

    return MemoryRecord(activation=last("Total Activation"), scratch=last("Max Scratch"), weights=last("Total Weights"))


def _errors(messages: list[Message]) -> str:
    errors = [message.text for message in messages if message.level >= logging.ERROR]
    return next(iter(_of_plugin(messages) or errors), "it gives no reason.")


def _of_plugin(messages: list[Message]) -> list[str]:
    """The texts that our plugin logged, which say the cause."""
    return [message.text for message in messages if message.text.startswith("avsbg ")]
