"""The correlation operator on the CPU: `python -m avsbg.benchmarks operator`.

All contenders and a large matrix product (sgemm, whose best rate is the machine's practical peak) are sampled in turn
in one process, at the sizes of the network's four stages. Every row keeps its samples; `operator_table.py` shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import JsonValue

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.operator_cases import (
    FIVE_PRODUCTS,
    MATERIALISED,
    OURS,
    OURS_BF16,
    contender_names,
    create,
    limit_threads,
    measure_memory,
    our_path,
    random_descriptors,
)
from avsbg.benchmarks.measure.sampling import interleave
from avsbg.benchmarks.results.operator_rows import ClipRow, MachineRow, OperatorRow, Row
from avsbg.benchmarks.results.statistics import paired_ratio, summarise

SIDES = (56, 28, 14, 7)
PAIRS, CHANNELS = 4, 128
_SGEMM_SIZE = 2048
_SGEMM_FLOP = 2 * _SGEMM_SIZE**3


def measure(side: int, threads: int, *, samples: int, pause: float, memory: bool) -> list[OperatorRow | ClipRow]:
    """Rows of all contenders and of sgemm at one size on a number of threads.

    Raises:
        BenchmarkError: the contenders disagree, or memory was asked for and cannot be measured.
    """
    import torch  # noqa: F401  (before its threads are limited)

    a, b = (random_descriptors(PAIRS, side, CHANNELS, seed) for seed in (1, 2))
    five = tuple(random_descriptors(PAIRS + 1, side, CHANNELS, seed) for seed in (1, 2))
    names = contender_names()
    repeats = max(1, SIDES[0] ** 4 // (64 * side**4))
    with limit_threads(threads):
        contenders = {name: create(name, side, threads) for name in names}
        _check_agreement({name: contender(a, b) for name, contender in contenders.items()})

        def call(name: str) -> Callable[[], object]:
            inputs = five if name == FIVE_PRODUCTS else (a, b)
            return lambda: [contenders[name](*inputs) for _ in range(repeats)]

        ours_and_others = {name: call(name) for name in names}
        sgemm = _sgemm_calls()
        times = interleave(ours_and_others | sgemm, warmup=2, samples=samples, pause=pause)
    times |= {name: [seconds / repeats for seconds in times[name]] for name in names}
    peak = [min(pair) for pair in zip(*(times[name] for name in sgemm), strict=True)]
    rows: list[OperatorRow | ClipRow] = []
    for name in times:
        counted = memory and name not in sgemm and name != FIVE_PRODUCTS
        peak_memory = (
            measure_memory(name, side=side, pairs=PAIRS, channels=CHANNELS, threads=threads) if counted else None
        )
        rows.append(_row(name, times, peak, side=side, threads=threads, repeats=repeats, peak_memory=peak_memory))
    ratio = asdict(paired_ratio(times[OURS], times[FIVE_PRODUCTS]))
    rows.append(ClipRow(threads=threads, side=side, four_over_five=ratio))
    return rows


def _row(
    name: str,
    times: Mapping[str, Sequence[float]],
    peak: Sequence[float],
    *,
    side: int,
    threads: int,
    repeats: int,
    peak_memory: int | None,
) -> OperatorRow:
    """The figures of one contender; `peak` is the faster sgemm's time in each round."""
    is_sgemm = name.startswith("sgemm")
    pairs = PAIRS + 1 if name == FIVE_PRODUCTS else PAIRS
    flop = _SGEMM_FLOP if is_sgemm else 2 * pairs * side**4 * CHANNELS
    seconds = times[name]
    summary = summarise(seconds)
    share = paired_ratio([s / _SGEMM_FLOP for s in peak], [s / flop for s in seconds])
    compared = () if is_sgemm or name == FIVE_PRODUCTS else MATERIALISED
    speedups = {other: asdict(paired_ratio(times[other], seconds)) for other in compared}
    return OperatorRow(
        kind="sgemm" if is_sgemm else "operator",
        contender=name,
        path=our_path(name) if name in (OURS, OURS_BF16, FIVE_PRODUCTS) else None,
        threads=threads,
        side=side,
        pairs=0 if is_sgemm else pairs,
        channels=0 if is_sgemm else CHANNELS,
        flop=flop,
        repeats=1 if is_sgemm else repeats,
        seconds=summary.as_dict(),
        gflops={"p50": flop / summary.p50 / 1e9, "best": flop / summary.minimum / 1e9},
        share_of_sgemm=asdict(share) | {"best": (flop / summary.minimum) / (_SGEMM_FLOP / min(peak))},
        speedup=speedups,
        peak_memory=peak_memory,
        samples=[float(f"{s:.6g}") for s in seconds],
    )


def _sgemm_calls() -> dict[str, Callable[[], object]]:
    import numpy as np
    import torch

    left, right = (np.random.default_rng(seed).random((_SGEMM_SIZE, _SGEMM_SIZE), dtype=np.float32) for seed in (1, 2))
    out = np.empty_like(left)
    left_tensor, right_tensor, out_tensor = (torch.from_numpy(array) for array in (left, right, out.copy()))
    return {
        "sgemm, numpy": lambda: np.matmul(left, right, out=out),
        "sgemm, torch": lambda: torch.mm(left_tensor, right_tensor, out=out_tensor),
    }


def _check_agreement(results: Mapping[str, Sequence[Any]]) -> None:
    """Speed is only worth something where the figures are right."""
    import numpy as np

    expected = [np.asarray(mean) for mean in results["numpy"]]
    for name, means in results.items():
        tolerance = 2e-2 if name == OURS_BF16 else 1e-4
        for mean, wanted in zip(means, expected, strict=False):  # one contender returns mean_a alone
            error = float(np.abs(np.asarray(mean) - wanted).max())
            if not error <= tolerance:
                raise BenchmarkError(f"{name} differs from numpy by {error:g}, more than {tolerance:g}.")


def machine_row(arguments: Mapping[str, JsonValue]) -> MachineRow:
    import numpy  # noqa: F401  (loads the BLAS that is to be described)
    import torch  # noqa: F401
    from threadpoolctl import threadpool_info

    from avsbg.benchmarks.machine.environment import describe_environment

    described = ("user_api", "internal_api", "version", "architecture", "num_threads", "threading_layer")
    blas = [{key: library.get(key) for key in described} for library in threadpool_info()]
    return MachineRow(environment=describe_environment(), blas=blas, arguments=dict(arguments))


def run(
    sides: Sequence[int],
    counts: Sequence[int],
    *,
    samples: int,
    pause: float,
    memory: bool,
    report: Callable[[str], None],
) -> list[Row]:
    """All rows: of each map size with each number of threads.

    Args:
        sides: map sizes.
        counts: numbers of threads.
        samples: of each contender.
        pause: seconds of rest before each call.
        memory: measure peak memory, in a process per contender.
        report: called with a line of text as each size begins.

    Raises:
        BenchmarkError: a contender's result is not numpy's.
    """
    arguments: dict[str, JsonValue] = {"sides": [*sides], "threads": [*counts], "samples": samples, "pause": pause}
    rows: list[Row] = [machine_row(arguments)]
    for count in counts:
        for size in sides:
            report(f"{size} x {size} positions, {count} thread{'s' if count > 1 else ''}")
            rows += measure(size, count, samples=samples, pause=pause, memory=memory)
    return rows
