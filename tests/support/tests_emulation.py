"""Builds runtime/native/cuda with the host compiler on the emulation of tests/native/emulation, and runs it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "runtime" / "native" / "cuda"
EMULATION = ROOT / "tests" / "native" / "emulation"
ENGINE = ("emulation.cpp", "fiber.cpp", "mma.cpp", "bank_conflicts.cpp")
DTYPES = {"fp32": 0, "tf32": 1, "fp16": 2, "bf16": 3}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Variant:
    """How a program is compiled: the kernels with what drives them, and the engine."""

    flags: tuple[str, ...] = ("-O2", "-Werror")
    engine_flags: tuple[str, ...] = ("-O2", "-Werror")
    architecture: int = 800
    target: str = ""  # a cross compiler's prefix, and the processor that qemu plays


VARIANTS = {
    "plain": Variant(),
    "sm_75": Variant(architecture=750),
    # A Jetson's processor, on which a user would run these tests.
    "aarch64": Variant(("-O2", "-Werror", "-static"), architecture=870, target="aarch64"),
    "asan": Variant(
        ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    ),
    # The engine is not instrumented: its bookkeeping is shared between fibers that nothing orders.
    "tsan": Variant(("-O1", "-g1", "-fsanitize=thread"), ("-O2", "-DEMULATION_TSAN")),
    "tsan sm_75": Variant(("-O1", "-g1", "-fsanitize=thread"), ("-O2", "-DEMULATION_TSAN"), 750),
    # For kernels with a fault in them, compiled once each: quick to compile.
    "faulty": Variant(("-O0",)),
    "faulty tsan": Variant(("-O1", "-fsanitize=thread"), ("-O2", "-DEMULATION_TSAN")),
}


@dataclass(frozen=True)
class Run:
    """What one run of the program printed: a line of JSON, and the outputs one after the other."""

    status: int
    line: dict[str, Any]
    raw: bytes
    stderr: str

    @property
    def output(self) -> Floats:
        """What was computed, flat."""
        return np.frombuffer(self.raw, np.float32)

    @property
    def conflicts(self) -> dict[str, int]:
        """Extra transactions of shared memory, by kind of access."""
        return {kind: count["conflicts"] for kind, count in self.line["shared"].items()}


@dataclass(frozen=True)
class Problem:
    """One call of an operator. `flag` is with_mean_b for the means and relu for the volume."""

    dtype: str
    n: int
    p: int
    q: int
    c: int
    operation: str = "mean"
    flag: bool = True
    sm_count: int = 16

    def inputs(self, seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Random a [N, P, C] and b [N, Q, C] in the dtype's storage (uint16 for bf16)."""
        random = np.random.default_rng(seed)
        a = random.standard_normal((self.n, self.p, self.c), dtype=np.float32)
        b = random.standard_normal((self.n, self.q, self.c), dtype=np.float32)
        return self.store(a), self.store(b)

    def store(self, values: Floats) -> npt.NDArray[Any]:
        if self.dtype == "fp16":
            return values.astype(np.float16)
        if self.dtype == "bf16":
            bits = values.view(np.uint32)
            rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
            return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)
        return values

    def load(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The numbers that the kernel multiplies: tf32 is rounded to 10 bits of mantissa, ties away from zero."""
        if self.dtype == "bf16":
            return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        if self.dtype == "tf32":
            rounded = ((stored.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)
            return np.where(np.isnan(stored), stored, rounded).astype(np.float64)
        return stored.astype(np.float64)

    def reference(self, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The operator's definition in float64, and how far fp32 accumulation may be from it.

        Relative to the sum of the products' magnitudes: 2e-7 (about 3 roundings) for a mean, in which the errors of
        many products cancel, and 1e-6 for a single product.
        """
        left, right = self.load(a), self.load(b)
        with np.errstate(invalid="ignore"):
            volume = left @ right.transpose(0, 2, 1)
            magnitude = np.abs(left) @ np.abs(right).transpose(0, 2, 1)
            if self.operation == "volume":
                expected = np.where(volume < 0, 0, volume) if self.flag else volume
                return expected.ravel(), 1e-6 * magnitude.ravel()
            volume = np.where(volume < 0, 0, volume)  # keeps NaN
            axes = (2, 1) if self.flag else (2,)
            expected = np.concatenate([volume.mean(axis).ravel() for axis in axes])
            bound = np.concatenate([magnitude.mean(axis).ravel() for axis in axes])
        return expected, 2e-7 * bound


@dataclass(frozen=True)
class Emulator:
    """A built program."""

    program: Path
    runner: tuple[str, ...] = ()

    def run(self, *words: object, data: bytes = b"", **environment: str) -> Run:
        command = [*self.runner, str(self.program), *map(str, words)]
        settings = {"TSAN_OPTIONS": "atexit_sleep_ms=0:exitcode=66", **environment}
        result = subprocess.run(command, input=data, capture_output=True, env=os.environ | settings, check=False)
        if b"unexpected memory mapping" in result.stderr:  # ThreadSanitizer on a kernel with many random bits
            command = ["setarch", os.uname().machine, "-R", *command]
            result = subprocess.run(command, input=data, capture_output=True, env=os.environ | settings, check=False)
        line, _, output = result.stdout.partition(b"\n")
        return Run(result.returncode, json.loads(line) if line else {}, output, result.stderr.decode(errors="replace"))

    def solve(self, problem: Problem, a: npt.NDArray[Any], b: npt.NDArray[Any], **environment: str) -> Run:
        words = (DTYPES[problem.dtype], problem.n, problem.p, problem.q, problem.c, problem.sm_count, int(problem.flag))
        return self.run(problem.operation, *words, data=a.tobytes() + b.tobytes(), **environment)

    def check(self, problem: Problem, **environment: str) -> Run:
        """Solves a random problem, asserts that all went well and that the result is right."""
        a, b = problem.inputs()
        result = self.solve(problem, a, b, **environment)
        assert result.status == 0, result.stderr
        assert wrong_elements(problem, a, b, result) == 0
        return result


def wrong_elements(problem: Problem, a: npt.NDArray[Any], b: npt.NDArray[Any], result: Run) -> int:
    """How many outputs differ from the definition; NaN and infinities must agree exactly."""
    expected, bound = problem.reference(a, b)
    if result.output.size != expected.size:
        return expected.size
    with np.errstate(invalid="ignore"):
        close = np.abs(result.output - expected) <= bound
    same = (result.output == expected) | (np.isnan(result.output) & np.isnan(expected))
    return int(np.count_nonzero(~(close | same)))


def compile_program(variant: Variant, kernels: Path = KERNELS) -> Path:
    """Compiles the emulated kernels. What an earlier run made of the same bytes is found under build/emulation."""
    compiler = f"{variant.target}-linux-gnu-g++" if variant.target else os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        package = f"Debian's g++-{variant.target}-linux-gnu" if variant.target else "set CXX"
        pytest.skip(f"no C++ compiler: {compiler} not found ({package})")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    cache = ROOT / "build" / "emulation"
    cache.mkdir(parents=True, exist_ok=True)
    objects = []
    for source in (kernels / "correlation.cu", EMULATION / "main.cpp", *(EMULATION / name for name in ENGINE)):
        engine = source.name in ENGINE
        flags = ["-std=c++17", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-fno-strict-aliasing"]
        flags += [f"-D__CUDA_ARCH__={variant.architecture}", *(variant.engine_flags if engine else variant.flags)]
        folders = [EMULATION] if engine else [EMULATION, kernels]
        digest = hashlib.sha256(version + repr(flags).encode() + source.read_bytes())
        for header in sorted(file for folder in folders for file in folder.iterdir()):
            digest.update(header.read_bytes() if header.suffix in {".h", ".cuh"} else b"")
        objects.append(cache / f"{source.stem}-{digest.hexdigest()[:16]}.o")
        includes = [f"-I{folder}" for folder in folders]
        make(objects[-1], compiler, *flags, *includes, "-x", "c++", "-c", str(source))
    names = " ".join(path.name for path in objects)
    program = cache / f"emulated-{hashlib.sha256(names.encode()).hexdigest()[:16]}"
    linking = [flag for flag in variant.flags if "sanitize" in flag or flag == "-static"]
    make(program, compiler, *linking, *map(str, objects))
    return program


def make(output: Path, *command: str) -> None:
    """Runs a compiler unless its output is there. The output appears when it is complete."""
    if output.exists():
        return
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        result = subprocess.run([*command, "-o", f"{folder}/output"], capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr}"
        Path(folder, "output").rename(output)
