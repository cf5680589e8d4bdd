"""Peak memory of a process of its own."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure import memory
from avsbg.benchmarks.measure.cases import BenchmarkCase
from avsbg.benchmarks.measure.memory import measure_memory
from avsbg.benchmarks.measure.workloads import Workload
from avsbg.runtime.bundle import Bundle
from fixtures import ROOT


def _measure(case: BenchmarkCase, workload: Workload) -> dict[str, float]:
    measured = measure_memory(case, workload, runs=1)
    assert all(metric.unit == "B" for metric in measured.values())
    return {name.removesuffix("_memory"): metric.number for name, metric in measured.items()}


def test_the_peak_is_that_of_the_work(embedding: Bundle) -> None:
    ballast = bytearray(b"x" * 300 * 2**20)  # ours, and so none of the child's
    case = BenchmarkCase("tiny", embedding, "onnxruntime", {"threads": 1})
    small = _measure(case, Workload(clips=1))
    assert 0 < small["imported"] <= small["loaded"] <= small["load_peak"] < len(ballast)
    assert small["loaded"] <= small["peak"] < len(ballast)
    # Every clip holds its descriptors, float32 [5, 16 * 24, 8], at least once.
    clips = 1500
    large = _measure(case, Workload(clips=clips))
    assert large["peak"] - small["peak"] > clips * 5 * 16 * 24 * 8 * 4


def test_a_child_that_fails_says_why(embedding: Bundle) -> None:
    case = BenchmarkCase("tiny", embedding, "onnxruntime", {"operator": "imaginary"})
    with pytest.raises(BenchmarkError, match=r"memory of tiny failed: .*no implementation 'imaginary'"):
        measure_memory(case, Workload(), runs=1)


def test_a_child_that_is_killed_is_reported(embedding: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(memory, "subprocess", SimpleNamespace(run=lambda *_, **__: killed))
    with pytest.raises(BenchmarkError, match=r"ended by signal 9.*runs out of memory"):
        measure_memory(BenchmarkCase("tiny", embedding, "onnxruntime", {}), Workload())


def test_what_loading_needs_is_not_what_running_needs(embedding: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # The child starts with this module's backend, which holds 200 MiB while it loads.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    script = (
        "from avsbg.runtime import backends; from avsbg.benchmarks.measure import memory;"
        "backends.register('greedy', 'fixtures.fake_backends:GreedyLoader'); memory.main()"
    )
    run = subprocess.run
    monkeypatch.setattr(
        memory, "subprocess", SimpleNamespace(run=lambda command, **options: run([command[0], "-c", script], **options))
    )
    sizes = _measure(BenchmarkCase("tiny", embedding, "greedy", {}), Workload())
    assert sizes["load_peak"] - sizes["peak"] > 150 * 2**20
