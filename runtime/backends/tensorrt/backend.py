"""TensorRT and TensorRT for RTX: engines of a bundle, executed on the GPU through pycuda."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

from avsbg.runtime.backends.base import Backend, DeviceTensor, Inputs, Results, check_accuracy
from avsbg.runtime.backends.spec import OperatorImplementation, device_number
from avsbg.runtime.backends.tensorrt.context import ExecutionContext
from avsbg.runtime.backends.tensorrt.engine import choose_engine, find_engine, import_runtime, load_engine
from avsbg.runtime.backends.tensorrt.memory import BufferPool, GpuTensor
from avsbg.runtime.backends.tensorrt.shapes import check_contract, largest_shapes, read_tensors
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.device.cuda import CudaError, Device, open_device
from avsbg.runtime.errors import BackendError


class TensorRtBackend(Backend):
    """Executes an engine.

    It may be called from several threads: each call has an execution context, a stream and buffers to itself, of which
    there are as many as there were calls at a time.

    Args:
        graph: the graph that the engine was built from, or its role: `clip`, `encode`, `decode`.
        operator: `plugin` or `plain`, where the bundle has engines of both.
        precision: of the engine, where the bundle has several.
        rest: of what an int8 or fp8 engine does not quantise, fp16 or fp32, where the bundle has engines of both.
        engine: the engine's name, instead of what would be chosen.
        trust: load it even though this user did not build it on this machine.
        plugin: the plugin library; by default the one installed with avsbg.
        device: the GPU, `cuda:N` or N.
        cuda_graph: capture repeated steps as CUDA graphs: None where it is possible, True or an error, False never.
        allow_failed_accuracy: run an engine whose precision misses its accuracy threshold.

    Raises:
        BackendError: there is no such engine, more than one, or it misses its accuracy threshold.
    """

    name: ClassVar[str] = "tensorrt"
    OPERATORS = (OperatorImplementation.PLUGIN, OperatorImplementation.PLAIN)

    def __init__(
        self,
        bundle: Bundle,
        graph: str = "clip",
        *,
        operator: str | None = None,
        precision: str | None = None,
        rest: str | None = None,
        engine: str | None = None,
        trust: bool = False,
        plugin: Path | None = None,
        device: int | str = 0,
        cuda_graph: bool | None = None,
        allow_failed_accuracy: bool = False,
    ) -> None:
        implementation = self._check_operator(operator)
        device = device_number(self.name, device, "cuda")
        if engine is None:
            engine = choose_engine(
                bundle, self.name, graph, operator=implementation, precision=precision, rest=rest, gpu=device
            )
        self.engine = engine
        self.record = find_engine(bundle, engine)
        if self.record.backend != self.name:
            message = f"the engine {engine} is one of {self.record.backend}, not of {self.name}."
            raise BackendError(message, f"Use --backend {self.record.backend}.")
        super().__init__(bundle, self.record.graph)
        is_clip = GraphName.parse(self.record.graph).role == "clip"
        accuracy = self.record.accuracy or (None if is_clip else bundle.accuracy(self.record.graph))
        self.accuracy_check = check_accuracy(f"the engine {engine}", accuracy, allow_failed=allow_failed_accuracy)
        self._trust, self._plugin, self._index, self._capture = trust, plugin, device, cuda_graph
        self._device: Device | None = None
        self._trt: Any = None
        self._engine: Any = None
        self._broken: str | None = None
        self._contexts: list[ExecutionContext] = []
        self._idle: list[ExecutionContext] = []
        self._returned = threading.Condition()

    def describe(self) -> dict[str, Any]:
        """The backend as it runs: engine, versions, the GPU, realised precision, and how often captured graphs ran."""
        assert self._device is not None
        counts = [context.counts for context in self._contexts]
        return {
            "backend": self.name,
            "version": str(self._trt.__version__),
            "graph": self.graph,
            "engine": self.engine,
            "operator": self.record.operator,
            "precision": self.record.precision,
            **({"rest": self.record.rest} if self.record.rest else {}),
            "realised": dict(self.record.realised.products),
            **self.accuracy_check,
            **self._device.describe(),
            "cuda_graph": {
                "asked": {None: "where possible", True: "always", False: "never"}[self._capture],
                "captured": sum(count.captured for count in counts),
                "launched": sum(count.launched for count in counts),
                "plain_steps": sum(count.plain for count in counts),
                "why_not": next((count.why_not for count in counts if count.why_not), None),
            },
            "contexts": len(self._contexts),
        }

    def _open(self) -> None:
        # Imported first: a package that is not there is told before a GPU that is not.
        self._trt = import_runtime(self.name)
        self._device = open_device(self._index)
        try:
            with self._guard():
                self._engine = load_engine(
                    self.bundle, self.engine, trust=self._trust, plugin=self._plugin, device=self._index
                )
                self._tensors = read_tensors(self._trt, self._engine)
                check_contract(self.engine, self._tensors, self.contract)
                self._largest = largest_shapes(self._tensors, self.contract)
                self._pool = BufferPool(self._device, self._guard)
                # One now, so that what cannot fit is told before work begins.
                self._idle.append(self._create_context())
        except BaseException:
            self._release()
            raise

    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:
        for name, value in inputs.items():
            if isinstance(value, DeviceTensor) and not isinstance(value, GpuTensor):
                raise self._reject(name, f"{type(value).__name__} is another backend's")
            if isinstance(value, GpuTensor) and (self._device is None or value.device.index != self._device.index):
                raise self._reject(name, "it lies on another GPU")
        with self._guard():
            with self._returned:
                context = self._idle.pop() if self._idle else None
            context = context or self._create_context()
            try:
                return context.run(inputs, outputs, device_outputs, lambda name: self._output_shape(name, inputs))
            except BaseException as error:
                if not context.usable:
                    context.close(free=not (isinstance(error, CudaError) and error.sticky))
                raise
            finally:
                with self._returned:
                    if context.usable:
                        self._idle.append(context)
                    else:
                        self._contexts.remove(context)
                    self._returned.notify_all()

    def _close(self) -> None:
        with self._returned:
            self._returned.wait_for(lambda: len(self._idle) == len(self._contexts))
        self._release()

    def _create_context(self) -> ExecutionContext:
        assert self._device is not None
        context = ExecutionContext(
            self._device, self._trt, self._engine, self._tensors, self._largest, self._pool, capture=self._capture
        )
        with self._returned:
            self._contexts.append(context)
        return context

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Make the GPU's context current, and turn CUDA's errors into one that says what to do."""
        assert self._device is not None
        if self._broken is not None:
            raise BackendError(f"the GPU failed earlier: {self._broken}.", _RESTART)
        try:
            with self._device.active():
                yield
        except CudaError as error:
            if error.sticky:
                self._broken = str(error)
                raise BackendError(f"the GPU failed: {error}.", _RESTART) from error
            raise BackendError(
                f"{self.name} failed on the engine {self.engine}: {error}.",
                "`avsbg doctor` shows what is here; --verbose shows TensorRT's messages.",
            ) from error

    def _release(self) -> None:
        """Release what was acquired so far, in reverse. After a sticky error nothing can be freed, and nothing is."""
        device, self._device = self._device, None
        if device is None:
            return
        free = self._broken is None
        try:
            with device.active() if free else nullcontext():
                for context in self._contexts:
                    context.close(free=free)
                self._contexts, self._idle = [], []
                if hasattr(self, "_pool"):
                    self._pool.close(free=free)
                self._engine = None
            if free:
                device.close()
        except CudaError as error:
            raise BackendError(f"the GPU failed while {self.name} was being closed: {error}.") from error


_RESTART = (
    "Nothing can run on it in this process any more: start the command again. If it happens again, run it under "
    "compute-sanitizer, or use a plain engine to see whether the plugin is the cause."
)


class TensorRtRtxBackend(TensorRtBackend):
    """Executes an engine of TensorRT for RTX; otherwise as `TensorRtBackend`."""

    name: ClassVar[str] = "tensorrt-rtx"
