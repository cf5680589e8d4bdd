"""One execution context with all it needs: a stream, fixed buffers, and the captured graph of its latest step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends.base import Inputs, Results
from avsbg.runtime.backends.tensorrt.logger import describe_errors, message_log
from avsbg.runtime.backends.tensorrt.memory import BufferPool, GpuTensor
from avsbg.runtime.backends.tensorrt.objects import create_object
from avsbg.runtime.backends.tensorrt.shapes import EngineTensor, Shape, choose_profile
from avsbg.runtime.device.cuda import CudaError, Device, HostBuffer, Memory
from avsbg.runtime.errors import BackendError


@dataclass(frozen=True)
class Step:
    """The step that a captured graph executes; any other needs another graph."""

    profile: int
    shapes: tuple[Shape, ...]  # of the inputs, in the contract's order
    inputs: tuple[str, ...]  # those that come from the host
    outputs: tuple[str, ...]  # those that go to the host


@dataclass
class Counts:
    """Counts of what a context did, and why steps are not captured, where they are not."""

    plain: int = 0  # steps that were enqueued call by call
    captured: int = 0  # graphs that were captured
    launched: int = 0  # steps that were launched as a graph
    why_not: str | None = None


class ExecutionContext:
    """Executes one step at a time.

    Inputs and outputs have fixed addresses, since a captured graph holds them, and the size of the largest shapes. The
    first run of a step is enqueued call by call; it is the warm-up that plugins and lazy loading need. When the same
    step comes again, it is captured, and launched as a whole from then on. A step of other shapes gives the graph up:
    TensorRT allows no launch of a graph after its execution context has been changed.

    Args:
        device: the GPU; its context is active here and in every method.
        trt: the module `tensorrt` or `tensorrt_rtx`.
        largest: the largest shapes of the engine's tensors.
        pool: where outputs that stay on the GPU go.
        capture: False: never; True: a capture that fails is an error; None: it is remembered in `counts`.
    """

    def __init__(  # noqa: PLR0917
        self,
        device: Device,
        trt: Any,
        engine: Any,
        tensors: Mapping[str, EngineTensor],
        largest: Mapping[str, Shape],
        pool: BufferPool,
        *,
        capture: bool | None,
    ) -> None:
        self.counts = Counts(why_not="not asked for" if capture is False else None)
        self._device, self._trt, self._tensors, self._pool = device, trt, tensors, pool
        self._capture = capture
        self._memory: dict[str, Memory] = {}
        self._host: dict[str, HostBuffer] = {}
        self.usable = True  # False from the moment that a change of profile or shapes fails half-way
        self._step: Step | None = None
        self._shapes: Mapping[str, Shape] = {}
        self._graph: Any = None
        self._pending = False
        self._context: Any = None
        self._stream = device.create_stream()
        try:
            hint = "Usually the GPU's memory is short: build with a smaller --batch-range, or close other programs."
            create = engine.create_execution_context
            self._context = create_object(message_log(trt), "an execution context", create, hint=hint)
            for name, shape in largest.items():
                nbytes = self._nbytes(name, shape)
                self._memory[name] = device.allocate(nbytes)
                self._host[name] = device.allocate_host(nbytes)
            self._bind()
        except BaseException:
            self.close()
            raise

    def run(
        self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str], shape_of: Callable[[str], Shape]
    ) -> Results:
        """Execute one step; if all outputs stay on the GPU, the work is under way when this returns.

        It is a `BackendError` if no profile takes the shapes, or a graph was demanded and cannot be captured; and a
        `CudaError` that names the call where TensorRT or CUDA fails.
        """
        names = [name for name, tensor in self._tensors.items() if tensor.is_input]
        shapes = {name: tuple(inputs[name].shape) for name in names}
        step = Step(
            choose_profile(self._tensors, shapes),
            tuple(shapes.values()),
            tuple(name for name in names if not isinstance(inputs[name], GpuTensor)),
            tuple(name for name in outputs if name not in device_outputs),
        )
        self._finish()
        again = step == self._step
        if not again:
            self._prepare(step, shapes)
        for name in names:
            self._take(name, inputs[name])
        self._pending = True
        self._execute(step, again)
        self._step = step
        results: Results = {
            name: self._copy_to_pool(name, shape_of(name)) for name in outputs if name in device_outputs
        }
        if step.outputs:
            self._finish()
            results |= {name: self._array(name, shape_of(name)).copy() for name in step.outputs}
        return {name: results[name] for name in outputs}

    def close(self, *, free: bool = True) -> None:
        """Release everything; where the GPU no longer answers (`free=False`), there is nothing that could be freed."""
        if free:
            self._device.synchronize(self._stream)
            self._drop_graph()
        # The context before the memory that it was told of.
        self._context = None
        if free:
            for memory in self._memory.values():
                self._device.free(memory)
            for buffer in self._host.values():
                self._device.free_host(buffer)
            self._device.destroy_stream(self._stream)
        self._memory, self._host, self._graph = {}, {}, None

    def _finish(self) -> None:
        """Wait for the step that is under way: the host's buffers are its own until then."""
        if self._pending:
            self._device.synchronize(self._stream)
            self._pending = False

    def _prepare(self, step: Step, shapes: Mapping[str, Shape]) -> None:
        self._drop_graph()
        self._shapes = shapes
        if self._step is None or step.profile != self._step.profile or step.shapes != self._step.shapes:
            self._step, self.usable = None, False  # until all is set
            if self._context.active_optimization_profile != step.profile:
                if not self._call("set_optimization_profile_async", step.profile, self._stream.handle):
                    raise CudaError(f"TensorRT refuses the optimisation profile {step.profile}")
                self._device.synchronize(self._stream)
                self._bind()
            for name, shape in shapes.items():
                if not self._call("set_input_shape", name, shape):
                    raise CudaError(f"TensorRT refuses {list(shape)} as the shape of {name}")
            if missing := self._call("infer_shapes"):
                raise CudaError(f"TensorRT does not know the shape of {', '.join(missing)}")
            self.usable = True

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of TensorRT's context. Some raise where others return False: that is a `CudaError` too."""
        try:
            return getattr(self._context, method)(*arguments)
        except RuntimeError as error:
            raise CudaError(f"TensorRT's {method} failed: {error}", sticky=self._device.broken()) from error

    def _bind(self) -> None:
        for name, memory in self._memory.items():
            if not self._call("set_tensor_address", name, memory.address):
                raise CudaError(f"TensorRT refuses the memory for {name}")

    def _take(self, name: str, value: NDArray[Any] | Any) -> None:
        if not isinstance(value, GpuTensor):
            np.copyto(self._array(name, value.shape), value)
            return
        buffer = value.buffer()
        self._device.wait(self._stream, buffer.written)
        self._device.copy_within(self._memory[name], buffer.memory, value.nbytes, self._stream)
        buffer.read.append(self._device.record(self._stream))

    def _execute(self, step: Step, again: bool) -> None:
        if self._graph is None and again and self._capture is not False and self.counts.why_not is None:
            self._try_capture(step)
        if self._graph is None:
            self._enqueue(step)
            self.counts.plain += 1
        else:
            self._device.launch(self._graph, self._stream)
            self.counts.launched += 1

    def _try_capture(self, step: Step) -> None:
        # TensorRT for RTX says no while it still compiles kernels; it is asked again at the next step.
        if hasattr(self._context, "is_stream_capturable") and not self._call(
            "is_stream_capturable", self._stream.handle
        ):
            return
        try:
            self._device.begin_capture(self._stream)
            try:
                self._enqueue(step)
            except BaseException:
                with contextlib.suppress(CudaError):  # what failed first is the cause
                    self._device.destroy_graph(self._device.end_capture(self._stream))
                raise
            self._graph = self._device.end_capture(self._stream)
            self.counts.captured += 1
        except (CudaError, BackendError) as error:
            if self._capture or (isinstance(error, CudaError) and error.sticky):
                raise
            self.counts.why_not = str(error)
        if self._graph is None and self._capture:
            raise BackendError("this step cannot be captured as a CUDA graph.", "Run without cuda_graph=True.")

    def _enqueue(self, step: Step) -> None:
        for name in step.inputs:
            nbytes = self._nbytes(name, self._shapes[name])
            self._device.copy_in(self._memory[name], self._host[name], nbytes, self._stream)
        with message_log(self._trt).collect() as messages:
            enqueued = self._call("execute_async_v3", self._stream.handle)
        if not enqueued:
            raise CudaError(
                f"TensorRT cannot enqueue the step: {describe_errors(messages)}", sticky=self._device.broken()
            )
        for name in step.outputs:
            shape = tuple(self._call("get_tensor_shape", name))
            self._device.copy_out(self._host[name], self._memory[name], self._nbytes(name, shape), self._stream)

    def _copy_to_pool(self, name: str, shape: Shape) -> GpuTensor:
        nbytes = self._nbytes(name, shape)
        buffer = self._pool.acquire(nbytes, self._stream)
        self._device.copy_within(buffer.memory, self._memory[name], nbytes, self._stream)
        buffer.written = self._device.record(self._stream)
        return GpuTensor(self._pool, buffer, np.dtype(self._tensors[name].dtype), shape)

    def _nbytes(self, name: str, shape: Shape) -> int:
        return math.prod(shape) * np.dtype(self._tensors[name].dtype).itemsize

    def _array(self, name: str, shape: Shape) -> NDArray[Any]:
        content = self._host[name].array[: self._nbytes(name, shape)]
        return content.view(self._tensors[name].dtype).reshape(shape)

    def _drop_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._device.destroy_graph(graph)
