"""A GPU: memory, streams and events through pycuda; captured graphs, which pycuda lacks, through cuda-bindings.

pycuda (2026.1 and before) wraps nothing of CUDA graphs. NVIDIA's own cuda-bindings does, and takes the handles of
pycuda's streams; it is imported when a graph is first captured.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.device.gpu import read_cuda_driver
from avsbg.runtime.errors import BackendError

# CU_STREAM_NON_BLOCKING: work does not wait for that of the default stream.
_NON_BLOCKING = 1


class CudaError(Exception):
    """A call of CUDA's failed.

    `sticky`: every later call of this process fails too (an illegal address, a hung kernel, a GPU that is gone), so
    that nothing of the GPU can be used or freed any more.
    """

    def __init__(self, message: str, *, sticky: bool = False) -> None:
        super().__init__(message)
        self.sticky = sticky


@dataclass(eq=False)
class Memory:
    """Memory of the GPU: its address there, and `owner`, the allocation as pycuda knows it."""

    address: int
    nbytes: int
    owner: Any = None


@dataclass(eq=False)
class HostBuffer:
    """Page-locked memory of the host, which alone is copied asynchronously; not to be touched while that goes on."""

    array: NDArray[np.uint8]


@dataclass(eq=False)
class Stream:
    """A queue of work of the GPU: `cudaStream_t` as a number, for TensorRT, and the stream as pycuda knows it."""

    handle: int
    owner: Any = None


class Device:
    """One GPU, used through its primary context, which TensorRT and the plugin share.

    Every method but `active` and `close` is called inside `with device.active():`. All raise `CudaError`. Copies and
    launches are asynchronous.

    Args:
        cuda: the module `pycuda.driver`, initialised.
        index: of the GPU, in CUDA's order.
    """

    def __init__(self, cuda: Any, index: int) -> None:
        self._cuda = cuda
        self.index = index
        device = cuda.Device(index)
        self._name = device.name()
        # The primary context, since TensorRT and the plugin use CUDA's runtime, which shares that one.
        self._context = device.retain_primary_context()
        self._graphs: Any = None
        self._capture_lock, self._captures = threading.RLock(), 0

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the GPU's context the current one of this thread inside the block."""
        self._checked(self._context.push)
        try:
            yield
        finally:
            self._checked(self._cuda.Context.pop)

    def allocate(self, nbytes: int) -> Memory:
        """Allocate memory of the GPU."""
        allocation = self._checked(self._cuda.mem_alloc, nbytes)
        return Memory(int(allocation), nbytes, allocation)

    def free(self, memory: Memory) -> None:
        """Free it; no work that uses it may be under way."""
        self._checked(memory.owner.free)

    def allocate_host(self, nbytes: int) -> HostBuffer:
        """Allocate page-locked memory of the host."""
        return HostBuffer(self._checked(self._cuda.pagelocked_empty, nbytes, np.uint8))

    def free_host(self, buffer: HostBuffer) -> None:
        """Free it; no copy from or to it may be under way."""
        self._checked(buffer.array.base.free)  # type: ignore[union-attr]  # the array's base is the allocation

    def create_stream(self) -> Stream:
        """A stream that does not wait for the default stream."""
        stream = self._checked(self._cuda.Stream, _NON_BLOCKING)
        return Stream(stream.handle, stream)

    def destroy_stream(self, stream: Stream) -> None:
        """Destroy a stream on which nothing is under way."""
        # pycuda destroys a stream with its last reference: here, where the context is current, and not whenever the
        # last traceback that holds `stream` goes.
        stream.owner = None

    def synchronize(self, stream: Stream) -> None:
        """Wait until all work of the stream is done; errors of that work appear here."""
        self._checked(stream.owner.synchronize)

    def record(self, stream: Stream) -> Any:
        """An event that happens when the work that the stream has now is done."""
        event = self._checked(self._cuda.Event, self._cuda.event_flags.DISABLE_TIMING)
        return self._checked(event.record, stream.owner)

    def wait(self, stream: Stream, event: Any) -> None:
        """Let later work of the stream wait for the event; the host does not wait."""
        self._checked(stream.owner.wait_for_event, event)

    def copy_in(self, target: Memory, source: HostBuffer, nbytes: int, stream: Stream) -> None:
        """Copy from the host."""
        self._checked(self._cuda.memcpy_htod_async, target.address, source.array[:nbytes], stream.owner)

    def copy_out(self, target: HostBuffer, source: Memory, nbytes: int, stream: Stream) -> None:
        """Copy to the host."""
        self._checked(self._cuda.memcpy_dtoh_async, target.array[:nbytes], source.address, stream.owner)

    def copy_within(self, target: Memory, source: Memory, nbytes: int, stream: Stream) -> None:
        """Copy from one memory of the GPU to another."""
        self._checked(self._cuda.memcpy_dtod_async, target.address, source.address, nbytes, stream.owner)

    def begin_capture(self, stream: Stream) -> None:
        """Record work of the stream from now on; only this thread is restricted meanwhile, others may allocate."""
        with self._capture_lock:
            self._begin_capture(stream)
            self._captures += 1

    def end_capture(self, stream: Stream) -> Any:
        """End the capture, also one that failed, which is an error then; returns the graph, ready to be launched."""
        with self._capture_lock:
            self._captures -= 1
            return self._end_capture(stream)

    def _begin_capture(self, stream: Stream) -> None:
        bindings = self._bindings()
        mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", bindings.CUstream(stream.handle), mode)

    def _end_capture(self, stream: Stream) -> Any:
        captured = self._call("cuStreamEndCapture", self._bindings().CUstream(stream.handle))
        try:
            return self._call("cuGraphInstantiate", captured, 0)
        finally:
            self._call("cuGraphDestroy", captured)

    def launch(self, graph: Any, stream: Stream) -> None:
        """Execute a captured graph."""
        self._call("cuGraphLaunch", graph, self._bindings().CUstream(stream.handle))

    def destroy_graph(self, graph: Any) -> None:
        """Destroy a graph that is not being executed."""
        self._call("cuGraphExecDestroy", graph)

    def broken(self) -> bool:
        """Whether a sticky error has happened: asks CUDA, whichever call met it.

        While any thread captures, nothing is asked and the answer is no: to wait for the whole context is prohibited
        then, fails, and spoils the capture (CUDA programming guide, "Prohibited and Unhandled Operations"). A sticky
        error is by definition the one that every later call returns, and so is met again.
        """
        with self._capture_lock:
            return self._captures == 0 and not self._is_answering()

    def _is_answering(self) -> bool:
        try:
            self._cuda.Context.synchronize()
        except self._cuda.Error:
            return False
        return True

    def describe(self) -> dict[str, Any]:
        """The GPU and the driver, as JSON values."""
        return {
            "gpu": self._name,
            "index": self.index,
            "cuda_driver": read_cuda_driver().version,
            "pycuda": importlib.import_module("pycuda").VERSION_TEXT,
        }

    def close(self) -> None:
        """Release the context; everything that was allocated has been freed, or `broken`."""
        # Active while it is detached: pycuda then releases the primary context and forgets it on this thread.
        self._checked(self._context.push)
        self._checked(self._context.detach)

    def _checked(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of pycuda's."""
        try:
            return function(*arguments)
        except self._cuda.Error as error:
            raise CudaError(str(error), sticky=self.broken()) from error

    def _bindings(self) -> Any:
        if self._graphs is None:
            try:
                self._graphs = importlib.import_module("cuda.bindings.driver")
            except ImportError as error:
                hint = "Install it with `pip install cuda-bindings`, or do without graphs (cuda_graph=False)."
                raise BackendError(
                    f"CUDA graphs need cuda-bindings, which cannot be imported: {error}.", hint
                ) from error
        return self._graphs

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call a function of cuda-bindings, and return its one result."""
        bindings = self._bindings()
        status, *results = getattr(bindings, function)(*arguments)
        if int(status) != 0:
            _, text = bindings.cuGetErrorString(status)
            cause = text.decode(errors="replace") if isinstance(text, bytes) else str(status)
            raise CudaError(f"{function} failed: {cause}", sticky=self.broken())
        return results[0] if results else None


def open_device(index: int = 0) -> Device:
    """Open a GPU; a `BackendError` if there is no such GPU, or pycuda is not installed or does not work."""
    driver = read_cuda_driver()
    if driver.problem is not None:
        raise BackendError(f"TensorRT needs a GPU: {driver.problem}.", "`avsbg doctor` shows what is here.")
    if not 0 <= index < len(driver.gpus):
        have = ", ".join(f"{number} ({gpu.name})" for number, gpu in enumerate(driver.gpus))
        raise BackendError(f"there is no GPU number {index}.", f"This machine has: {have}.")
    try:
        cuda = importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        hint = "Install it with `pip install pycuda`; that builds it with CUDA's toolkit (nvcc on the PATH)."
        raise BackendError(f"pycuda cannot be imported: {error}.", hint) from error
    try:
        cuda.init()
        return Device(cuda, index)
    except cuda.Error as error:
        raise BackendError(f"the GPU {driver.gpus[index].name} cannot be used: {error}.") from error
