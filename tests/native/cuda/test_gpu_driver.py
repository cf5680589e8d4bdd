"""The driver that compute-sanitizer and ncu run on a GPU, here on the emulation: results, and planted faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fixtures import ROOT
from fixtures.emulation import VARIANTS, Emulator, Group, Problem, compile_driver

pytestmark = pytest.mark.native


@pytest.mark.parametrize("operation", ["mean", "volume"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_its_results(dtype: str, operation: str) -> None:
    """Also with the device's own multiprocessors, and with inputs that it makes itself."""
    driver = Emulator(compile_driver(VARIANTS["plain"]))
    driver.check(Problem(dtype, 2, 130, 65, 72, operation))
    driver.check(Problem(dtype, 0, 130, 65, 72, operation))
    driver.check(Problem(dtype, 1, 40, 300, 128, operation, sm_count=0))
    run = driver.run("random", operation, 2, 1, 130, 65, 72, 0, 1)
    assert (run.status, run.line["error"], run.raw) == (0, "", b"")


# As scripts/on-gpu.sh gives it to the tools.
GROUP = Group("fp16", ((4, 140, 140, 56, 2), (2, 40, 40, 64, 2), (1, 33, 150, 64, 0)), sm_count=3)


@pytest.mark.parametrize("with_mean_b", [True, False])
def test_a_group(with_mean_b: bool) -> None:
    driver = Emulator(compile_driver(VARIANTS["plain"]))
    driver.check(replace(GROUP, flag=with_mean_b))
    run = driver.run("random", "group", *GROUP.words)
    assert (run.status, run.line["error"], run.raw) == (0, "", b"")
    assert f'GROUP="group {" ".join(map(str, GROUP.words))}"' in (ROOT / "scripts" / "on-gpu.sh").read_text()


def test_it_says_what_the_kernels_decline() -> None:
    run = Emulator(compile_driver(VARIANTS["plain"])).run("random", "mean", 2, 1, 3, 4, 12, 0, 1)
    assert run.status == 1
    assert "C = 12 channels" in run.line["error"]


@pytest.mark.slow
def test_the_fault_planted_for_memcheck_is_one() -> None:
    """AddressSanitizer finds it as compute-sanitizer must, and finds nothing without it."""
    problems = [("random", "mean", 2, 1, 130, 65, 72, 0, 1), ("random", "group", *GROUP.words)]
    sound, faulty = (Emulator(compile_driver(VARIANTS["asan"], *options)) for options in ((), ("-DFAULT_MEMCHECK",)))
    for problem in problems:
        assert sound.run(*problem).status == 0
        assert "heap-buffer-overflow" in faulty.run(*problem).stderr


def test_the_fault_planted_for_initcheck_is_one() -> None:
    """b was never written: it holds the NaN of new memory."""
    problem = Problem("fp32", 1, 30, 20, 8)
    a, b = problem.inputs()
    result = Emulator(compile_driver(VARIANTS["plain"], "-DFAULT_INITCHECK")).solve(problem, a, b)
    assert result.output.size == 50
    assert np.isnan(result.output).all()
