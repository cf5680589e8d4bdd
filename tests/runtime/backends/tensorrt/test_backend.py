"""The TensorRT backends' logic, against a GPU that checks every call and TensorRT's documented Python interface."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from avsbg.runtime.backends import Backend, create
from avsbg.runtime.backends.tensorrt import engine as engines
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.device.cuda import CudaError
from avsbg.runtime.device.gpu import Gpu
from avsbg.runtime.errors import BackendError
from avsbg.runtime.verify.verify import compare, select_vectors
from fixtures import tiny_bundle
from fixtures.engines import add_engine, passed
from fixtures.fake_cuda import FakeDevice
from fixtures.fake_tensorrt_runtime import Behaviour, DataType, Tensor, TensorLocation
from fixtures.tensorrt_machine import CLIP, MAP, graph_counts

STICKY = CudaError("cuStreamSynchronize failed: an illegal memory access was encountered", sticky=True)


@pytest.fixture
def opened(machine: None, bundle: Bundle) -> Callable[..., Backend]:
    return lambda **options: create("tensorrt", bundle, trust=True, **options)


def _check(backend: Backend, clips: int, seed: int) -> None:
    inputs = tiny_bundle.inputs(clips, seed)
    results = backend.run(inputs)
    for name, expected in tiny_bundle.expected(inputs["frames"], inputs["waveform"]).items():
        np.testing.assert_array_equal(results[name], expected)


def test_verifies_against_the_bundles_vectors(opened: Callable[..., Backend], device: FakeDevice) -> None:
    with opened() as backend:
        comparisons = [one for vectors in select_vectors(backend.bundle) for one in compare(backend, vectors)]
    assert len(comparisons) == 4 and all(one.passed for one in comparisons)
    assert device.closed


def test_a_repeated_step_is_captured_once_and_launched(opened: Callable[..., Backend]) -> None:
    with opened() as backend:
        for seed in range(5):
            _check(backend, 1, seed)
        assert graph_counts(backend) == (1, 1, 4)


def test_other_shapes_give_the_graph_up_and_are_captured_in_turn(
    opened: Callable[..., Backend], device: FakeDevice
) -> None:
    with opened() as backend:
        for seed, clips in enumerate([1, 1, 3, 3, 3, 1, 2, 4, 4]):
            _check(backend, clips, seed)
        assert graph_counts(backend) == (5, 3, 4)
        assert len(device.graphs) == 1


def test_other_outputs_are_another_step(opened: Callable[..., Backend], device: FakeDevice) -> None:
    inputs = tiny_bundle.inputs(1, 0)
    with opened() as backend:
        for _ in range(3):
            assert list(backend.run(inputs, ["probability"])) == ["probability"]
        before = device.calls.count("copy_out")
        assert set(backend.run(inputs)) == {"logits", "probability"}
        assert device.calls.count("copy_out") == before + 2
        assert graph_counts(backend) == (2, 1, 2)


def test_graphs_can_be_switched_off(opened: Callable[..., Backend], device: FakeDevice) -> None:
    with opened(cuda_graph=False) as backend:
        for seed in range(3):
            _check(backend, 2, seed)
        assert graph_counts(backend) == (3, 0, 0)
        assert backend.describe()["cuda_graph"]["why_not"] == "not asked for"
    assert "begin_capture" not in device.calls


def test_the_profile_tuned_for_the_size_is_chosen(opened: Callable[..., Backend], behaviour: Behaviour) -> None:
    with opened() as backend:
        profiles = []
        for clips in (1, 2, 3, 1):
            _check(backend, clips, 0)
            profiles.append(behaviour.contexts[0].active_optimization_profile)
    assert profiles == [0, 1, 1, 0]


def test_shapes_that_no_profile_takes_are_refused_before_anything_is_enqueued(
    opened: Callable[..., Backend], device: FakeDevice
) -> None:
    with opened() as backend:
        before = list(device.calls)
        with pytest.raises(BackendError, match=r"does not take frames \[5, 5, 16, 24, 3\]; it takes .*--batch-range"):
            backend.run(tiny_bundle.inputs(5, 0))
        assert device.calls == before
        _check(backend, 4, 0)


@pytest.mark.parametrize("demanded", [None, True])
def test_a_step_that_cannot_be_captured(
    opened: Callable[..., Backend], behaviour: Behaviour, demanded: bool | None
) -> None:
    behaviour.capture_error = True
    with opened(cuda_graph=demanded) as backend:
        _check(backend, 1, 0)
        if demanded:
            with pytest.raises(BackendError, match="cuStreamEndCapture failed"):
                backend.run(tiny_bundle.inputs(1, 1))
        else:
            for seed in range(3):
                _check(backend, 1, seed)
            assert graph_counts(backend) == (4, 0, 0)
            assert "cuStreamEndCapture failed" in backend.describe()["cuda_graph"]["why_not"]


def test_rtx_is_asked_until_it_has_compiled(opened: Callable[..., Backend], behaviour: Behaviour) -> None:
    behaviour.capturable = [False, False]
    with opened() as backend:
        for seed in range(5):
            _check(backend, 1, seed)
        assert graph_counts(backend) == (3, 1, 2)


def test_threads_never_share_an_execution_context(
    opened: Callable[..., Backend], behaviour: Behaviour, device: FakeDevice
) -> None:
    barrier, failures = threading.Barrier(3, timeout=300), []
    compute = behaviour.compute

    def together(arrays: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            barrier.wait()
        return compute(arrays)

    behaviour.compute = together

    def work(seed: int) -> None:
        try:
            for step in range(3):
                _check(backend, 1 + seed, 10 * seed + step)
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    with opened() as backend:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert backend.describe()["contexts"] == 3
        behaviour.compute = compute
        for seed in range(4):
            _check(backend, 1, seed)
        assert backend.describe()["contexts"] == 3
    assert device.closed and device.leaks() == []


# Errors -----------------------------------------------------------------------------------------------------------


def test_a_sticky_error_is_one_clear_error_and_a_clean_end(opened: Callable[..., Backend], device: FakeDevice) -> None:
    with opened() as backend:
        _check(backend, 1, 0)
        device.fail["synchronize"] = STICKY
        with pytest.raises(BackendError, match=r"the GPU failed: .*illegal memory access.*start the command again"):
            backend.run(tiny_bundle.inputs(1, 1))
        called = len(device.calls)
        with pytest.raises(BackendError, match=r"the GPU failed earlier: .*illegal memory access"):
            backend.run(tiny_bundle.inputs(1, 1))
    assert len(device.calls) == called  # nothing more is asked of a GPU that answers nothing


def test_an_error_of_one_step_leaves_the_backend_usable(
    opened: Callable[..., Backend], behaviour: Behaviour, device: FakeDevice
) -> None:
    with opened() as backend:
        _check(backend, 1, 0)
        behaviour.refuse = "Error Code 3: API Usage Error"
        with pytest.raises(BackendError, match="cannot enqueue the step: Error Code 3: API Usage Error"):
            backend.run(tiny_bundle.inputs(2, 1))
        behaviour.refuse = None
        for seed in range(3):
            _check(backend, 2, seed)
    assert device.closed


@pytest.mark.parametrize("method", ["set_optimization_profile_async", "infer_shapes"])
def test_an_exception_of_tensorrts_names_the_call_and_the_context_is_given_up(
    opened: Callable[..., Backend], behaviour: Behaviour, device: FakeDevice, method: str
) -> None:
    with opened() as backend:
        _check(backend, 1, 0)
        behaviour.raises = {method: "Error Code 3: API Usage Error"}
        with pytest.raises(BackendError, match=rf"TensorRT's {method} failed: Error Code 3: API Usage Error"):
            backend.run(tiny_bundle.inputs(3, 1))  # of another profile
        assert backend.describe()["contexts"] == 0 and device.leaks() == []
        behaviour.raises = {}
        for seed in range(3):
            _check(backend, 3, seed)
        assert backend.describe()["contexts"] == 1 and len(behaviour.contexts) == 2
    assert device.closed


def test_an_error_while_another_thread_captures_harms_neither(
    opened: Callable[..., Backend], behaviour: Behaviour, device: FakeDevice
) -> None:
    errors: list[BaseException] = []

    def fail() -> None:
        try:
            backend.run(tiny_bundle.inputs(2, 1))
        except BaseException as error:
            errors.append(error)

    def fail_in_another_thread() -> None:
        behaviour.refuse, thread = "Error Code 1: out of memory", threading.Thread(target=fail)
        thread.start()
        thread.join()
        behaviour.refuse = None

    with opened() as backend:
        _check(backend, 1, 0)
        behaviour.during_capture = fail_in_another_thread
        for seed in range(3):
            _check(backend, 1, seed)
        assert [type(error) for error in errors] == [BackendError]
        assert "cannot enqueue the step: Error Code 1: out of memory" in str(errors[0])
        assert graph_counts(backend)[1:] == (1, 3)
        _check(backend, 2, 1)
    assert device.closed and "synchronize_context" not in device.calls


@pytest.mark.parametrize("call", ["create_stream", "allocate", "allocate_host"])
def test_what_fails_while_opening_leaves_nothing_behind(
    opened: Callable[..., Backend], device: FakeDevice, call: str
) -> None:
    device.fail[call] = CudaError("cuMemAlloc failed: out of memory")
    with pytest.raises(BackendError, match="out of memory"), opened():
        pass
    assert device.closed and device.leaks() == []


def test_no_execution_context(opened: Callable[..., Backend], behaviour: Behaviour, device: FakeDevice) -> None:
    behaviour.no_context = True
    with (
        pytest.raises(BackendError, match=r"execution context: Requested amount of GPU memory.*--batch-range"),
        opened(),
    ):
        pass
    assert device.closed


def test_no_runtime(opened: Callable[..., Backend], behaviour: Behaviour, device: FakeDevice) -> None:
    behaviour.no_runtime = True
    match = r"TensorRT cannot make a runtime: CUDA initialization failure with error: 35\. `avsbg doctor`"
    with pytest.raises(BackendError, match=match), opened():
        pass
    assert device.closed


def test_memory_that_runs_out_at_the_second_thread(
    opened: Callable[..., Backend], device: FakeDevice, behaviour: Behaviour
) -> None:
    with opened() as backend:
        device.memory_limit = sum(memory.nbytes for memory in device.memories.values())
        backend._idle.clear()  # type: ignore[attr-defined]  # as if another thread were running
        with pytest.raises(BackendError, match="out of memory"):
            backend.run(tiny_bundle.inputs(1, 0))
        backend._idle.extend(backend._contexts)  # type: ignore[attr-defined]
        _check(backend, 1, 0)
    assert device.closed


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (CLIP[:3], "has the outputs logits; its graph has logits, probability"),
        (
            (*CLIP[:2], Tensor("logits", DataType.HALF, MAP), CLIP[3]),
            r"has float16 .* as logits; its graph has float32",
        ),
        ((*CLIP[:2], Tensor("logits", DataType.FLOAT, (-1, 5, 8, 8)), CLIP[3]), r"\[-1, 5, 8, 8\] as logits"),
        ((*CLIP[:3], Tensor("probability", DataType.FLOAT, MAP, location=TensorLocation.HOST)), "the host's memory"),
    ],
)
def test_an_engine_of_another_graph(
    opened: Callable[..., Backend], behaviour: Behaviour, device: FakeDevice, tensors: Any, message: str
) -> None:
    behaviour.tensors = tensors
    with pytest.raises(BackendError, match=message), opened():
        pass
    assert device.closed


# Choice of engine -----------------------------------------------------------------------------------------------------


def test_none_fits(machine: None, bundle: Bundle) -> None:
    with pytest.raises(BackendError, match=r"no int8 engine of tensorrt for the graph clip.*--precision int8"):
        create("tensorrt", bundle, precision="int8")
    with pytest.raises(BackendError, match=r"no engine of tensorrt-rtx .*avsbg build .* --backend tensorrt-rtx"):
        create("tensorrt-rtx", bundle)
    with pytest.raises(BackendError, match="no implementation 'native'"):
        create("tensorrt", bundle, operator="native")
    with pytest.raises(BackendError, match=r"has no engine 'clip.bf16'.*clip.fp16"):
        create("tensorrt", bundle, engine="clip.bf16")


def test_several_fit(machine: None, bundle: Bundle) -> None:
    both = add_engine(bundle.path, "clip.fp32", precision="fp32")
    with pytest.raises(BackendError, match=r"2 engines .* fit: clip.fp16, clip.fp32.*--engine"):
        create("tensorrt", both)
    assert create("tensorrt", both, precision="fp32").engine == "clip.fp32"  # type: ignore[attr-defined]
    assert create("tensorrt", both, engine="clip.fp32").engine == "clip.fp32"  # type: ignore[attr-defined]


def test_of_engines_for_several_gpus_the_one_for_this_is_chosen(machine: None, bundle: Bundle) -> None:
    other = {"compute_capabilities": [110], "name": "Thor"}
    both = add_engine(bundle.path, "clip.fp16.thor", device=other)
    assert create("tensorrt", both).engine == "clip.fp16"  # type: ignore[attr-defined]


ORIN = {"compute_capabilities": [87], "name": "Orin", "multiprocessors": 8, "memory_gib": 8, "module": "Orin Nano"}


@pytest.mark.parametrize(
    ("built_on", "message"),
    [
        ({}, None),
        # AGX Orin 64 GB, Orin NX 16 GB, and a module of the same size: all are `Orin` with 8.7 to CUDA.
        ({"multiprocessors": 16, "memory_gib": 64}, "built on another GPU: multiprocessors 16, here 8.*avsbg build"),
        ({"memory_gib": 16}, "built on another GPU: GiB of memory 16, here 8"),
        ({"module": "Orin NX"}, "built on another GPU: module Orin NX, here Orin Nano"),
        ({"name": "Thor"}, "built on another GPU: name Thor, here Orin"),
    ],
)
def test_an_engine_of_another_orin(
    machine: None, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, built_on: dict[str, Any], message: str | None
) -> None:
    monkeypatch.setattr(engines, "module_name", lambda: "Orin Nano")
    other = add_engine(bundle.path, "clip.fp16", device=ORIN | built_on)
    if message is None:
        with create("tensorrt", other, trust=True) as backend:
            _check(backend, 1, 0)
        return
    with pytest.raises(BackendError, match=message), create("tensorrt", other, trust=True):
        pass


@pytest.mark.parametrize(("mib", "gib"), [(7620, 8), (15656, 16), (62841, 64), (8192, 8)])
def test_memory_that_the_system_keeps_does_not_make_another_module(mib: int, gib: int) -> None:
    assert Gpu("Orin", 87, mib * 2**20, 8, integrated=True).memory_class == gib


def test_an_engine_of_the_other_backend(machine: None, bundle: Bundle) -> None:
    with pytest.raises(BackendError, match=r"is one of tensorrt, not of tensorrt-rtx"):
        create("tensorrt-rtx", bundle, engine="clip.fp16")


def test_trust_is_needed(machine: None, bundle: Bundle, device: FakeDevice) -> None:
    with pytest.raises(BackendError, match="--trust"), create("tensorrt", bundle):
        pass
    assert device.closed


def test_a_failed_gate_is_refused_and_can_be_overridden(machine: None, bundle: Bundle) -> None:
    failed = add_engine(bundle.path, "clip.fp16", accuracy=passed(0.5))
    with pytest.raises(
        BackendError, match=r"missed its accuracy threshold: .*0.5000 .* 0.99 is demanded.*--allow-failed-accuracy"
    ):
        create("tensorrt", failed, trust=True)
    with create("tensorrt", failed, trust=True, allow_failed_accuracy=True) as backend:
        assert backend.describe()["gate"] == "failed, overridden"
    create("tensorrt", add_engine(bundle.path, "clip.fp16", accuracy=passed()))
