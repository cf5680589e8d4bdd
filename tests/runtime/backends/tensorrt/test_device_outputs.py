"""Arrays that stay on the GPU between two engines, and that the fake GPU notices what it is there for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from avsbg.runtime.backends import Backend, create
from avsbg.runtime.backends.tensorrt import backend as backend_module
from avsbg.runtime.backends.tensorrt import engine as engines
from avsbg.runtime.backends.tensorrt.memory import MAX_ACQUIRED
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.errors import BackendError
from fixtures import tiny_bundle
from fixtures.engines import add_engine
from fixtures.fake_cuda import FakeDevice, Misuse
from fixtures.fake_tensorrt_runtime import Behaviour, DataType, Tensor, runtime_module
from fixtures.tensorrt_machine import graph_counts

FEATURES = (-1, tiny_bundle.HEIGHT, tiny_bundle.WIDTH)
ENCODE = (
    Tensor("frame", DataType.UINT8, (*FEATURES, 3), ((1, 1, 1),)),
    Tensor("features", DataType.HALF, FEATURES),
)
DECODE = (
    Tensor("features", DataType.HALF, FEATURES, ((1, 1, 1),)),
    Tensor("neighbour", DataType.HALF, FEATURES, ((1, 1, 1),)),
    Tensor("logits", DataType.FLOAT, FEATURES),
)


def _encoded(frame: np.ndarray) -> np.ndarray:
    return frame.mean(axis=-1).astype(np.float16)


@pytest.fixture
def stream(
    monkeypatch: pytest.MonkeyPatch, machine: None, bundle: Bundle, device: FakeDevice
) -> tuple[Backend, Backend]:
    """Backends of the graphs `encode` and `decode`, on one GPU."""
    document = json.loads((bundle.path / MANIFEST).read_text())
    types = {DataType.UINT8: "uint8", DataType.HALF: "float16", DataType.FLOAT: "float32"}

    def describe(tensors: Any) -> list[dict[str, Any]]:
        return [
            {"name": t.name, "dtype": types[t.dtype], "shape": ["clips" if s == -1 else s for s in t.shape]}
            for t in tensors
        ]

    for name, tensors in (("encode", ENCODE), ("decode", DECODE)):
        document["graphs"][name] = {
            **document["graphs"]["clip.plain"],
            "inputs": describe([tensor for tensor in tensors if tensor.profiles]),
            "outputs": describe([tensor for tensor in tensors if not tensor.profiles]),
        }
    (bundle.path / MANIFEST).write_text(json.dumps(document))
    add_engine(bundle.path, "encode.fp16", graph="encode")
    both = add_engine(bundle.path, "decode.fp16", graph="decode")
    encode = Behaviour(device, ENCODE, lambda arrays: {"features": _encoded(arrays["frame"])})
    decode = Behaviour(
        device,
        DECODE,
        lambda arrays: {"logits": arrays["features"].astype(np.float32) - arrays["neighbour"].astype(np.float32)},
    )
    modules = [runtime_module("10.13.3", encode), runtime_module("10.13.3", decode)]
    shared = _Shared(device, 2)
    monkeypatch.setattr(backend_module, "open_device", lambda _: shared)
    current = iter([modules[0], modules[1]])
    monkeypatch.setattr(backend_module, "import_runtime", lambda _: _use(monkeypatch, next(current)))
    return (
        create("tensorrt", both, graph="encode", trust=True),
        create("tensorrt", both, graph="decode", trust=True),
    )


def _use(monkeypatch: pytest.MonkeyPatch, module: Any) -> Any:
    monkeypatch.setattr(engines, "import_runtime", lambda _: module)
    return module


class _Shared:
    """A primary context is one for both backends and goes with the second release."""

    def __init__(self, device: FakeDevice, users: int) -> None:
        self._device, self._users = device, users

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def close(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._device.close()


def _frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, *FEATURES[1:], 3), dtype=np.uint8)


def test_features_go_from_encode_to_decode_without_the_host(
    stream: tuple[Backend, Backend], device: FakeDevice
) -> None:
    encode, decode = stream
    with encode, decode:
        held = None
        for time in range(8):
            waits = device.calls.count("synchronize")
            features = encode.run({"frame": _frame(time)}, device_outputs=["features"])["features"]
            # The first run sets the shapes; of the others, only the buffer of the frame must be free again.
            assert device.calls.count("synchronize") <= waits + 1
            if held is not None:
                logits = decode.run({"features": held, "neighbour": features})["logits"]
                wanted = _encoded(_frame(time - 1)).astype(np.float32) - _encoded(_frame(time))
                np.testing.assert_array_equal(logits, wanted)
                held.release()
            held = features
        # Two sets alternate.
        pool = encode._pool  # type: ignore[attr-defined]
        assert len(pool._acquired) + len(pool._free) == 2
        assert graph_counts(encode) == (1, 1, 7)
        assert graph_counts(decode) == (1, 1, 6)
    assert device.closed and device.leaks() == []


def test_a_kept_array_can_be_read_and_dies_with_its_release(stream: tuple[Backend, Backend]) -> None:
    encode, decode = stream
    with encode:
        with decode:
            features = encode.run({"frame": _frame(0)}, device_outputs=["features"])["features"]
            np.testing.assert_array_equal(features.numpy(), _encoded(_frame(0)))
            assert features.dtype == np.float16 and features.shape == (1, *FEATURES[1:])
            features.release()
            features.release()
            with pytest.raises(BackendError, match="release"):
                features.numpy()
            with pytest.raises(BackendError, match="released"):
                decode.run({"features": features, "neighbour": features})
            other = encode.run({"frame": _frame(1)}, device_outputs=["features"])["features"]
        np.testing.assert_array_equal(other.numpy(), _encoded(_frame(1)))
    with pytest.raises(BackendError, match="after the backend that made it was closed"):
        other.numpy()


def test_arrays_that_are_never_released_are_told(stream: tuple[Backend, Backend], device: FakeDevice) -> None:
    encode, decode = stream
    with encode, decode:
        kept = [encode.run({"frame": _frame(0)}, device_outputs=["features"])["features"] for _ in range(MAX_ACQUIRED)]
        with pytest.raises(BackendError, match=r"16 device tensors .* have not been released.*release\(\)"):
            encode.run({"frame": _frame(0)}, device_outputs=["features"])
        kept[0].release()
        np.testing.assert_array_equal(
            encode.run({"frame": _frame(5)}, device_outputs=["features"])["features"].numpy(), _encoded(_frame(5))
        )
    assert device.closed


def test_host_arrays_and_kept_arrays_mix(stream: tuple[Backend, Backend]) -> None:
    encode, decode = stream
    with encode, decode:
        kept = encode.run({"frame": _frame(0)}, device_outputs=["features"])["features"]
        for seed in (1, 2, 3):
            logits = decode.run({"features": kept, "neighbour": _encoded(_frame(seed))})["logits"]
            np.testing.assert_array_equal(
                logits, _encoded(_frame(0)).astype(np.float32) - _encoded(_frame(seed)).astype(np.float32)
            )


# The fake itself must notice what it is there for -----------------------------------------------------------------


def _mutants() -> dict[str, Callable[[pytest.MonkeyPatch], None]]:
    from avsbg.runtime.backends.tensorrt.context import ExecutionContext
    from avsbg.runtime.backends.tensorrt.memory import BufferPool

    def never(target: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
        return lambda patch: patch.setattr(target, name, lambda *_, **__: None)

    def no_wait(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(FakeDevice, "wait", lambda *_: None)

    def no_warm_up(patch: pytest.MonkeyPatch) -> None:
        execute = ExecutionContext._execute
        patch.setattr(ExecutionContext, "_execute", lambda self, step, _: execute(self, step, True))

    def keeps_graph(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(ExecutionContext, "_drop_graph", lambda _: None)

    def closes_early(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(BufferPool, "close", lambda *_, **__: None)

    return {
        "the host reads before the stream was waited for": never(ExecutionContext, "_finish"),
        "streams do not wait for each other": no_wait,
        "the first run is captured": no_warm_up,
        "a graph outlives its shapes": keeps_graph,
        "kept buffers are not freed": closes_early,
    }


@pytest.mark.parametrize("mutant", list(_mutants()))
def test_the_checks_can_fail(stream: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    _mutants()[mutant](monkeypatch)
    encode, decode = stream
    with pytest.raises(Misuse), encode, decode:
        held = encode.run({"frame": _frame(0)}, device_outputs=["features"])["features"]
        for time in range(1, 4):
            features = encode.run({"frame": _frame(time)}, device_outputs=["features"])["features"]
            decode.run({"features": held, "neighbour": features})
            encode.run({"frame": _frame(time)})
            held.release()
            held = features
