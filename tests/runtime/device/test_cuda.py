"""The GPU through pycuda: which of its calls are made, against a module that has what pycuda 2026.1 has and no more.

Nothing is executed here; tests/gpu does that.
"""

from __future__ import annotations

import sys
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avsbg.runtime.device import cuda as cuda_module
from avsbg.runtime.device.cuda import CudaError, Device, open_device
from avsbg.runtime.device.gpu import CudaDriver, Gpu
from avsbg.runtime.errors import BackendError

DRIVER = CudaDriver("13.0", None, (Gpu("Orin", 87, 8 * 2**30, 8, integrated=True),))


class Error(Exception):
    """pycuda.driver.Error."""


class PyCuda:
    """`pycuda.driver` as its wrapper (src/wrapper/wrap_cudadrv.cpp) defines it."""

    Error = Error
    event_flags = SimpleNamespace(DISABLE_TIMING=2)

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fail: dict[str, str] = {}
        pycuda = self

        class Context:
            @staticmethod
            def pop() -> None:
                pycuda.called("pop")

            @staticmethod
            def synchronize() -> None:
                pycuda.called("Context.synchronize")

            def push(self) -> None:
                pycuda.called("push")

            def detach(self) -> None:
                pycuda.called("detach")

        class Device:
            def __init__(self, index: int) -> None:
                pycuda.called("Device", index)

            def name(self) -> str:
                return "Orin"

            def retain_primary_context(self) -> Context:
                pycuda.called("retain_primary_context")
                return Context()

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                pycuda.called("Stream", flags)
                self.handle = 77

            def synchronize(self) -> None:
                pycuda.called("Stream.synchronize")

            def wait_for_event(self, event: object) -> None:
                assert isinstance(event, Event)
                pycuda.called("wait_for_event")

        class Event:
            def __init__(self, flags: int = 0) -> None:
                pycuda.called("Event", flags)

            def record(self, stream: Stream | None = None) -> Event:
                assert isinstance(stream, Stream)
                pycuda.called("record")
                return self

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event

    def called(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        if name in self.fail:
            raise Error(self.fail[name])

    def init(self) -> None:
        self.called("init")

    def mem_alloc(self, nbytes: int) -> Any:
        self.called("mem_alloc", nbytes)
        pycuda = self

        class DeviceAllocation:
            def __int__(self) -> int:
                return 4096

            def free(self) -> None:
                pycuda.called("DeviceAllocation.free")

        return DeviceAllocation()

    def pagelocked_empty(self, shape: Any, dtype: Any) -> Any:
        self.called("pagelocked_empty", shape)
        return np.empty(shape, dtype)

    def memcpy_htod_async(self, dest: int, src: Any, stream: Any = None) -> None:
        assert isinstance(stream, self.Stream)
        self.called("memcpy_htod_async", dest, memoryview(src).nbytes)

    def memcpy_dtoh_async(self, dest: Any, src: int, stream: Any = None) -> None:
        assert isinstance(stream, self.Stream)
        self.called("memcpy_dtoh_async", memoryview(dest).nbytes, src)

    def memcpy_dtod_async(self, dest: int, src: int, size: int, stream: Any = None) -> None:
        assert isinstance(stream, self.Stream)
        self.called("memcpy_dtod_async", dest, src, size)


@pytest.fixture
def pycuda() -> PyCuda:
    return PyCuda()


def test_calls(pycuda: PyCuda) -> None:
    device = Device(pycuda, 0)
    with device.active():
        stream = device.create_stream()
        memory, other = device.allocate(64), device.allocate(64)
        host = device.allocate_host(64)
        device.copy_in(memory, host, 48, stream)
        device.copy_within(other, memory, 48, stream)
        device.wait(stream, device.record(stream))
        device.copy_out(host, other, 48, stream)
        device.synchronize(stream)
        device.free(memory)
        assert stream.handle == 77 and memory.address == 4096
        owner = weakref.ref(stream.owner)
        device.destroy_stream(stream)
        # pycuda destroys a stream with its last reference: now, while the context is current.
        assert owner() is None
    device.close()
    assert pycuda.calls == [
        ("Device", 0),
        ("retain_primary_context",),
        ("push",),
        ("Stream", 1),  # CU_STREAM_NON_BLOCKING
        ("mem_alloc", 64),
        ("mem_alloc", 64),
        ("pagelocked_empty", 64),
        ("memcpy_htod_async", 4096, 48),
        ("memcpy_dtod_async", 4096, 4096, 48),
        ("Event", 2),
        ("record",),
        ("wait_for_event",),
        ("memcpy_dtoh_async", 48, 4096),
        ("Stream.synchronize",),
        ("DeviceAllocation.free",),
        ("pop",),
        ("push",),
        ("detach",),
    ]


@pytest.mark.parametrize("sticky", [False, True])
def test_an_error_is_sticky_if_the_next_call_fails_too(pycuda: PyCuda, sticky: bool) -> None:
    device = Device(pycuda, 0)
    with device.active():
        pycuda.fail["mem_alloc"] = "cuMemAlloc failed: out of memory"
        if sticky:
            pycuda.fail["Context.synchronize"] = "cuCtxSynchronize failed: an illegal memory access was encountered"
        with pytest.raises(CudaError, match="out of memory") as caught:
            device.allocate(1)
    assert caught.value.sticky is sticky


class Bindings:
    """The part of `cuda.bindings.driver` that captures graphs: every function returns a status first."""

    class CUstreamCaptureMode:
        CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fail: str | None = None

    def CUstream(self, handle: int) -> int:  # noqa: N802  (its name there)
        return handle

    def cuGetErrorString(self, status: int) -> tuple[int, bytes]:  # noqa: N802
        assert status == 901
        return 0, b"operation failed due to a previous error during capture"

    def __getattr__(self, name: str) -> Any:
        results = {"cuStreamEndCapture": ("graph",), "cuGraphInstantiate": ("executable",)}
        known = {"cuStreamBeginCapture", "cuGraphDestroy", "cuGraphLaunch", "cuGraphExecDestroy", *results}
        if name not in known:
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            return (901,) if self.fail == name else (0, *results.get(name, ()))

        return call


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch) -> Bindings:
    module = Bindings()
    real = cuda_module.importlib.import_module
    monkeypatch.setattr(
        cuda_module.importlib, "import_module", lambda name: module if name == "cuda.bindings.driver" else real(name)
    )
    return module


def test_graphs(pycuda: PyCuda, bindings: Bindings) -> None:
    device = Device(pycuda, 0)
    with device.active():
        stream = device.create_stream()
        device.begin_capture(stream)
        graph = device.end_capture(stream)
        device.launch(graph, stream)
        device.destroy_graph(graph)
    assert bindings.calls == [
        ("cuStreamBeginCapture", 77, 1),
        ("cuStreamEndCapture", 77),
        ("cuGraphInstantiate", "graph", 0),
        ("cuGraphDestroy", "graph"),
        ("cuGraphLaunch", "executable", 77),
        ("cuGraphExecDestroy", "executable"),
    ]


def test_a_capture_that_fails_is_not_taken_for_a_broken_gpu(pycuda: PyCuda, bindings: Bindings) -> None:
    device = Device(pycuda, 0)
    with device.active():
        stream = device.create_stream()
        device.begin_capture(stream)
        # While capturing, waiting is not permitted and fails.
        pycuda.fail["Context.synchronize"] = "cuCtxSynchronize failed: operation not permitted when stream is capturing"
        pycuda.fail["mem_alloc"] = "cuMemAlloc failed: operation not permitted when stream is capturing"
        with pytest.raises(CudaError) as caught:
            device.allocate(1)
        assert not caught.value.sticky
        del pycuda.fail["Context.synchronize"]
        bindings.fail = "cuStreamEndCapture"
        with pytest.raises(CudaError, match="cuStreamEndCapture failed: operation failed due to") as caught:
            device.end_capture(stream)
        assert not caught.value.sticky


def test_while_another_thread_captures_an_error_is_not_taken_for_a_broken_gpu(
    pycuda: PyCuda, bindings: Bindings
) -> None:
    """To wait for the context is prohibited while any of its streams captures: it fails and spoils the capture."""
    device, failures = Device(pycuda, 0), []

    def fail_to_allocate() -> None:
        with device.active():
            try:
                device.allocate(1)
            except CudaError as error:
                failures.append(error.sticky)

    def fail_in_a_thread() -> None:
        thread = threading.Thread(target=fail_to_allocate)
        thread.start()
        thread.join()

    pycuda.fail = {"mem_alloc": "out of memory", "Context.synchronize": "illegal memory access"}
    with device.active():
        stream = device.create_stream()
        device.begin_capture(stream)
        fail_in_a_thread()
        assert ("Context.synchronize",) not in pycuda.calls
        device.end_capture(stream)
        fail_in_a_thread()
    assert failures == [False, True]


def test_graphs_without_cuda_bindings(pycuda: PyCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    device = Device(pycuda, 0)
    with device.active(), pytest.raises(BackendError, match=r"pip install cuda-bindings.*cuda_graph=False"):
        device.begin_capture(device.create_stream())


def test_no_gpu_no_pycuda_no_such_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_module, "read_cuda_driver", lambda: CudaDriver(None, "the NVIDIA driver is not installed"))
    with pytest.raises(BackendError, match=r"needs a GPU: the NVIDIA driver is not installed.*avsbg doctor"):
        open_device()
    monkeypatch.setattr(cuda_module, "read_cuda_driver", lambda: DRIVER)
    with pytest.raises(BackendError, match=r"no GPU number 1.*0 \(Orin\)"):
        open_device(1)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendError, match=r"pycuda cannot be imported.*pip install pycuda"):
        open_device()


def test_a_gpu_that_cannot_be_used(pycuda: PyCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_module, "read_cuda_driver", lambda: DRIVER)
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=pycuda))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pycuda.driver", pycuda)  # type: ignore[arg-type]
    pycuda.fail["retain_primary_context"] = "cuDevicePrimaryCtxRetain failed: device unavailable"
    with pytest.raises(BackendError, match=r"the GPU Orin cannot be used: .*device unavailable"):
        open_device()
