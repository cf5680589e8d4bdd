"""The CUDA kernels, compiled for the processor in the ways that the tests of this folder need."""

from __future__ import annotations

import shutil

import pytest

from fixtures.emulation import VARIANTS, Emulator, compile_program


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    """The kernels as sm_90 and later run them: as sm_80, but that the second stage starts before the first ends."""
    return Emulator(compile_program(VARIANTS["plain"]))


@pytest.fixture(scope="session")
def emulator_sm_75() -> Emulator:
    """The kernels as sm_75 runs them: synchronous copies, mma of eight channels, fp32 and fp16 only."""
    return Emulator(compile_program(VARIANTS["sm_75"]))


@pytest.fixture(scope="session")
def emulator_asan() -> Emulator:
    """Under AddressSanitizer and UndefinedBehaviorSanitizer."""
    return Emulator(compile_program(VARIANTS["asan"]))


@pytest.fixture(scope="session")
def emulator_tsan() -> Emulator:
    """Under ThreadSanitizer."""
    return Emulator(compile_program(VARIANTS["tsan"]))


@pytest.fixture(scope="session")
def emulator_tsan_sm_75() -> Emulator:
    """Under ThreadSanitizer, as sm_75 runs them."""
    return Emulator(compile_program(VARIANTS["tsan sm_75"]))


@pytest.fixture(scope="session")
def emulator_aarch64() -> Emulator:
    """Compiled for a Jetson's processor, which qemu plays here."""
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 not found (Debian's qemu-user)")
    return Emulator(compile_program(VARIANTS["aarch64"]), ("qemu-aarch64",))
