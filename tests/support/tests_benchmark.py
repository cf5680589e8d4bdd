"""A backend whose calls take as long as a test says, on a clock that only moves when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from avsbg.runtime.backends import Arrays, Backend


class FakeClock:
    """Nanoseconds that pass only inside calls of `ScheduledBackend`."""

    now = 0

    def __call__(self) -> int:
        return FakeClock.now


class ScheduledBackend(Backend):
    """Returns zeros; its n-th call takes `schedule(n)` seconds of the fake clock."""

    name: ClassVar[str] = "scheduled"
    schedule: ClassVar[Callable[[int], float]] = staticmethod(lambda _: 1.0)

    def describe(self) -> dict[str, Any]:
        return {"backend": self.name, "threads": 1, "operator": "none"}

    def _open(self) -> None:
        self.calls = 0

    def _run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], keep: Collection[str]) -> Arrays:  # noqa: ARG002
        FakeClock.now += round(1e9 * type(self).schedule(self.calls))
        self.calls += 1
        clips = inputs["frames"].shape[0]
        shapes = {tensor.name: tensor.shape for tensor in self.contract.outputs}
        return {name: np.zeros((clips, *shapes[name][1:]), np.float32) for name in outputs}

    def _close(self) -> None:
        pass


class GreedyLoader(ScheduledBackend):
    """Holds 200 MiB while it loads and none of it after."""

    def _open(self) -> None:
        super()._open()
        held = bytearray(b"x" * 200 * 2**20)
        del held
