"""libavsbg_cuda: its C interface on the emulated CUDA, called as PyTorch calls it, and the library that nvcc built."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from avsbg.model.operators_cuda import CudaLibrary, OperatorError
from avsbg.native_library import NativeLibraryError, native_library
from fixtures.emulation import DTYPES, KERNELS, Problem, compile_library, wrong_elements
from fixtures.emulation import Run as Result

pytestmark = pytest.mark.native

STORAGE = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
HEADER = KERNELS / "avsbg_cuda.h"


@pytest.fixture(scope="module")
def path() -> Path:
    return compile_library()


@pytest.fixture(scope="module")
def library(path: Path) -> CudaLibrary:
    return CudaLibrary(path)


def tensors(problem: Problem) -> list[torch.Tensor]:
    """The problem's descriptors as PyTorch holds them."""
    return [torch.from_numpy(one.view(np.uint8)).view(STORAGE[problem.dtype]) for one in problem.inputs()]


def check(library: CudaLibrary, problem: Problem, a: torch.Tensor, b: torch.Tensor) -> None:
    """Compute the problem on a and b, which hold `problem.inputs()` in some layout, and hold it against float64."""
    tf32 = problem.dtype == "tf32"
    if problem.operation == "mean":
        results = list(library.mean_correlation(a, b, tf32=tf32))
    else:
        results = [library.correlation_volume(a, b, problem.flag, tf32=tf32)]
    assert all(result.dtype == torch.float32 for result in results)
    raw = b"".join(result.numpy().tobytes() for result in results)
    assert wrong_elements(problem, *problem.inputs(), Result(0, {}, raw, "")) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "p", "q", "c"), [(0, 3, 4, 8), (2, 49, 49, 128), (1, 257, 65, 136)])
def test_pytorchs_tensors(library: CudaLibrary, dtype: str, n: int, p: int, q: int, c: int) -> None:
    for problem in (Problem(dtype, n, p, q, c), Problem(dtype, n, p, q, c, "volume", flag=p == 49)):
        check(library, problem, *tensors(problem))


def test_descriptors_in_any_layout(library: CudaLibrary) -> None:
    """Channels first behind a transpose, as the networks pass them, and a start on no 16-byte boundary."""
    problem = Problem("fp16", 2, 30, 20, 16)
    a, b = tensors(problem)
    shifted = torch.cat([b.new_zeros(1), b.flatten()])[1:].view_as(b)
    assert shifted.data_ptr() % 16
    check(library, problem, a.transpose(1, 2).contiguous().transpose(1, 2), shifted)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(1, 3, 12), torch.zeros(1, 4, 12), "C = 12 channels: must be a multiple of 8"),
        (torch.zeros(1, 0, 8), torch.zeros(1, 4, 8), "P = 0 positions"),
        (torch.zeros(1, 3, 8).double(), torch.zeros(1, 4, 8).double(), "not float64.*composite"),
    ],
)
def test_declines_in_words(library: CudaLibrary, a: torch.Tensor, b: torch.Tensor, words: str) -> None:
    for call in (library.mean_correlation, library.correlation_volume):
        with pytest.raises(OperatorError, match=words):
            call(a, b)


class Struct(ctypes.Structure):
    """avsbg_problem."""

    _fields_ = [*((name, ctypes.c_int64) for name in "npqc"), ("dtype", ctypes.c_int32)]


class Task(ctypes.Structure):
    """avsbg_task."""

    _fields_ = [
        ("problem", Struct),
        ("pairs_per_clip", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("a", "b", "mean_a", "mean_b")),
    ]


def load_group_functions(path: Path) -> ctypes.CDLL:
    raw = ctypes.CDLL(str(path))
    raw.avsbg_cuda_last_error.restype = ctypes.c_char_p
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    raw.avsbg_cuda_mean_correlations.argtypes = [pointer, ctypes.c_int32, pointer, pointer, size, pointer]
    return raw


@pytest.mark.parametrize("with_mean_b", [True, False])
def test_a_group_of_clips_and_of_pairs(path: Path, with_mean_b: bool) -> None:
    """An empty problem, two stages of clips of three frames, and one whose pairs have maps of their own."""
    raw = load_group_functions(path)
    clips = [Problem("fp16", 4, p, p, c, flag=with_mean_b) for p, c in ((150, 64), (49, 128))]
    problems = [*clips, Problem("fp16", 2, 40, 70, 64, flag=with_mean_b)]
    inputs, kept, tasks = [], [], []
    for problem in problems:
        a, b = problem.inputs()
        if problem in clips:  # [2, 3, P, C], and its pairs
            maps = problem.store(np.random.default_rng(1).standard_normal((2, 3, problem.p, problem.c), np.float32))
            shape = (problem.n, problem.p, problem.c)
            a, b = (np.ascontiguousarray(part).reshape(shape) for part in (maps[:, :-1], maps[:, 1:]))
            at, partner, each = maps.ctypes.data, maps.ctypes.data + maps[0, 0].nbytes, 2
        else:
            maps, at, partner, each = a, a.ctypes.data, b.ctypes.data, 0
        means = [np.full((problem.n, size), np.nan, np.float32) for size in (problem.p, problem.q)]
        inputs.append((a, b))
        kept.append((maps, means))
        struct = Struct(problem.n, problem.p, problem.q, problem.c, DTYPES["fp16"])
        mean_b = means[1].ctypes.data if with_mean_b else None
        tasks.append(Task(struct, each, at, partner, means[0].ctypes.data, mean_b))
    tasks.insert(0, Task(Struct(0, 150, 150, 64, DTYPES["fp16"]), 0, None, None, None, None))
    group, needed = (Task * 4)(*tasks), ctypes.c_size_t()
    assert raw.avsbg_cuda_group_workspace_size(group, 4, int(with_mean_b), ctypes.byref(needed)) == 0
    workspace = np.full(needed.value // 4, np.nan, np.float32)
    status = raw.avsbg_cuda_mean_correlations(group, 4, None, workspace.ctypes.data, needed.value, None)
    assert status == 0, raw.avsbg_cuda_last_error()
    for problem, (a, b), (_, means) in zip(problems, inputs, kept, strict=True):
        results = b"".join(mean.tobytes() for mean in means[: 1 + with_mean_b])
        assert wrong_elements(problem, a, b, Result(0, {}, results, "")) == 0


def test_a_group_that_cannot_be_computed(path: Path) -> None:
    raw = load_group_functions(path)
    buffer, needed = np.zeros(1 << 16, np.float32), ctypes.c_size_t()
    at = buffer.ctypes.data

    def task(dtype: str = "fp16", c: int = 8, mean_b: int | None = at, pairs_per_clip: int = 0) -> Task:
        return Task(Struct(1, 130, 40, c, DTYPES[dtype]), pairs_per_clip, at, at, at, mean_b)

    calls: list[tuple[int, str, list[Task]]] = [
        (1, "5 problems in a group: must be 1 to 4", [task()] * 5),
        (1, "0 problems in a group", []),
        (1, "C = 12 channels", [task(), task(c=12)]),
        (1, "the problems of a group must have one dtype", [task(), task("bf16")]),
        (2, "mean_b must be given for all problems of a group, or for none", [task(), task(mean_b=None)]),
        (2, "pairs_per_clip must not be negative", [task(), task(pairs_per_clip=-1)]),
    ]
    for status, words, tasks in calls:
        group, count = (Task * len(tasks))(*tasks), len(tasks)
        if status == 1:
            assert raw.avsbg_cuda_group_workspace_size(group, count, 1, ctypes.byref(needed)) == 1
            assert words in raw.avsbg_cuda_last_error().decode()
        assert raw.avsbg_cuda_mean_correlations(group, count, None, at, buffer.nbytes, None) == status
        assert words in raw.avsbg_cuda_last_error().decode()
    one = ctypes.byref(task("bf16"))
    assert raw.avsbg_cuda_mean_correlations(one, 1, (ctypes.c_int32 * 2)(75, 40), at, buffer.nbytes, None) == 1
    assert "bf16 needs compute capability 8.0" in raw.avsbg_cuda_last_error().decode()
    assert raw.avsbg_cuda_mean_correlations(None, 1, None, at, buffer.nbytes, None) == 2
    assert raw.avsbg_cuda_last_error() == b"tasks is a null pointer"
    assert raw.avsbg_cuda_mean_correlations(one, 1, None, at, 3, None) == 2
    assert b"the workspace has 3 bytes, and" in raw.avsbg_cuda_last_error()


@pytest.mark.parametrize("capability", [80, 90])
def test_code_that_cannot_wait_is_not_let_start_early(path: Path, capability: int) -> None:
    """The library is compiled for 8.0, and a later device translates its PTX: that does not give it the wait of 9.0."""
    raw = load_group_functions(path)
    problem = Problem("fp16", 1, 130, 40, 64)
    a, b = problem.inputs()
    means = [np.full(size, np.nan, np.float32) for size in (problem.p, problem.q)]
    pointers = (array.ctypes.data for array in (a, b, *means))
    group, needed = Task(Struct(1, 130, 40, 64, DTYPES["fp16"]), 0, *pointers), ctypes.c_size_t()
    assert raw.avsbg_cuda_group_workspace_size(ctypes.byref(group), 1, 1, ctypes.byref(needed)) == 0
    workspace, device = np.full(needed.value // 4, np.nan, np.float32), (ctypes.c_int32 * 2)(capability, 16)
    at = workspace.ctypes.data
    status = raw.avsbg_cuda_mean_correlations(ctypes.byref(group), 1, device, at, needed.value, None)
    assert status == 0, raw.avsbg_cuda_last_error()
    results = b"".join(mean.tobytes() for mean in means)
    assert wrong_elements(problem, a, b, Result(0, {}, results, "")) == 0


def test_statuses_and_their_words(path: Path) -> None:
    """1 where another implementation should compute the problem, 2 where the call is wrong."""
    raw = ctypes.CDLL(str(path))
    raw.avsbg_cuda_last_error.restype = ctypes.c_char_p
    raw.avsbg_cuda_mean_correlation.argtypes = [*[ctypes.c_void_p] * 7, ctypes.c_size_t, ctypes.c_void_p]
    problem, turing = ctypes.byref(Struct(1, 130, 40, 8, 2)), (ctypes.c_int32 * 2)(75, 40)
    device = (ctypes.c_int32 * 2)()
    buffer = np.zeros(4096, np.float32)
    at = buffer.ctypes.data
    assert raw.avsbg_cuda_query_device(ctypes.byref(device)) == 0
    assert list(device) == [80, 16]
    assert raw.avsbg_cuda_check_problem(problem, None) == raw.avsbg_cuda_check_problem(problem, turing) == 0
    calls = [
        (
            1,
            "bf16 needs compute capability 8.0",
            lambda: raw.avsbg_cuda_check_problem(ctypes.byref(Struct(1, 3, 4, 8, 3)), turing),
        ),
        (
            1,
            "C = 7 channels",
            lambda: raw.avsbg_cuda_workspace_size(
                ctypes.byref(Struct(1, 3, 4, 7, 0)), 1, ctypes.byref(ctypes.c_size_t())
            ),
        ),
        (2, "problem is a null pointer", lambda: raw.avsbg_cuda_check_problem(None, None)),
        (2, "bytes is a null pointer", lambda: raw.avsbg_cuda_workspace_size(problem, 1, None)),
        (
            2,
            "b is a null pointer",
            lambda: raw.avsbg_cuda_mean_correlation(problem, None, at, None, at, at, at, 1 << 20, None),
        ),
        (
            2,
            "a must be aligned to 16 bytes",
            lambda: raw.avsbg_cuda_mean_correlation(problem, None, at + 2, at, at, at, at, 1 << 20, None),
        ),
        (
            2,
            "the workspace has 3 bytes, and",
            lambda: raw.avsbg_cuda_mean_correlation(problem, None, at, at, at, at, at, 3, None),
        ),
    ]
    for status, words, call in calls:
        assert call() == status
        assert words in raw.avsbg_cuda_last_error().decode()


def test_another_interface_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("avsbg.model.operators_cuda._ABI_VERSION", 2)
    with pytest.raises(NativeLibraryError, match="has version 1 of its interface, and 2 is needed"):
        CudaLibrary(path)
    with pytest.raises(NativeLibraryError, match="cannot be loaded"):
        CudaLibrary(tmp_path / "none.so")


def test_the_header_is_plain_c(tmp_path: Path) -> None:
    source = tmp_path / "user.c"
    source.write_text('#include "avsbg_cuda.h"\nint main(void) { return AVSBG_SUCCESS; }\n')
    compiler = shutil.which("gcc") or pytest.skip("gcc not found")
    flags = ("-std=c99", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{KERNELS}")
    done = subprocess.run([compiler, *flags, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_nvcc_built_exports_the_interface_and_reports_a_missing_driver() -> None:
    """The library of this installation; without a driver a call returns what CUDA says, and does not crash."""
    try:
        built = native_library("cuda").path
    except NativeLibraryError as error:
        pytest.skip(str(error))
    raw = ctypes.CDLL(str(built))
    declared = set(re.findall(r"\b(avsbg_cuda_\w+)\(", HEADER.read_text()))
    assert len(declared) == 9
    assert all(hasattr(raw, name) for name in declared)
    if not torch.cuda.is_available():
        raw.avsbg_cuda_last_error.restype = ctypes.c_char_p
        assert raw.avsbg_cuda_query_device(ctypes.byref((ctypes.c_int32 * 2)())) == 2
        assert raw.avsbg_cuda_last_error().startswith(b"asking for the CUDA device failed: ")
