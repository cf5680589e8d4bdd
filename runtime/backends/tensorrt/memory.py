"""Outputs that stay on the GPU: the pool of their buffers, and the order of writes and reads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends.base import DeviceTensor
from avsbg.runtime.device.cuda import Device, Memory, Stream
from avsbg.runtime.errors import BackendError

# A stream of frames holds two sets of features. More tensors than this were forgotten, not needed.
MAX_ACQUIRED = 16


@dataclass
class PooledBuffer:
    """Memory of the GPU that an output stays in."""

    memory: Memory
    written: Any = None  # the event after which it holds the output
    read: list[Any] = field(default_factory=list)  # events after which its readers no longer need it


class GpuTensor(DeviceTensor):
    """An output that stays on the GPU.

    Another backend of this GPU takes it as an input; its stream waits there until this one has written it, and the host
    waits for neither.
    """

    def __init__(self, pool: BufferPool, buffer: PooledBuffer, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        super().__init__(dtype, shape)
        self._pool = pool
        self._buffer = buffer

    @property
    def nbytes(self) -> int:
        """The number of the buffer's bytes that are its own."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def device(self) -> Device:
        """The GPU that it is on."""
        return self._pool.device

    def buffer(self) -> PooledBuffer:
        """The buffer that it lies in; a `BackendError` once it was released, or the backend that made it was closed."""
        self._check()
        return self._buffer

    def _check(self) -> None:
        super()._check()
        if self._pool.closed:
            raise BackendError("a device tensor was used after the backend that made it was closed.")

    def _copy(self) -> NDArray[Any]:
        """Waits until it has been written."""
        return self._pool.read(self._buffer, self.nbytes).view(self.dtype).reshape(self.shape)

    def _return_buffer(self) -> None:
        self._pool.release(self._buffer)


class BufferPool:
    """The buffers of outputs that stay on the GPU. Returned ones are used again before new ones are allocated.

    `guard` wraps what talks to the GPU outside a run, and turns its errors into `BackendError`.
    """

    def __init__(self, device: Device, guard: Callable[[], Any]) -> None:
        self.device = device
        self.closed = False
        self._guard = guard
        self._lock = threading.Lock()
        self._acquired: list[PooledBuffer] = []
        self._free: list[PooledBuffer] = []
        self._reader: Stream | None = None

    def acquire(self, nbytes: int, stream: Stream) -> PooledBuffer:
        """A buffer of exactly that size for work of `stream` to write to; a `BackendError` if too many are in use.

        The GPU's context is active. The stream waits, on the GPU, until nobody reads the buffer's former content.
        """
        with self._lock:
            found = next((buffer for buffer in self._free if buffer.memory.nbytes == nbytes), None)
            if found is not None:
                self._free = [buffer for buffer in self._free if buffer is not found]
            elif sum(buffer.memory.nbytes == nbytes for buffer in self._acquired) >= MAX_ACQUIRED:
                hint = "Call release() on each once the next graph has taken it."
                raise BackendError(f"{MAX_ACQUIRED} device tensors of {nbytes} bytes have not been released.", hint)
            else:
                found = PooledBuffer(self.device.allocate(nbytes))
            self._acquired.append(found)
        for event in found.read:
            self.device.wait(stream, event)
        if found.written is not None:
            self.device.wait(stream, found.written)
        found.read, found.written = [], None
        return found

    def release(self, buffer: PooledBuffer) -> None:
        """Return a buffer that was acquired."""
        with self._lock:
            if self.closed:
                return
            self._acquired = [other for other in self._acquired if other is not buffer]
            self._free.append(buffer)

    def read(self, buffer: PooledBuffer, nbytes: int) -> NDArray[np.uint8]:
        """Copy a buffer's first bytes to the host."""
        with self._guard(), self._lock:
            if self._reader is None:
                self._reader = self.device.create_stream()
            host = self.device.allocate_host(nbytes)
            self.device.wait(self._reader, buffer.written)
            self.device.copy_out(host, buffer.memory, nbytes, self._reader)
            self.device.synchronize(self._reader)
            content = host.array.copy()
            self.device.free_host(host)
        return content

    def close(self, *, free: bool) -> None:
        """Free every buffer, also those still in use, if the GPU still answers (`free`).

        The GPU's context is active, this backend's work is done.
        """
        with self._lock:
            self.closed = True
            if free:
                reader = self._reader or self.device.create_stream()
                buffers = (*self._free, *self._acquired)
                # Another backend may still be reading what this one made.
                for buffer in buffers:
                    for event in buffer.read:
                        self.device.wait(reader, event)
                self.device.synchronize(reader)
                for buffer in buffers:
                    self.device.free(buffer.memory)
                self.device.destroy_stream(reader)
            self._free, self._acquired, self._reader = [], [], None
