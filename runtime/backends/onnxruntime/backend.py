"""ONNX Runtime: executes a graph with the operator as its ONNX function body, as our native kernel, or written out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from avsbg.native_library import native_library
from avsbg.runtime.backends.base import (
    Backend,
    DeviceTensor,
    Inputs,
    Results,
    check_accuracy,
    check_counts,
    converted_graph,
)
from avsbg.runtime.backends.onnxruntime import providers
from avsbg.runtime.backends.onnxruntime.operator import (
    OPERATOR,
    PLUGIN_OPERATORS,
    PLUGIN_PATHS,
    find_plugin,
    register,
    register_cuda,
)
from avsbg.runtime.backends.spec import OperatorImplementation, device_number
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.errors import BackendError

# Memory in which a provider keeps arrays; any other keeps them in the host's memory.
_DEVICES: dict[str, Literal["cuda"]] = {providers.CUDA: "cuda", providers.TENSORRT: "cuda"}
# Buffers that were returned and wait for the next run, by device, dtype and shape.
_Pool = defaultdict[tuple[str, str, tuple[int, ...]], list[Any]]


class OrtTensor(DeviceTensor):
    """An `OrtValue`, on the device of the provider that wrote it."""

    def __init__(self, value: Any, dtype: np.dtype[Any], device: str, pool: _Pool) -> None:
        super().__init__(dtype, tuple(value.shape()))
        self.value = value
        self.device = device
        self._pool = pool

    def _copy(self) -> NDArray[Any]:
        # On the CPU, OrtValue.numpy() is a view of a buffer that a later run may write to.
        return np.array(self.value.numpy())

    def _return_buffer(self) -> None:
        self._pool[self.device, self.dtype.name, self.shape].append(self.value)
        self.value = None


class OnnxRuntimeBackend(Backend):
    """Executes a graph with ONNX Runtime.

    Args:
        graph: the graph's name; `operator="plain"` executes the one named `<graph>.plain`.
        operator: one of `OPERATORS`; by default what the graph allows without a library.
        precision: executes the graph that `avsbg quantize` made in it, `<graph>.<precision>`; by default the graph as
            named.
        provider: the execution provider; a session that gets another one, or that leaves nodes to another, is an
            error. By default the backend's own.
        provider_options: further options of the provider, by ONNX Runtime's names.
        device: `cuda:N` or N, the GPU, for providers that run on one; `cpu` for the others.
        threads: threads within an operator; by default ONNX Runtime's choice (the physical cores).
        clips: fix the number of clips, which lets ONNX Runtime plan memory and lay out weights ahead.
        allow_failed_accuracy: run a graph whose precision misses its accuracy threshold.

    Raises:
        BackendError: `operator` is unknown or contradicts the graph or the provider, the graph misses its accuracy
            threshold, there is none in that precision, or a number is out of range.
        NativeLibraryError: `operator` is `native` and the library was not built; says why.
    """

    name: ClassVar[str] = "onnxruntime"
    OPERATORS: ClassVar[tuple[OperatorImplementation, ...]] = (
        OperatorImplementation.FUNCTION,
        OperatorImplementation.NATIVE,
        OperatorImplementation.PLAIN,
    )
    PROVIDER: ClassVar[str] = providers.CPU

    def __init__(
        self,
        bundle: Bundle,
        graph: str = "clip",
        *,
        operator: str | None = None,
        precision: Precision | None = None,
        provider: str | None = None,
        provider_options: Mapping[str, str] | None = None,
        device: int | str = 0,
        threads: int | None = None,
        clips: int | None = None,
        allow_failed_accuracy: bool = False,
    ) -> None:
        implementation = self._check_operator(operator)
        if implementation is OperatorImplementation.PLAIN and bundle.graph(graph).operator != "plain":
            graph = str(GraphName.parse(graph).plain())
        if precision is not None and bundle.graph(graph).precision != precision:
            if precision == "tf32":
                hint = "Leave the precision out, or ask for fp32."
                raise BackendError("ONNX Runtime has no tf32 on the processor.", hint)
            graph = converted_graph(bundle, graph, precision)
        super().__init__(bundle, graph)
        accuracy = bundle.accuracy(graph)
        if accuracy is not None:
            self.accuracy_check = check_accuracy(f"the graph {graph}", accuracy, allow_failed=allow_failed_accuracy)
        if implementation is None:
            is_plain = self.contract.operator == "plain"
            implementation = OperatorImplementation.PLAIN if is_plain else OperatorImplementation.FUNCTION
        if implementation.graph_form != self.contract.operator:
            why = f"so the implementation {implementation!s} has nothing to execute"
            raise BackendError(f"the graph {graph} holds no custom operator, {why}.")
        provider = provider or self.PROVIDER
        if implementation is OperatorImplementation.NATIVE:
            if provider not in (providers.CPU, providers.CUDA):
                message = f"the native operator has kernels for the CPU and {providers.CUDA}, not for {provider}."
                others = ", ".join(f"{self.name}:{one}" for one in self.OPERATORS if one is not implementation)
                raise BackendError(message, f"Use {others}.")
            for library in ("onnxruntime", *(["cuda"] if provider == providers.CUDA else [])):
                native_library(library)
        check_counts(threads=threads, clips=clips)
        self._operator, self._provider, self._threads, self._clips = implementation, provider, threads, clips
        self._device: Literal["cpu", "cuda"] = _DEVICES.get(provider, "cpu")
        self._provider_options, self._index = provider_options, device_number(self.name, device, self._device)
        self._kernel: str | None = None
        self._session: Any = None
        self._nodes: dict[str, int] = {}
        self._place = self._device if self._device == "cpu" else f"{self._device}:{self._index}"
        self._pool: _Pool = defaultdict(list)

    def describe(self) -> dict[str, Any]:
        """The backend as it runs: providers as the session has them, `kernel` what the native operator runs on."""
        import onnxruntime

        on_gpu: dict[str, Any] = {}
        if self._device != "cpu":
            settings = dict(self._session.get_provider_options().get(self._provider, {}))
            on_gpu = {"nodes": self._nodes, "provider_options": settings}
        return {
            "backend": self.name,
            "version": onnxruntime.__version__,
            "graph": self.graph,
            "operator": self._operator.value,
            "kernel": self._kernel,
            "precision": self.contract.precision,
            **self.accuracy_check,
            "providers": self._session.get_providers(),
            **on_gpu,
            "threads": self._session.get_session_options().intra_op_num_threads or "default",
            "clips": self._clips or "dynamic",
        }

    def _open(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            hint = "Install it with `pip install 'avsbg[cpu]'`."
            raise BackendError(f"ONNX Runtime cannot be imported: {error}.", hint) from error
        available = onnxruntime.get_available_providers()
        if self._provider not in available:
            package = "pip install 'avsbg[gpu]' (in place of onnxruntime) brings it." if self._device != "cpu" else ""
            hint = f"It has: {', '.join(available)}. {package}".strip()
            raise BackendError(f"ONNX Runtime {onnxruntime.__version__} has no {self._provider}.", hint)
        path, options = self._find_file(), self._options(onnxruntime)
        try:
            session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=providers.provider_list(self._provider, self._index, self._provider_options),
                disabled_optimizers=providers.UNFIT_FOR_FP8 if self.contract.precision == "fp8" else (),
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class.
            raise BackendError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}") from error
        self._nodes = providers.check_providers(session, self._provider, self._kernels())
        self._session = session

    def _find_file(self) -> Path:
        """The file that the session is given."""
        return self.bundle.file(self.contract.file, finish=False)

    def _kernels(self) -> tuple[str, ...]:
        """Operators of ours of which the session must execute one as a node, not as its function body."""
        return (OPERATOR,) if self._operator is OperatorImplementation.NATIVE else ()

    def _options(self, onnxruntime: Any) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        providers.request_node_assignment(options, self._provider)
        if self.contract.rest is not None:
            # ONNX Runtime's (1.32) fusion of QuantizeLinear and DequantizeLinear around float16 computes other
            # numbers than the graph says: with AVS-BG, PVT-v2-b5, an error of 0.13 in the logits in place of 0.05.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if GraphName.parse(self.graph).is_of_stream:
            # The two graphs of a stream take turns, each with threads of its own: those of the one that has answered
            # would go on spinning on the cores that the other needs. Within a graph of one frame, whose operators are
            # short, 50 microseconds bridge the time from one to the next.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        if self._clips is not None:
            for symbol in {tensor.shape[0] for tensor in self.contract.inputs if isinstance(tensor.shape[0], str)}:
                options.add_free_dimension_override_by_name(symbol, self._clips)
        if self._operator is OperatorImplementation.NATIVE:
            if self._provider == providers.CUDA:
                chosen = providers.provider_list(self._provider, self._index, self._provider_options)[0][1]
                self._kernel = register_cuda(options, tf32=chosen["use_tf32"] == "1")
            else:
                self._kernel = register(options)
        return options

    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:
        arrays = {name: np.ascontiguousarray(one) for name, one in inputs.items() if not isinstance(one, DeviceTensor)}
        try:
            if device_outputs or len(arrays) < len(inputs):
                return self._run_bound(inputs, arrays, outputs, device_outputs)
            results = self._session.run(list(outputs), arrays)
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed on the graph {self.graph}: {error}") from error
        return dict(zip(outputs, results, strict=True))

    def _run_bound(
        self, inputs: Inputs, arrays: dict[str, NDArray[Any]], outputs: Sequence[str], device_outputs: Collection[str]
    ) -> Results:
        """Run with inputs and outputs bound to where they are, on the device or on the host."""
        binding = self._session.io_binding()
        for name, one in inputs.items():
            if not isinstance(one, DeviceTensor):
                binding.bind_cpu_input(name, arrays[name])
            elif not isinstance(one, OrtTensor):
                raise self._reject(name, f"{type(one).__name__} is another backend's")
            elif one.device != self._place:
                raise self._reject(name, f"it lies on {one.device}, and {self._provider} runs {self._place}")
            else:
                binding.bind_ortvalue_input(name, one.value)
        tensors: dict[str, OrtTensor] = {}
        for name in outputs:
            if name in device_outputs:
                tensors[name] = self._acquire(name, inputs)
                binding.bind_ortvalue_output(name, tensors[name].value)
            else:
                binding.bind_output(name, "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception:
            for one in tensors.values():
                one.release()
            raise
        values = dict(zip(outputs, binding.get_outputs(), strict=True))
        return {name: tensors[name] if name in tensors else np.array(values[name].numpy()) for name in outputs}

    def _acquire(self, name: str, inputs: Inputs) -> OrtTensor:
        """A buffer for an output that stays on the device: one that was returned, or a new one."""
        from onnxruntime import OrtValue

        dtype = np.dtype(next(tensor.dtype for tensor in self.contract.outputs if tensor.name == name))
        shape = self._output_shape(name, inputs)
        if free := self._pool[self._place, dtype.name, shape]:
            return OrtTensor(free.pop(), dtype, self._place, self._pool)
        index = 0 if self._device == "cpu" else self._index
        value = OrtValue.ortvalue_from_shape_and_type(shape, dtype.type, self._device, index)
        return OrtTensor(value, dtype, self._place, self._pool)

    def _close(self) -> None:
        self._session = None
        self._pool.clear()


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """ONNX Runtime on a GPU, with its own CUDA kernels; otherwise as `OnnxRuntimeBackend`."""

    name: ClassVar[str] = "onnxruntime-cuda"
    PROVIDER: ClassVar[str] = providers.CUDA


class OnnxRuntimeTensorRtBackend(OnnxRuntimeBackend):
    """ONNX Runtime on a GPU, which hands the graph to TensorRT; otherwise as `OnnxRuntimeBackend`.

    With `operator="plugin"` it hands over the file that `avsbg build` made for TensorRT's plugin, and loads the plugin.
    TensorRT may round float32 products to tf32 there; ONNX Runtime has no option to forbid it (NVIDIA_TF32_OVERRIDE=0
    in the environment does).
    """

    name: ClassVar[str] = "onnxruntime-tensorrt"
    OPERATORS = (*OnnxRuntimeBackend.OPERATORS, OperatorImplementation.PLUGIN)
    PROVIDER: ClassVar[str] = providers.TENSORRT

    def _find_file(self) -> Path:
        if self._operator is not OperatorImplementation.PLUGIN:
            return super()._find_file()
        manifest = self.bundle.manifest
        now = manifest.files[self.contract.file].sha256  # a graph that was made anew since has other scales
        engines = [one for one in manifest.engines.values() if (one.graph, one.graph_sha256) == (self.graph, now)]
        files = {one.parsed_file for one in engines if one.parsed_file is not None}
        if not files:
            raise BackendError(
                f"{self.bundle.path} has no file of the graph {self.graph}, as it is now, for TensorRT's plugin.",
                "An engine with the plugin brings it, also one for another machine: avsbg build BUNDLE --backend "
                f"tensorrt-rtx --compute-capability 86 --precision {self.contract.precision}.",
            )
        return self.bundle.file(min(files))

    def _options(self, onnxruntime: Any) -> Any:
        if self._operator is OperatorImplementation.PLUGIN:
            self._kernel, path = find_plugin(onnxruntime.__version__)
            self._provider_options = {PLUGIN_PATHS: str(path), **(self._provider_options or {})}
        return super()._options(onnxruntime)

    def _kernels(self) -> tuple[str, ...]:
        return PLUGIN_OPERATORS if self._operator is OperatorImplementation.PLUGIN else super()._kernels()
