"""The CUDA kernels on a GPU, through libavsbg_cuda and PyTorch's operators: every type and shape, against float64.

It needs PyTorch, numpy and pytest alone: `pytest --confcutdir tests/gpu -m gpu tests/gpu/test_kernels.py`. With
AVSBG_KERNELS=FILE, a library on the emulated CUDA, what needs no GPU runs with tensors of the CPU. AVSBG_CUDA_LIBRARY
names another libavsbg_cuda than the installation's.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from avsbg.model import correlation_volume, mean_correlation, operators_cuda  # noqa: E402
from avsbg.model.operators import composite  # noqa: E402
from avsbg.native_library import native_library  # noqa: E402
from fixtures.emulation import SHAPES  # noqa: E402

EMULATED = os.environ.get("AVSBG_KERNELS")
DEVICE = "cpu" if EMULATED else "cuda"
pytestmark = [] if EMULATED else [pytest.mark.gpu]
on_a_gpu = pytest.mark.skipif(EMULATED is not None, reason="needs a GPU: this run is emulated")

FP32 = torch.float32
DTYPES = {"fp32": (0, FP32), "tf32": (1, FP32), "fp16": (2, torch.float16), "bf16": (3, torch.bfloat16)}
PROBLEMS = [(0, 3, 4, 8), *SHAPES][:: 2 if EMULATED else 1]
# N, P, Q, C and pairs per clip of each problem of a launch; with 0 of those, its pairs have maps of their own.
GROUPS = {"ragged": [(4, 196, 196, 128, 2), (4, 130, 130, 64, 2), (2, 40, 40, 72, 1), (1, 33, 150, 64, 0)]}
if not EMULATED:
    GROUPS["network"] = [(8, side * side, side * side, 128, 4) for side in (56, 28, 14, 7)]
LARGE = [(4, 3136, 3136, 128), (16, 784, 784, 128), (1, 5000, 3000, 128), (2, 4096, 4096, 256)]
CANARY = 64  # floats around each output


class Problem(ctypes.Structure):
    """avsbg_problem."""

    _fields_ = [*((name, ctypes.c_int64) for name in "npqc"), ("dtype", ctypes.c_int32)]


class Task(ctypes.Structure):
    """avsbg_task."""

    _fields_ = [
        ("problem", Problem),
        ("pairs_per_clip", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("a", "b", "mean_a", "mean_b")),
    ]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    named = EMULATED or os.environ.get("AVSBG_CUDA_LIBRARY")
    found = ctypes.CDLL(str(Path(named) if named else native_library("cuda").path))
    found.avsbg_cuda_last_error.restype = ctypes.c_char_p
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    found.avsbg_cuda_mean_correlation.argtypes = [*[pointer] * 7, size, pointer]
    found.avsbg_cuda_mean_correlations.argtypes = [pointer, ctypes.c_int32, pointer, pointer, size, pointer]
    found.avsbg_cuda_correlation_volume.argtypes = [*[pointer] * 5, ctypes.c_int32, pointer]
    return found


def descriptors(shape: tuple[int, ...], dtype: str) -> tuple[Tensor, Tensor]:
    n, p, q, c = shape
    generator = torch.Generator(DEVICE).manual_seed(p + q)
    storage = DTYPES[dtype][1]
    a, b = (torch.randn(n, rows, c, generator=generator, device=DEVICE) for rows in (p, q))
    return a.to(storage), b.to(storage)


def multiplied(values: Tensor, dtype: str) -> Tensor:
    """The numbers that the kernel multiplies, in float64: tf32 has 10 bits of mantissa, ties go away from zero."""
    if dtype == "tf32":
        values = (values.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)
    return values.double()


class Guarded:
    """An output of exactly its size between canaries, all of NaN."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.count = shape, torch.Size(shape).numel()
        self.memory = torch.full((self.count + 2 * CANARY,), torch.nan, device=DEVICE)

    @property
    def pointer(self) -> int:
        return int(self.memory[CANARY:].data_ptr())

    def result(self) -> Tensor:
        """The output, after a look at what lies around it."""
        assert self.memory[:CANARY].isnan().all() and self.memory[CANARY + self.count :].isnan().all()
        return self.memory[CANARY : CANARY + self.count].view(self.shape)


def stream_pointer() -> int | None:
    return None if EMULATED else int(torch.cuda.current_stream().cuda_stream)


def call_means(
    library: ctypes.CDLL, a: Tensor, b: Tensor, dtype: str, *, with_b: bool = True, sm_count: int = 0
) -> list[Tensor]:
    (n, p, c), q = a.shape, b.shape[1]
    problem = Problem(n, p, q, c, DTYPES[dtype][0])
    size = ctypes.c_size_t()
    assert library.avsbg_cuda_workspace_size(ctypes.byref(problem), int(with_b), ctypes.byref(size)) == 0
    workspace = Guarded(size.value // 4)
    device = (ctypes.c_int32 * 2)()
    assert library.avsbg_cuda_query_device(device) == 0, library.avsbg_cuda_last_error()
    device[1] = sm_count or device[1]
    means = [Guarded(n, p), Guarded(n, q)]
    pointers = [means[0].pointer, means[1].pointer if with_b else None, workspace.pointer]
    status = library.avsbg_cuda_mean_correlation(
        ctypes.byref(problem), device, a.data_ptr(), b.data_ptr(), *pointers, size.value, stream_pointer()
    )
    assert status == 0, library.avsbg_cuda_last_error()
    workspace.result()
    return [mean.result() for mean in means[: 1 + with_b]]


def check_means(results: list[Tensor], a: Tensor, b: Tensor, dtype: str) -> None:
    """Within 1e-6 of the sum of the products' magnitudes: tensor cores add with fewer bits than fp32 and truncate."""
    left, right = multiplied(a, dtype), multiplied(b, dtype)
    for n in range(len(a)):
        volume, magnitude = left[n] @ right[n].T, left[n].abs() @ right[n].abs().T
        for side, result in enumerate(results):
            wrong = (result[n] - volume.relu().mean(1 - side)).abs() > 1e-6 * magnitude.mean(1 - side)
            assert not wrong.any(), f"pair {n}, mean_{'ab'[side]}: {int(wrong.sum())} elements"


@pytest.mark.parametrize("shape", PROBLEMS if EMULATED else PROBLEMS + LARGE, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_means(library: ctypes.CDLL, dtype: str, shape: tuple[int, ...]) -> None:
    a, b = descriptors(shape, dtype)
    both = call_means(library, a, b, dtype)
    check_means(both, a, b, dtype)
    again = call_means(library, a, b, dtype)
    assert all(torch.equal(one, other) for one, other in zip(both, again, strict=True))
    check_means(call_means(library, a, b, dtype, with_b=False), a, b, dtype)


@pytest.mark.parametrize("with_b", [True, False])
@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_means_of_a_group_of_clips(library: ctypes.CDLL, dtype: str, name: str, with_b: bool) -> None:
    """As engines call the kernels: all stages in one launch, and a pair by its place among the frames of its clip."""
    tasks, problems = [], []
    for n, p, q, c, pairs in GROUPS[name]:
        if pairs:
            frames, _ = descriptors((n // pairs, (pairs + 1) * p, 1, c), dtype)
            frames = frames.view(n // pairs, pairs + 1, p, c)
            first, second = frames, frames[:, 1:]
            a, b = (part.reshape(n, p, c) for part in (frames[:, :-1], second))
        else:
            first, second = a, b = descriptors((n, p, q, c), dtype)
        means = [Guarded(n, rows) for rows in (p, q)[: 1 + with_b]]
        pointers = [mean.pointer for mean in means] + [None] * (not with_b)
        problem = Problem(n, p, q, c, DTYPES[dtype][0])
        tasks.append(Task(problem, pairs, first.data_ptr(), second.data_ptr(), *pointers))
        problems.append((first, second, a, b, means))
    group, size = (Task * len(tasks))(*tasks), ctypes.c_size_t()
    assert library.avsbg_cuda_group_workspace_size(group, len(tasks), int(with_b), ctypes.byref(size)) == 0
    workspace = Guarded(size.value // 4)
    calls = []
    for _ in range(2):
        status = library.avsbg_cuda_mean_correlations(
            group, len(tasks), None, workspace.pointer, size.value, stream_pointer()
        )
        assert status == 0, library.avsbg_cuda_last_error()
        calls.append([mean.result().clone() for *_, means in problems for mean in means])
    workspace.result()
    assert all(torch.equal(one, other) for one, other in zip(*calls, strict=True))
    for *_, a, b, means in problems:
        check_means([mean.result() for mean in means], a, b, dtype)


@pytest.mark.parametrize("sm_count", [1, 16, 200])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_split_of_the_targets(library: ctypes.CDLL, dtype: str, sm_count: int) -> None:
    a, b = descriptors((2, 196, 300, 128), dtype)
    check_means(call_means(library, a, b, dtype, sm_count=sm_count), a, b, dtype)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", PROBLEMS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_volume(library: ctypes.CDLL, dtype: str, shape: tuple[int, ...], relu: bool) -> None:
    a, b = descriptors(shape, dtype)
    (n, p, c), q = a.shape, b.shape[1]
    problem, volume = Problem(n, p, q, c, DTYPES[dtype][0]), Guarded(n, p, q)
    status = library.avsbg_cuda_correlation_volume(
        ctypes.byref(problem), None, a.data_ptr(), b.data_ptr(), volume.pointer, int(relu), stream_pointer()
    )
    assert status == 0, library.avsbg_cuda_last_error()
    left, right = multiplied(a, dtype), multiplied(b, dtype).transpose(1, 2)
    expected = left @ right
    wrong = (volume.result() - (expected.relu() if relu else expected)).abs() > 1e-6 * (left.abs() @ right.abs())
    assert not wrong.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite(library: ctypes.CDLL, dtype: str, value: float) -> None:
    a, b = descriptors((1, 135, 70, 64), dtype)
    a[0, 134, 63] = value
    volume = a.double() @ b.double().transpose(1, 2)
    for side, result in enumerate(call_means(library, a, b, dtype)):
        expected = volume.relu().mean(2 - side)
        finite = expected.isfinite()
        assert torch.equal(result.isnan(), expected.isnan())
        assert torch.equal(result[~finite & ~expected.isnan()].double(), expected[~finite & ~expected.isnan()])


@on_a_gpu
def test_a_volume_beyond_32_bits() -> None:
    side = 2**16
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GiB of free GPU memory")
    a, b = (torch.randn(1, side, 8, device=DEVICE, dtype=torch.float16) for _ in range(2))
    volume = correlation_volume(a, b)
    rows = torch.tensor([0, 1, side // 2, side - 1], device=DEVICE)
    torch.testing.assert_close(volume[0, rows], (a[0, rows].double() @ b[0].double().T).float(), rtol=1e-5, atol=1e-4)


@on_a_gpu
def test_as_many_blocks_as_a_grid_is_wide(library: ctypes.CDLL) -> None:
    a, b = descriptors((100_000, 130, 5, 8), "fp16")
    volume = (a.double() @ b.double().transpose(1, 2)).relu()
    mean_a, mean_b = call_means(library, a, b, "fp16")
    torch.testing.assert_close(mean_a.double(), volume.mean(2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean_b.double(), volume.mean(1), rtol=1e-5, atol=1e-5)


@on_a_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pytorchs_operators_in_a_graph_on_another_stream(dtype: torch.dtype) -> None:
    """Captured once and replayed on new numbers: the bits of a call outside the graph."""
    a, b = (torch.randn(4, 784, 128, device=DEVICE).to(dtype) for _ in range(2))
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        mean_correlation(a, b)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = mean_correlation(a, b)
    a.copy_(torch.randn_like(a))
    graph.replay()
    for one, other in zip(captured, mean_correlation(a, b), strict=True):
        assert torch.equal(one, other)


@on_a_gpu
@pytest.mark.parametrize("wrap", [lambda function: function, torch.compile], ids=["eager", "compiled"])
def test_the_composite_agrees_forward_and_backward(wrap: Callable[..., Callable[..., Tensor]]) -> None:
    a, b = (torch.randn(2, 196, 128, device=DEVICE, requires_grad=True) for _ in range(2))

    def loss() -> Tensor:
        mean_a, mean_b = mean_correlation(a, b)
        return mean_a.square().sum() + mean_b.sum()

    gradients = []
    with torch.enable_grad():
        gradients.append(torch.autograd.grad(wrap(loss)(), (a, b)))
        with composite():
            gradients.append(torch.autograd.grad(loss(), (a, b)))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@on_a_gpu
def test_the_device_is_asked_for_its_own_rules() -> None:
    a, b = (torch.randn(1, 9, 12, device=DEVICE) for _ in range(2))
    with pytest.raises(operators_cuda.OperatorError, match="C = 12 channels"):
        mean_correlation(a, b)
