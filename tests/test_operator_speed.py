"""scripts/gpu/operator_speed.py: what its labels say is what ran, and the GPU's clocks are in its rows."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from avsbg.model import operators_cuda
from fixtures import ROOT
from fixtures.emulation import compile_library


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's modules import each other by their bare names, as its programs do."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "gpu"))
    for name in ("clocks", "measure", "operator_speed"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_every_shape_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch compiles a function for eight shapes, and runs it as it is for others."""
    import operator_speed

    graphs = []

    def count(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    real = torch.compile

    def compile_with(function: Any, **options: Any) -> Any:
        assert options.pop("mode") == "max-autotune-no-cudagraphs"
        return real(function, backend=count, **options)

    monkeypatch.setattr(torch, "compile", compile_with)
    for side in range(2, 12):
        a = torch.ones(1, side, 8)
        compiled = operator_speed.compiled()
        assert torch.equal(compiled(a, a)[0], torch.full((1, side), 8.0))
    torch._dynamo.reset()
    assert len(graphs) == 10


@pytest.mark.native
def test_our_group_is_right_with_one_mean_and_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the emulated CUDA: four stages in one launch, against float64."""
    import operator_speed

    library = operators_cuda.CudaLibrary(compile_library())
    monkeypatch.setattr(operators_cuda, "library", lambda: library)
    generator = torch.Generator().manual_seed(0)
    pairs = [tuple(torch.randn(2, p, 24, generator=generator).half() for _ in "ab") for p in (130, 33, 16, 4)]
    for with_mean_b in (True, False):
        means = operator_speed.grouped("fp16", with_mean_b=with_mean_b)(pairs)
        assert [len(one) for one in means] == [1 + with_mean_b] * 4
        assert operator_speed.relative_error(means, pairs) < operator_speed.BOUNDS["fp16"]
    means[3][0][1, 2] += 1.0
    assert operator_speed.relative_error(means, pairs) > 0.01
    with pytest.raises(operators_cuda.OperatorError):
        operator_speed.grouped("fp16")([*pairs, pairs[0]])


class PlayedNvml:
    """NVML with one GPU, whose reasons for low clocks are said one after the other."""

    def __init__(self, *reasons: int) -> None:
        self.reasons: Iterator[int] = iter(reasons)

    def __getattr__(self, name: str) -> Any:
        if name in ("nvmlInit_v2", "nvmlDeviceGetHandleByUUID"):
            return lambda *_: 0
        if name == "nvmlDeviceGetCurrentClocksThrottleReasons":
            return partial(self.answer, next(self.reasons))
        answers = {"ClockInfo": 1980, "PowerUsage": 650_000, "EnforcedPowerLimit": 700_000, "Temperature": None}
        return partial(self.answer, answers[name.removeprefix("nvmlDeviceGet")])

    @staticmethod
    def answer(value: int | None, *arguments: Any) -> int:
        if value is None:
            return 3  # not supported
        arguments[-1]._obj.value = value
        return 0


def test_throttling_between_two_states_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import clocks

    nvml = clocks.Nvml("GPU-0", PlayedNvml(0x1, 0x4 | 0x40, 0x4, 0x0))
    monkeypatch.setattr(clocks, "find_reader", lambda: nvml.read)
    watch = clocks.Watch("cuda")
    watch.begin()
    watch.look()
    watch.look()
    found = watch.end()
    assert (
        found["before"]
        == found["after"]
        == {
            "clocks_mhz": {"graphics": 1980, "sm": 1980, "memory": 1980},
            "temperature": None,
            "power_mode": "limit 700 W",
            "power_watts": 650.0,
            "throttled": [],
        }
    )
    assert found["throttled"] == ["power cap", "thermal, hardware"]


def test_clocks_that_cannot_be_read_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import clocks

    def missing(_: str) -> ctypes.CDLL:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(clocks, "find_reader", lambda: clocks.Nvml("GPU-0").read)
    watch = clocks.Watch("cuda")
    watch.begin()
    assert watch.end() == {"clocks_unknown": "NVML cannot be loaded: libnvidia-ml.so.1: cannot open shared object file"}
    on_cpu = clocks.Watch("cpu")
    on_cpu.begin()
    assert on_cpu.end() == {}
