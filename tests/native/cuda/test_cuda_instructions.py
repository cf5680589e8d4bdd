"""The emulated instructions, against sources that the emulation was not written from.

The register layouts are CuTe's (CUTLASS 4.2, include/cute/atom/mma_traits_sm80.hpp and copy_traits_sm75.hpp), typed in
as data: a layout maps coordinates to the sum of coordinate times stride, leftmost coordinate fastest.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from fixtures.emulation import Emulator, Problem

pytestmark = pytest.mark.native

Words = npt.NDArray[np.uint32]


def layout(shape: tuple[int, ...], stride: tuple[int, ...]) -> list[int]:
    """The offset of each coordinate of a CuTe layout, in the order of its index."""
    coordinates = itertools.product(*(range(extent) for extent in reversed(shape)))
    return [sum(i * s for i, s in zip(reversed(c), stride, strict=True)) for c in coordinates]


# (lanes, values) -> index in a column-major matrix: [16, K] for A, [8, K] for B, [16, 8] for C.
SM80_16X8_ROW = ((4, 8, 2, 2), (32, 1, 16, 8))
INSTRUCTIONS = {
    "k8_f16": (8, SM80_16X8_ROW, ((4, 8, 2), (16, 1, 8))),
    "k16_f16": (16, ((4, 8, 2, 2, 2), (32, 1, 16, 8, 128)), ((4, 8, 2, 2), (16, 1, 8, 64))),
    "k16_bf16": (16, ((4, 8, 2, 2, 2), (32, 1, 16, 8, 128)), ((4, 8, 2, 2), (16, 1, 8, 64))),
    "k8_tf32": (8, ((4, 8, 2, 2), (16, 1, 8, 64)), ((4, 8, 2), (8, 1, 32))),
}


def registers(problem: Problem, matrix: npt.NDArray[np.float32], where: list[int], count: int) -> Words:
    """A matrix as the 32 lanes hold it: uint32 [32, count], unused registers zero."""
    values = problem.store(matrix).flatten(order="F")[where].reshape(-1, 32).T.copy()  # [lane, value]
    words = values.view(np.uint32)
    return np.pad(words, ((0, 0), (0, count - words.shape[1])))


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_mma_multiplies_what_the_published_layouts_say(emulator: Emulator, name: str) -> None:
    depth, a_layout, b_layout = INSTRUCTIONS[name]
    problem = Problem({"f16": "fp16", "bf16": "bf16", "tf32": "tf32"}[name.split("_")[1]], 1, 16, 8, depth)
    random = np.random.default_rng(0)
    a = random.integers(-8, 9, (16, depth)).astype(np.float32)
    b = random.integers(-8, 9, (8, depth)).astype(np.float32)
    c = random.integers(-8, 9, (16, 8)).astype(np.float32)
    where = layout(*SM80_16X8_ROW)
    accumulators = c.flatten(order="F")[where].reshape(4, 32).T.copy()
    data = registers(problem, a, layout(*a_layout), 4).tobytes() + registers(problem, b, layout(*b_layout), 2).tobytes()
    run = emulator.run("mma", name, data=data + accumulators.tobytes())
    d = np.empty(16 * 8, np.float32)
    d[where] = run.output.reshape(32, 4).T.ravel()
    np.testing.assert_array_equal(d.reshape(16, 8, order="F"), a @ b.T + c)


@pytest.mark.parametrize("stride", [1, 3])
def test_ldmatrix_gives_each_lane_what_the_published_layout_says(emulator: Emulator, stride: int) -> None:
    rows = np.random.default_rng(0).integers(0, 2**32, (32, 4), np.uint64).astype(np.uint32)
    run = emulator.run("ldmatrix", stride, data=rows.tobytes())
    # Both layouts give bits, 32 of them in a word: lane l's row starts at bit 128 l; value v of register m of lane l is
    # bit 32 l + v + 1024 m.
    words = layout((32, 4), (32 // 32, 1024 // 32))
    expected = rows.ravel()[words].reshape(4, 32).T
    np.testing.assert_array_equal(run.output.view(np.uint32).reshape(32, 4), expected)


@pytest.mark.parametrize(("stride", "conflicts"), [(1, 0), (2, 4 * 1), (4, 4 * 3), (8, 4 * 7), (9, 0), (16, 4 * 7)])
def test_conflicts_are_counted(emulator: Emulator, stride: int, conflicts: int) -> None:
    """Eight rows, `stride` units apart, share 8 / stride of the eight groups of banks: the count can be told."""
    run = emulator.run("ldmatrix", stride, data=bytes(512))
    assert run.conflicts["ldmatrix"] == conflicts
    assert run.line["shared"]["ldmatrix"]["accesses"] == 1


@pytest.mark.parametrize("dtype", ["fp32", "tf32", "fp16", "bf16"])
@pytest.mark.parametrize("c", [16, 32, 64, 128, 512])
def test_no_bank_conflicts(emulator: Emulator, dtype: str, c: int) -> None:
    """In every kernel: rows of 64, 128 and 256 bytes and longer ones, the means with and without mean_b, the volume."""
    for operation, flag in (("mean", True), ("mean", False), ("volume", True)):
        run = emulator.check(Problem(dtype, 1, 200, 150, c, operation, flag))
        kinds = {"copy", "load"} if dtype == "fp32" else {"copy", "ldmatrix"}
        if operation == "mean" and flag:
            kinds |= {"load", "store"}  # of the column sums
        assert set(run.conflicts) == kinds
        assert not any(run.conflicts.values()), run.conflicts


def test_no_bank_conflicts_on_sm_75(emulator_sm_75: Emulator) -> None:
    for c in (32, 64, 128, 512):
        run = emulator_sm_75.check(Problem("fp16", 1, 200, 150, c))
        assert set(run.conflicts) == {"ldmatrix", "load", "store"}
        assert not any(run.conflicts.values()), run.conflicts
