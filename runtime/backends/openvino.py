"""OpenVINO: executes a graph of standard operators on the processor, in the precision that was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends.base import (
    Backend,
    DeviceTensor,
    Inputs,
    Results,
    check_accuracy,
    check_counts,
    converted_graph,
)
from avsbg.runtime.backends.spec import OperatorImplementation
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.errors import BackendError

# The layers that take most of the time, whose precision decides it. The names are those of the compiled graph.
_PRODUCTS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul", "Deconvolution")


class HostTensor(DeviceTensor):
    """An array of the host, where OpenVINO computes."""

    def __init__(self, array: NDArray[Any]) -> None:
        super().__init__(array.dtype, array.shape)
        self.array = array

    def _copy(self) -> NDArray[Any]:
        return self.array.copy()

    def _return_buffer(self) -> None:
        del self.array


class OpenVinoBackend(Backend):
    """Executes a graph with OpenVINO on the processor.

    OpenVINO does not execute functions of a model, so the graph is always the one of standard operators.

    Args:
        graph: the graph's name; where it holds our operator, `<graph>.plain` is executed.
        operator: `plain`, the only one.
        precision: fp32 (the default), bf16 or fp16, in which OpenVINO then executes the fp32 graph; or int8, for
            which it executes the graph that `avsbg quantize` made.
        rest: of the products that an int8 graph does not quantise: fp32 (the default) or bf16.
        threads: threads within an operator; by default OpenVINO's choice.
        clips: fix the number of clips, which lets OpenVINO lay out memory ahead.
        allow_failed_accuracy: run a graph whose precision misses its accuracy threshold.

    Raises:
        BackendError: no such operator or precision, the bundle lacks the graph, it misses its accuracy threshold, or a
            number is out of range. On opening: OpenVINO is missing, cannot load the graph, or does not execute it in
            the precision.
    """

    name: ClassVar[str] = "openvino"
    OPERATORS = (OperatorImplementation.PLAIN,)

    def __init__(
        self,
        bundle: Bundle,
        graph: str = "clip",
        *,
        operator: str | None = None,
        precision: Precision | None = None,
        rest: Precision | None = None,
        threads: int | None = None,
        clips: int | None = None,
        allow_failed_accuracy: bool = False,
    ) -> None:
        self._check_operator(operator)
        if bundle.graph(graph).operator != "plain":
            graph = str(GraphName.parse(graph).plain())
        self._precision = precision or bundle.graph(graph).precision
        if self._precision == "int8" and bundle.graph(graph).precision != "int8":
            graph = converted_graph(bundle, graph, "int8")
        if rest not in (None, "fp32", "bf16") or (rest and self._precision != "int8"):
            raise BackendError(
                f"rest-{rest} with {self._precision}: the rest of an int8 graph executes in fp32 or bf16, and no other "
                "graph has a rest.",
                "Ask for openvino:rest-bf16:int8, or for openvino:bf16.",
            )
        self._rest = None if rest == "fp32" else rest
        super().__init__(bundle, graph)
        if not PRECISIONS[self._precision].openvino_names or self.contract.precision not in ("fp32", self._precision):
            raise BackendError(
                f"the backend openvino cannot execute the graph {graph}, of {self.contract.precision}, in "
                f"{self._precision}.",
                "It executes an fp32 graph in fp32, bf16 or fp16, and the graph of `avsbg quantize --precision int8`.",
            )
        accuracy = bundle.accuracy(graph)
        if accuracy is not None or self._precision != "fp32":
            self.accuracy_check = check_accuracy(f"the graph {graph}", accuracy, allow_failed=allow_failed_accuracy)
        check_counts(threads=threads, clips=clips)
        self._threads, self._clips = threads, clips
        self._compiled: Any = None
        self._request: Any = None
        self._products: dict[str, int] = {}

    def describe(self) -> dict[str, Any]:
        """The backend as it runs; `products` counts the layers that hold the work by the precision they execute in."""
        import openvino

        return {
            "backend": self.name,
            "version": openvino.__version__,
            "graph": self.graph,
            "operator": "plain",
            "device": self._compiled.get_property("EXECUTION_DEVICES")[0],
            "processor": openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"),
            "precision": self._precision,
            "rest": self._rest,
            "products": self._products,
            **self.accuracy_check,
            "threads": self._compiled.get_property("INFERENCE_NUM_THREADS"),
            "clips": self._clips or "dynamic",
        }

    def _open(self) -> None:
        try:
            import openvino
        except ImportError as error:
            hint = "Install it with `pip install 'avsbg[openvino]'`."
            raise BackendError(f"OpenVINO cannot be imported: {error}.", hint) from error
        path = self.bundle.file(self.contract.file, finish=False)
        settings = self._settings()
        hint = settings["INFERENCE_PRECISION_HINT"]
        try:
            core = openvino.Core()
            model = core.read_model(str(path))
            if self._clips is not None:
                shapes = {
                    tensor.name: [self._clips if isinstance(size, str) else size for size in tensor.shape]
                    for tensor in self.contract.inputs
                }
                model.reshape(shapes)
            compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError for whatever it is.
            raise BackendError(f"OpenVINO {openvino.__version__} cannot load {path}: {error}") from error
        realised = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if _precision_name(realised) != _precision_name(hint):
            asked, offers = self._rest or self._precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            raise BackendError(
                f"{asked} was asked for, but OpenVINO would execute in {_precision_name(realised)} on this processor.",
                f"It offers: {', '.join(offers)}.",
            )
        self._products = _count_products(compiled)
        # A hint that is taken need not be one that is followed.
        for asked in filter(None, (self._precision, self._rest)):
            if not any(self._products.get(name) for name in PRECISIONS[asked].openvino_names):
                found = ", ".join(f"{count} in {precision}" for precision, count in self._products.items())
                message = f"{asked} was asked for, but no product of the compiled graph executes in it: {found}."
                raise BackendError(message, "Ask for another precision.")
        self._compiled, self._request = compiled, compiled.create_infer_request()

    def _settings(self) -> dict[str, Any]:
        """Properties that the graph is compiled with."""
        hint = PRECISIONS[self._rest or self._precision].openvino_hint or "f32"
        threads = {} if self._threads is None else {"INFERENCE_NUM_THREADS": self._threads}
        return {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, **threads}

    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:
        arrays: dict[str, NDArray[Any]] = {}
        for name, one in inputs.items():
            if isinstance(one, HostTensor):
                arrays[name] = one.array
            elif isinstance(one, DeviceTensor):
                raise self._reject(name, f"{type(one).__name__} is another backend's")
            else:
                arrays[name] = np.ascontiguousarray(one)
        if self._clips is not None and (wrong := {len(array) for array in arrays.values()} - {self._clips}):
            raise BackendError(f"the backend was opened for {self._clips} clips a call, not for {min(wrong)}.")
        try:
            self._request.infer(arrays, share_inputs=True)
            # The request writes to the same buffers next time.
            results = {name: self._request.get_tensor(name).data.copy() for name in outputs}
        except Exception as error:
            raise BackendError(f"OpenVINO failed on the graph {self.graph}: {error}") from error
        return {name: HostTensor(array) if name in device_outputs else array for name, array in results.items()}

    def _close(self) -> None:
        self._request = self._compiled = None


def _precision_name(openvino_name: str) -> str:
    """The precision of that name in OpenVINO; the name itself where it is none of ours."""
    return next((name for name, spec in PRECISIONS.items() if openvino_name in spec.openvino_names), openvino_name)


def _count_products(compiled: Any) -> dict[str, int]:
    """The numbers of the compiled graph's convolutions and matrix products, by the precision that they execute in."""
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if "layerType" in info and info["layerType"].astype(str) in _PRODUCTS:
            counts[info["runtimePrecision"].astype(str)] += 1
    return dict(counts.most_common())
