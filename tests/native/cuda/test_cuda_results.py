"""The CUDA kernels' own source, run on the processor, against the operators' definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.emulation import DTYPES, SHAPES, Emulator, Group, Problem, wrong_elements
from tools import kernels

pytestmark = pytest.mark.native


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "p", "q", "c"), SHAPES)
def test_means(emulator: Emulator, dtype: str, n: int, p: int, q: int, c: int) -> None:
    """Both outputs where a block walks over all tiles; the first alone where they are shared out over the grid."""
    emulator.check(Problem(dtype, n, p, q, c, sm_count=1))
    emulator.check(Problem(dtype, n, p, q, c, flag=False))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "p", "q", "c"), SHAPES)
def test_volume(emulator: Emulator, dtype: str, n: int, p: int, q: int, c: int, relu: bool) -> None:
    emulator.check(Problem(dtype, n, p, q, c, "volume", relu))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from(list(DTYPES)),
    n=st.integers(0, 3),
    p=st.integers(1, 280),
    q=st.integers(1, 280),
    units=st.integers(1, 64),
    operation=st.sampled_from(["mean", "volume"]),
    flag=st.booleans(),
    sm_count=st.integers(1, 200),
)
def test_any_problem(
    emulator: Emulator, dtype: str, n: int, p: int, q: int, units: int, operation: str, flag: bool, sm_count: int
) -> None:
    emulator.check(Problem(dtype, n, p, q, units * 8, operation, flag, sm_count))


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize(("n", "p", "q", "c"), SHAPES)
def test_sm_75(emulator_sm_75: Emulator, dtype: str, n: int, p: int, q: int, c: int) -> None:
    emulator_sm_75.check(Problem(dtype, n, p, q, c))
    emulator_sm_75.check(Problem(dtype, n, p, q, c, "volume"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "p", "q", "c"), [(1, 1, 1, 8), (2, 49, 49, 128), (1, 129, 64, 136)])
def test_on_a_jetsons_processor(emulator_aarch64: Emulator, dtype: str, n: int, p: int, q: int, c: int) -> None:
    emulator_aarch64.check(Problem(dtype, n, p, q, c))
    emulator_aarch64.check(Problem(dtype, n, p, q, c, "volume"))


@pytest.mark.parametrize("operation", ["mean", "volume"])
def test_no_pairs_launches_nothing(emulator: Emulator, operation: str) -> None:
    result = emulator.check(Problem("fp16", 0, 49, 49, 128, operation))
    assert result.line["blocks"] == 0


def test_small_maps_are_shared_by_all_multiprocessors(emulator: Emulator) -> None:
    """One pair of 14 x 14 maps has two query tiles of seven tiles each: 14 to share out.

    The second kernel has a block for each query tile and for every 128 columns.
    """
    for sm_count, workers in ((1, 3), (5, 5), (16, 14)):
        run = emulator.check(Problem("fp16", 1, 196, 196, 128, sm_count=sm_count))
        assert run.line["blocks"] == workers + 2 + 2


# Multiprocessors of an Orin, Thor, RTX 4090, H100 and RTX 5090; pairs, and positions of each map.
BALANCED = [
    (16, [(4, 3136)]),
    (16, [(4, 784)]),
    (20, [(1, 3136)]),
    (20, [(4, 784)]),
    (128, [(4, 3136)]),
    (132, [(4, 3136)]),
    (132, [(4, 3136), (4, 784), (4, 196), (4, 49)]),  # a clip's stages in one launch
    (170, [(16, 3136)]),
]


def balance(emulator: Emulator, sm_count: int, stages: list[tuple[int, int]]) -> float:
    """The mean sum of tiles per multiprocessor over the largest, blocks being dealt out in turn."""
    shapes = [word for n, p in stages for word in (n, p, p, 128)]
    tiles, workers = map(int, emulator.run("plan", DTYPES["fp16"], sm_count, *shapes).raw.split())
    sums = [0] * sm_count
    for worker in range(workers):
        sums[worker % sm_count] += (worker + 1) * tiles // workers - worker * tiles // workers
    assert sum(sums) == tiles
    assert tiles / sm_count / max(sums) == kernels.balance(sm_count, stages), "the docs' arithmetic is the launcher's"
    return tiles / sm_count / max(sums)


@pytest.mark.parametrize(("sm_count", "stages"), BALANCED)
def test_tiles_are_balanced_over_multiprocessors(
    emulator: Emulator, sm_count: int, stages: list[tuple[int, int]]
) -> None:
    assert balance(emulator, sm_count, stages) >= 0.95


def test_a_map_of_few_tiles_is_balanced_to_one_tile(emulator: Emulator) -> None:
    """28 x 28 alone on an H100: 700 tiles on 132 multiprocessors, so that some have six of 5.3."""
    assert balance(emulator, 132, [(4, 784)]) == pytest.approx(700 / 132 / 6)


LAUNCHES = 2
STAGES = ((4, 196, 196, 128, 2), (4, 49, 49, 128, 2), (4, 130, 130, 64, 2), (2, 40, 40, 72, 2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_mean_b", [True, False])
@pytest.mark.parametrize("sm_count", [1, 5])
def test_a_group_of_clips_is_what_its_pairs_are(
    emulator: Emulator, dtype: str, with_mean_b: bool, sm_count: int
) -> None:
    """Four stages of clips in one launch, and one that combines their sums, which docs/plugin.md counts."""
    run = emulator.check(Group(dtype, STAGES, with_mean_b, sm_count))
    assert (run.line["launches"], run.line["overlapping"]) == (LAUNCHES, 1)


def test_a_group_without_pairs_and_of_unequal_maps(emulator: Emulator) -> None:
    emulator.check(Group("fp16", ((0, 10, 20, 64, 0), (1, 140, 33, 128, 0)), sm_count=3))
    five = emulator.run("group", DTYPES["fp16"], 3, 1, *[0, 1, 1, 8, 0] * 5)
    assert five.line["error"] == "5 problems in a group: must be 1 to 4"


def test_the_same_bits_every_time(emulator: Emulator) -> None:
    """Whatever order the threads run in: sums have a fixed order."""
    problem = Problem("fp16", 2, 150, 100, 128)
    a, b = problem.inputs()
    runs = [emulator.solve(problem, a, b, EMULATION_ORDER=order) for order in ("forward", "reverse", "interleaved")]
    for run in runs[1:]:
        assert run.output.tobytes() == runs[0].output.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [64, 200])
def test_what_is_not_finite_reaches_its_own_means_only(emulator: Emulator, dtype: str, value: float, c: int) -> None:
    """Both maps end in the middle of a tile, so that padding meets each special value: it must not make NaN of it."""
    for operation, flag in (("mean", True), ("volume", True), ("volume", False)):
        problem = Problem(dtype, 2, 135, 70, c, operation, flag)
        a, b = problem.inputs()
        special = problem.store(np.full(1, value, np.float32))[0]
        a[0, 3, 5] = special  # one row of the first pair: a block that is full
        a[0, 134, c - 1] = special  # the last row
        b[1, 69, 0] = special  # the last target of the second pair
        result = emulator.solve(problem, a, b)
        assert result.status == 0, result.stderr
        assert wrong_elements(problem, a, b, result) == 0


def test_fp16_is_accumulated_beyond_its_own_range(emulator: Emulator) -> None:
    """The largest fp16 squared, 512 times: 2.2e12 where fp16 ends at 65504."""
    problem = Problem("fp16", 1, 40, 40, 512)
    a = np.full((1, 40, 512), 65504, np.float16)
    result = emulator.solve(problem, a, a)
    np.testing.assert_allclose(result.output, 512 * 65504.0**2, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "shape", "capability", "words"),
    [
        (2, (1, 1, 1, 12), 87, "C = 12 channels: must be a multiple of 8 from 8 to 512"),
        (2, (1, 1, 1, 520), 87, "C = 520 channels"),
        (2, (1, 1, 1, 0), 87, "C = 0 channels"),
        (2, (1, 0, 1, 8), 87, "P = 0 positions of a: must be 1 to 2^24"),
        (2, (1, 1, 2**24 + 1, 8), 87, "Q = 16777217 positions of b"),
        (2, (-1, 1, 1, 8), 87, "N = -1 pairs: must not be negative"),
        (2, (2**31, 1, 1, 8), 87, "N * ceil(P / 128) must be below 2^31"),
        (2, (2**62, 1, 1, 8), 87, "N * max(P, Q) must not exceed 2^36"),
        (7, (1, 1, 1, 8), 87, "dtype = 7 is not one of fp32 (0), tf32 (1), fp16 (2), bf16 (3)"),
        (2, (1, 1, 1, 8), 72, "compute capability 7.2: must be 7.5 or later"),
        (1, (1, 1, 1, 8), 75, "tf32 needs compute capability 8.0 or later, this device has 7.5: use fp32 or fp16"),
        (3, (1, 1, 1, 8), 75, "bf16 needs compute capability 8.0 or later, this device has 7.5: use fp16"),
    ],
)
def test_declines_in_words(emulator: Emulator, dtype: int, shape: tuple[int, ...], capability: int, words: str) -> None:
    assert words in emulator.run("declined", dtype, *shape, capability).line["error"]


def test_takes_what_it_says_it_takes(emulator: Emulator) -> None:
    for dtype, capability in ((0, 75), (1, 80), (2, 75), (3, 121)):
        assert emulator.run("declined", dtype, 2**31 - 1, 1, 32, 512, capability).line["error"] == ""
        assert emulator.run("declined", dtype, 1, 2**24, 2**24, 8, capability).line["error"] == ""


def workspace(emulator: Emulator, n: int, p: int, q: int, with_mean_b: bool) -> int:
    return int(emulator.run("workspace", DTYPES["fp16"], n, p, q, 128, int(with_mean_b)).raw)


def test_the_workspace_is_what_the_contract_says(emulator: Emulator) -> None:
    """4 N Q ceil(P / 128) bytes where P > 128, and at most 1 MiB more."""
    assert workspace(emulator, 4, 3136, 3136, False) == 2**20
    assert workspace(emulator, 4, 3136, 3136, True) == 2**20 + 4 * 4 * 3136 * 25
    assert workspace(emulator, 4, 128, 32, True) == 0
    assert workspace(emulator, 0, 3136, 3136, True) == 0
    assert int(emulator.run("workspace", DTYPES["fp16"], 1, 1, 1, 12, 1).raw) == 0  # declined


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(0, 9), st.integers(1, 5000), st.integers(1, 5000)),
    more=st.tuples(st.integers(0, 9), st.integers(0, 5000), st.integers(0, 5000)),
    with_mean_b=st.booleans(),
)
def test_the_workspace_of_larger_maps_serves_smaller_ones(
    emulator: Emulator, sizes: tuple[int, int, int], more: tuple[int, int, int], with_mean_b: bool
) -> None:
    n, p, q = (size + extra for size, extra in zip(sizes, more, strict=True))
    assert workspace(emulator, *sizes, with_mean_b) <= workspace(emulator, n, p, q, with_mean_b)
