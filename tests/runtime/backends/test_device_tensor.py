"""Arrays that stay where they were computed: passed on, released, their buffers reused; misuse is an error."""

from __future__ import annotations

import numpy as np
import pytest

from avsbg.runtime.backends import DeviceTensor, create
from avsbg.runtime.backends.base import Backend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from fixtures import tiny_bundle


class Elsewhere(DeviceTensor):
    """A tensor of some other backend."""

    def __init__(self, frames: int = 5) -> None:
        super().__init__(np.dtype(np.uint8), (1, frames, 16, 24, 3))

    def _copy(self) -> np.ndarray:
        return np.zeros(self.shape, self.dtype)

    def _return_buffer(self) -> None: ...


def test_what_is_kept_equals_what_is_returned(tiny: Bundle) -> None:
    arrays = tiny_bundle.inputs(2, seed=3)
    with create("onnxruntime", tiny) as backend:
        plain = backend.run(arrays)
        kept = backend.run(arrays, device_outputs=["logits"])
        assert isinstance(kept["logits"], DeviceTensor)
        assert isinstance(kept["probability"], np.ndarray)
        assert (kept["logits"].dtype, kept["logits"].shape) == (np.float32, (2, 5, 16, 24))
        np.testing.assert_array_equal(kept["logits"].numpy(), plain["logits"])
        np.testing.assert_array_equal(kept["probability"], plain["probability"])


def test_released_buffers_are_reused_and_held_ones_are_not(tiny: Bundle) -> None:
    with create("onnxruntime", tiny) as backend:

        def run(seed: int) -> tuple[DeviceTensor, np.ndarray]:
            arrays = tiny_bundle.inputs(1, seed)
            logits = backend.run(arrays, ["logits"], device_outputs=["logits"])["logits"]
            assert isinstance(logits, DeviceTensor)
            return logits, tiny_bundle.expected(**arrays)["logits"]

        def address(resident: DeviceTensor) -> int:
            return int(resident.value.data_ptr())  # type: ignore[attr-defined]

        seen, held = set(), [run(0)]
        for seed in range(1, 8):
            held.append(run(seed))
            for resident, expected in held:
                np.testing.assert_allclose(resident.numpy(), expected, atol=1e-5)
                seen.add(address(resident))
            held.pop(0)[0].release()
        assert len(seen) == 2


def test_a_released_array_is_gone(tiny: Bundle) -> None:
    with create("onnxruntime", tiny) as backend:
        kept = backend.run(tiny_bundle.inputs(1, 0), device_outputs=["logits"])["logits"]
        assert isinstance(kept, DeviceTensor)
        kept.release()
        kept.release()
        with pytest.raises(BackendError, match="after its release"):
            kept.numpy()
        other = backend.run(tiny_bundle.inputs(1, 1), ["logits"], device_outputs=["logits"])["logits"]
        third = backend.run(tiny_bundle.inputs(1, 2), ["logits"], device_outputs=["logits"])["logits"]
        assert other.value is not third.value  # type: ignore[union-attr]  # releasing twice gave it back once


def test_misuse_is_an_error(tiny: Bundle) -> None:
    arrays = tiny_bundle.inputs(1, 0)
    with create("onnxruntime", tiny) as backend:
        with pytest.raises(BackendError, match="no output 'mask'"):
            backend.run(arrays, device_outputs=["mask"])
        with pytest.raises(BackendError, match="logits is to stay on the device, but is not among the outputs"):
            backend.run(arrays, ["probability"], device_outputs=["logits"])
        with pytest.raises(BackendError, match=r"cannot take the device tensor frames: Elsewhere is another backend's"):
            backend.run({**arrays, "frames": Elsewhere()})
        gone = Elsewhere()
        gone.release()
        with pytest.raises(BackendError, match="the input frames was released"):
            backend.run({**arrays, "frames": gone})
        with pytest.raises(BackendError, match=r"\[1, 4, 16, 24, 3\].*\[clips=1, 5, 16, 24, 3\]"):
            backend.run({**arrays, "frames": Elsewhere(frames=4)})


def test_a_failed_run_gives_its_buffers_back(tiny: Bundle) -> None:
    with create("onnxruntime", tiny, clips=2) as backend:
        with pytest.raises(BackendError, match="failed on the graph clip"):
            backend.run(tiny_bundle.inputs(3, 0), ["logits"], device_outputs=["logits"])
        assert _free(backend) == 1


def _free(backend: Backend) -> int:
    return sum(len(values) for values in backend._pool.values())  # type: ignore[attr-defined]
