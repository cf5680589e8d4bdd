"""A GPU that is not there: executes work at once, and holds every call against the rules that a real one has.

What a real GPU does later, this one does immediately, so results are right or wrong on their own account. The order is
checked apart from that: each stream, each event and the host have a clock that says which work they know to be done
(vector clocks), and whoever touches memory that unfinished work may still write or read is told off with `Misuse`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avsbg.runtime.device.cuda import CudaError, Device, HostBuffer, Memory, Stream

Clock = dict[int, int]


class Misuse(AssertionError):  # noqa: N818
    """The code under test broke a rule of CUDA's; on a GPU this would be a crash, a leak or a wrong number."""


def _merge(clock: Clock, other: Clock) -> None:
    for stream, time in other.items():
        clock[stream] = max(clock.get(stream, 0), time)


@dataclass
class _Accesses:
    """Who touched a piece of memory last: a stream and its time, per kind of access."""

    write: tuple[int, int] | None = None
    reads: dict[int, int] = field(default_factory=dict)

    def check(self, what: str, knows: Clock, *, writes: bool) -> None:
        before = [("written", self.write)] if self.write else []
        if writes:
            before += [("read", access) for access in self.reads.items()]
        for verb, (stream, time) in before:
            if knows.get(stream, 0) < time:
                raise Misuse(f"{what} is used while work of stream {stream} that has it {verb} may be under way")


class FakeMemory(Memory):
    def __init__(self, address: int, nbytes: int) -> None:
        self.address, self.nbytes = address, nbytes
        self.content = np.full(nbytes, 0xA5, np.uint8)  # not zeros: what was never written must not look right
        self.accesses = _Accesses()
        self.freed = False


class FakeHostBuffer(HostBuffer):
    def __init__(self, device: FakeDevice, nbytes: int) -> None:
        self.device, self.content = device, np.full(nbytes, 0xA5, np.uint8)
        self.accesses = _Accesses()
        self.freed = False

    @property
    def array(self) -> np.ndarray:
        if self.freed:
            raise Misuse("the host touches page-locked memory after it was freed")
        self.accesses.check("page-locked memory", self.device.host_clock, writes=True)
        return self.content


class FakeStream(Stream):
    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.clock: Clock = {}
        self.destroyed = False
        self.capturing: list[Callable[[], None]] | None = None
        self.capture_failed = False


@dataclass
class FakeGraph:
    work: list[Callable[[], None]]
    destroyed: bool = False
    # A graph is void once the execution context that it was captured from has been changed.
    valid: list[Callable[[], bool]] = field(default_factory=list)


class FakeDevice(Device):
    """See the module.

    Attributes:
        calls: the names of the calls so far.
        fail: name of a call -> the error that it raises, once; a sticky one then fails every later call.
        memory_limit: allocations beyond it fail.
    """

    def __init__(self, index: int = 0, memory_limit: int = 2**31) -> None:
        self.index, self.memory_limit = index, memory_limit
        self.calls: list[str] = []
        self.fail: dict[str, CudaError] = {}
        self.host_clock: Clock = {}
        self.memories: dict[int, FakeMemory] = {}
        self.hosts: list[FakeHostBuffer] = []
        self.streams: dict[int, FakeStream] = {}
        self.graphs: list[FakeGraph] = []
        self.closed = False
        self._sticky: CudaError | None = None
        self._next = 0x1000
        self._thread = threading.local()
        self._lock = threading.RLock()

    # What the code under test calls -------------------------------------------------------------------------------

    @contextmanager
    def active(self) -> Iterator[None]:
        if self.closed:
            raise Misuse("the context is made current after it was released")
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def allocate(self, nbytes: int) -> FakeMemory:
        self._call("allocate", while_capturing=False)
        if nbytes + sum(memory.nbytes for memory in self.memories.values()) > self.memory_limit:
            raise CudaError("cuMemAlloc failed: out of memory")
        with self._lock:
            self._next += (nbytes + 511) // 256 * 256
            memory = self.memories[self._next] = FakeMemory(self._next, nbytes)
        return memory

    def free(self, memory: Memory) -> None:
        self._call("free", while_capturing=False)
        assert isinstance(memory, FakeMemory)
        if memory.freed:
            raise Misuse("memory is freed twice")
        memory.accesses.check("memory that is being freed", self.host_clock, writes=True)
        memory.freed = True
        del self.memories[memory.address]

    def allocate_host(self, nbytes: int) -> FakeHostBuffer:
        self._call("allocate_host", while_capturing=False)
        buffer = FakeHostBuffer(self, nbytes)
        self.hosts.append(buffer)
        return buffer

    def free_host(self, buffer: HostBuffer) -> None:
        self._call("free_host", while_capturing=False)
        assert isinstance(buffer, FakeHostBuffer)
        if buffer.freed:
            raise Misuse("page-locked memory is freed twice")
        buffer.accesses.check("page-locked memory that is being freed", self.host_clock, writes=True)
        buffer.freed = True
        self.hosts.remove(buffer)

    def create_stream(self) -> FakeStream:
        self._call("create_stream")
        with self._lock:
            self._next += 1
            stream = self.streams[self._next] = FakeStream(self._next)
        return stream

    def destroy_stream(self, stream: Stream) -> None:
        self._call("destroy_stream")
        assert isinstance(stream, FakeStream)
        if stream.destroyed:
            raise Misuse("a stream is destroyed twice")
        if any(self.host_clock.get(key, 0) < time for key, time in stream.clock.items() if key == stream.handle):
            raise Misuse("a stream is destroyed while work is under way")
        stream.destroyed = True
        del self.streams[stream.handle]

    def synchronize(self, stream: Stream) -> None:
        self._call("synchronize", while_capturing=False)
        _merge(self.host_clock, self._live(stream).clock)

    def record(self, stream: Stream) -> Clock:
        self._call("record")
        return dict(self._live(stream).clock)

    def wait(self, stream: Stream, event: Any) -> None:
        self._call("wait")
        if not isinstance(event, dict):
            raise Misuse(f"a stream waits for {event!r}, which is no event")
        _merge(self._live(stream).clock, event)

    def copy_in(self, target: Memory, source: HostBuffer, nbytes: int, stream: Stream) -> None:
        self._call("copy_in")
        assert isinstance(target, FakeMemory) and isinstance(source, FakeHostBuffer)

        def work() -> None:
            target.content[:nbytes] = source.content[:nbytes]

        self._submit(self._live(stream), work, reads=[source], writes=[target])

    def copy_out(self, target: HostBuffer, source: Memory, nbytes: int, stream: Stream) -> None:
        self._call("copy_out")
        assert isinstance(target, FakeHostBuffer) and isinstance(source, FakeMemory)

        def work() -> None:
            target.content[:nbytes] = source.content[:nbytes]

        self._submit(self._live(stream), work, reads=[source], writes=[target])

    def copy_within(self, target: Memory, source: Memory, nbytes: int, stream: Stream) -> None:
        self._call("copy_within")
        assert isinstance(target, FakeMemory) and isinstance(source, FakeMemory)
        if nbytes > min(target.nbytes, source.nbytes):
            raise Misuse("a copy goes past the end of memory")

        def work() -> None:
            target.content[:nbytes] = source.content[:nbytes]

        self._submit(self._live(stream), work, reads=[source], writes=[target])

    def begin_capture(self, stream: Stream) -> None:
        self._call("begin_capture")
        live = self._live(stream)
        if live.capturing is not None:
            raise Misuse("a stream that captures begins to capture")
        live.capturing = []
        live.capture_failed = False
        self._thread.capturing = live

    def end_capture(self, stream: Stream) -> FakeGraph:
        live = self._live(stream)
        if live.capturing is None:
            raise Misuse("a stream that does not capture ends its capture")
        work, live.capturing = live.capturing, None
        self._thread.capturing = None
        validity, self._thread.validity = list(getattr(self._thread, "validity", [])), []
        self._call("end_capture")
        if live.capture_failed:
            raise CudaError("cuStreamEndCapture failed: operation failed due to a previous error during capture")
        graph = FakeGraph(work, valid=validity)
        self.graphs.append(graph)
        return graph

    def launch(self, graph: Any, stream: Stream) -> None:
        self._call("launch")
        if graph.destroyed:
            raise Misuse("a graph is launched after it was destroyed")
        if not all(check() for check in graph.valid):
            raise Misuse("a graph is launched after its execution context was changed")
        self._live(stream)
        for work in graph.work:
            work()

    def destroy_graph(self, graph: Any) -> None:
        self._call("destroy_graph")
        if graph.destroyed:
            raise Misuse("a graph is destroyed twice")
        graph.destroyed = True
        self.graphs.remove(graph)

    def broken(self) -> bool:
        return self._sticky is not None

    def describe(self) -> dict[str, Any]:
        return {"gpu": "Fake", "index": self.index, "cuda_driver": "13.0"}

    def close(self) -> None:
        if self.closed:
            raise Misuse("the context is released twice")
        if self._sticky is None and (leaks := self.leaks()):
            raise Misuse(f"the context is released while there are {leaks}")
        self.closed = True

    # What the fake TensorRT and the tests call ---------------------------------------------------------------------

    def leaks(self) -> list[str]:
        """What was made and is still there."""
        kinds = {"memory": self.memories, "host": self.hosts, "stream": self.streams, "graph": self.graphs}
        return [f"{len(things)} x {kind}" for kind, things in kinds.items() if things]

    def at(self, address: int) -> FakeMemory:
        """The memory at an address."""
        if address not in self.memories:
            raise Misuse(f"{address:#x} is not the address of memory that is there")
        return self.memories[address]

    def enqueue(self, handle: int, work: Callable[[], None], reads: list[int], writes: list[int]) -> None:
        """Work of a library on a stream, by handle and addresses."""
        self._call("enqueue")
        if handle not in self.streams:
            raise Misuse(f"there is no stream {handle}")
        self._submit(self.streams[handle], work, [self.at(a) for a in reads], [self.at(a) for a in writes])

    def capturing(self, handle: int) -> bool:
        """Whether a stream captures."""
        return self.streams[handle].capturing is not None

    def holds_while(self, check: Callable[[], bool]) -> None:
        """The graph being captured is void once `check` returns False."""
        self._thread.validity = [*getattr(self._thread, "validity", []), check]

    def _live(self, stream: Stream) -> FakeStream:
        assert isinstance(stream, FakeStream)
        if stream.destroyed:
            raise Misuse("a stream is used after it was destroyed")
        return stream

    def _call(self, name: str, *, while_capturing: bool = True) -> None:
        self.calls.append(name)
        if self.closed:
            raise Misuse(f"{name} is called after the context was released")
        if not getattr(self._thread, "depth", 0):
            raise Misuse(f"{name} is called while the context is not current in this thread")
        if self._sticky is not None:
            raise CudaError(str(self._sticky), sticky=True)
        if name in self.fail:
            error = self.fail.pop(name)
            self._sticky = error if error.sticky else None
            raise error
        stream = getattr(self._thread, "capturing", None)
        if stream is not None and not while_capturing:
            stream.capture_failed = True
            raise CudaError(f"{name} failed: operation not permitted when stream is capturing")

    def _submit(self, stream: FakeStream, work: Callable[[], None], reads: list[Any], writes: list[Any]) -> None:
        def execute() -> None:
            for what in (*reads, *writes):
                if what.freed:
                    raise Misuse("work uses memory after it was freed")
            time = stream.clock.get(stream.handle, 0) + 1
            # What the host knew to be done when it submitted the work, the work may rely on.
            _merge(stream.clock, self.host_clock)
            for what in reads:
                what.accesses.check("what work reads", stream.clock, writes=False)
            for what in writes:
                what.accesses.check("what work writes", stream.clock, writes=True)
            stream.clock[stream.handle] = time
            work()
            for what in reads:
                what.accesses.reads[stream.handle] = time
            for what in writes:
                what.accesses.write = (stream.handle, time)
                what.accesses.reads = {}

        if stream.capturing is not None:
            stream.capturing.append(execute)
        else:
            execute()
