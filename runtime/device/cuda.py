"""The interface to a GPU: memory, streams, events and captured graphs.

The interface is ours so that the logic above it runs on any machine, against an implementation that checks every call.
`avsbg.runtime.device.cuda_pycuda` is the implementation for real GPUs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class CudaError(Exception):
    """A call of CUDA's failed.

    Attributes:
        sticky: whether every later call of this process fails too (an illegal address, a hung kernel, a GPU that is
            gone): nothing of the GPU can be used or freed any more.
    """

    def __init__(self, message: str, *, sticky: bool = False) -> None:
        super().__init__(message)
        self.sticky = sticky


@dataclass(eq=False)
class Memory:
    """Memory of the GPU.

    Attributes:
        address: for the GPU.
        nbytes: its size.
        owner: the allocation, as the library below knows it.
    """

    address: int
    nbytes: int
    owner: Any = None


@dataclass(eq=False)
class HostBuffer:
    """Page-locked memory of the host, which alone is copied asynchronously.

    Attributes:
        array: its bytes. Only to be touched while no copy from or to it is under way.
    """

    array: NDArray[np.uint8]


@dataclass(eq=False)
class Stream:
    """A queue of work of the GPU.

    Attributes:
        handle: `cudaStream_t` as a number, for TensorRT.
        owner: the stream, as the library below knows it.
    """

    handle: int
    owner: Any = None


class Device(ABC):
    """One GPU, used through its primary context, which TensorRT and the plugin share.

    Every method but `active` and `close` is called inside `with device.active():`. All raise `CudaError`.

    Attributes:
        index: its number, in CUDA's order.
    """

    index: int

    @abstractmethod
    def active(self) -> AbstractContextManager[None]:
        """Make the GPU's context the current one of this thread inside the block."""

    @abstractmethod
    def allocate(self, nbytes: int) -> Memory:
        """Allocate memory of the GPU."""

    @abstractmethod
    def free(self, memory: Memory) -> None:
        """Free it; no work that uses it may be under way."""

    @abstractmethod
    def allocate_host(self, nbytes: int) -> HostBuffer:
        """Allocate page-locked memory of the host."""

    @abstractmethod
    def free_host(self, buffer: HostBuffer) -> None:
        """Free it; no copy from or to it may be under way."""

    @abstractmethod
    def create_stream(self) -> Stream:
        """A stream that does not wait for the default stream."""

    @abstractmethod
    def destroy_stream(self, stream: Stream) -> None:
        """Destroy a stream on which nothing is under way."""

    @abstractmethod
    def synchronize(self, stream: Stream) -> None:
        """Wait until all work of the stream is done; errors of that work appear here."""

    @abstractmethod
    def record(self, stream: Stream) -> Any:
        """An event that happens when the work that the stream has now is done."""

    @abstractmethod
    def wait(self, stream: Stream, event: Any) -> None:
        """Let later work of the stream wait for the event; the host does not wait."""

    @abstractmethod
    def copy_in(self, target: Memory, source: HostBuffer, nbytes: int, stream: Stream) -> None:
        """Copy from the host, asynchronously."""

    @abstractmethod
    def copy_out(self, target: HostBuffer, source: Memory, nbytes: int, stream: Stream) -> None:
        """Copy to the host, asynchronously."""

    @abstractmethod
    def copy_within(self, target: Memory, source: Memory, nbytes: int, stream: Stream) -> None:
        """Copy from one memory of the GPU to another, asynchronously."""

    @abstractmethod
    def begin_capture(self, stream: Stream) -> None:
        """From now on, work of the stream is recorded instead of executed.

        Only what this thread does is restricted meanwhile: other threads may allocate.
        """

    @abstractmethod
    def end_capture(self, stream: Stream) -> Any:
        """End the capture.

        Returns:
            The graph that was captured, ready to be launched.

        Raises:
            CudaError: something was called that cannot be captured; the stream is no longer capturing.
        """

    @abstractmethod
    def launch(self, graph: Any, stream: Stream) -> None:
        """Execute a captured graph, asynchronously."""

    @abstractmethod
    def destroy_graph(self, graph: Any) -> None:
        """Destroy a graph that is not being executed."""

    @abstractmethod
    def broken(self) -> bool:
        """Whether a sticky error has happened: asks CUDA, whichever call met it."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The GPU and the driver, as JSON values."""

    @abstractmethod
    def close(self) -> None:
        """Release the context; everything that was allocated has been freed, or `broken`."""
