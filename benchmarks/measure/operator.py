"""The correlation operator on the CPU: `python -m avsbg.benchmarks operator`.

All ways to compute it and a large matrix product (sgemm, whose best rate is the machine's practical peak) are sampled
in turn in one process, at the sizes of the network's four stages. Every row keeps its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
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
from avsbg.benchmarks.results.schema import Measurement, Metric, Run
from avsbg.benchmarks.results.statistics import paired_ratio, summarise

RESULTS = Path(__file__).parents[1] / "results" / "operator_cpu.jsonl"
SIDES = (56, 28, 14, 7)
PAIRS, CHANNELS = 4, 128
_SGEMM_SIZE = 2048
_SGEMM_FLOP = 2 * _SGEMM_SIZE**3


def measure(side: int, threads: int, *, samples: int, pause: float, memory: bool) -> list[Measurement]:
    """Measure all ways to compute it and sgemm at one size on a number of threads.

    Raises:
        BenchmarkError: they disagree, or memory was asked for and cannot be measured.
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
    rows = []
    for name in times:
        metrics = _metrics(name, times, peak, side)
        if memory and name not in sgemm and name != FIVE_PRODUCTS:
            size = measure_memory(name, side=side, pairs=PAIRS, channels=CHANNELS, threads=threads)
            metrics["peak_memory"] = Metric(unit="B", value=size)
        case = {
            "path": our_path(name) if name in (OURS, OURS_BF16, FIVE_PRODUCTS) else None,
            "threads": threads,
            "side": side,
        }
        if name in sgemm:
            case |= {"pairs": 0, "channels": 0, "repeats": 1}
        else:
            case |= {"pairs": _pairs(name), "channels": CHANNELS, "repeats": repeats}
        rows.append(Measurement(kind="operator", label=name, case=case, metrics=metrics))
    four_over_five = Metric.of(paired_ratio(times[OURS], times[FIVE_PRODUCTS]))
    case = {"threads": threads, "side": side}
    return [*rows, Measurement(kind="operator-clip", case=case, metrics={"four_over_five": four_over_five})]


def _pairs(name: str) -> int:
    return PAIRS + 1 if name == FIVE_PRODUCTS else PAIRS


def _metrics(name: str, times: Mapping[str, Sequence[float]], peak: Sequence[float], side: int) -> dict[str, Metric]:
    """The metrics of one way to compute; `peak` is the faster sgemm's time in each round."""
    is_sgemm = name.startswith("sgemm")
    flop = _SGEMM_FLOP if is_sgemm else 2 * _pairs(name) * side**4 * CHANNELS
    seconds = times[name]
    summary = summarise(seconds)
    percentiles = {"p50": summary.p50, "p90": summary.p90, "p99": summary.p99, "best": summary.minimum}
    compared = () if is_sgemm or name == FIVE_PRODUCTS else MATERIALISED
    return {
        "latency": Metric(unit="s", samples=tuple(float(f"{s:.6g}") for s in seconds)),
        "operations": Metric(unit="FLOP", value=flop),
        **{key: Metric(unit="s", value=value) for key, value in percentiles.items()},
        "share_of_sgemm": Metric.of(paired_ratio([s / _SGEMM_FLOP for s in peak], [s / flop for s in seconds])),
        "best_share_of_sgemm": Metric(value=(flop / summary.minimum) / (_SGEMM_FLOP / min(peak))),
        **{f"speedup over {other}": Metric.of(paired_ratio(times[other], seconds)) for other in compared},
    }


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


def describe_blas() -> list[dict[str, Any]]:
    """The matrix libraries that are loaded."""
    import numpy  # noqa: F401  (loads the BLAS that is to be described)
    import torch  # noqa: F401
    from threadpoolctl import threadpool_info

    described = ("user_api", "internal_api", "version", "architecture", "num_threads", "threading_layer")
    return [{key: library.get(key) for key in described} for library in threadpool_info()]


def run(
    sides: Sequence[int],
    counts: Sequence[int],
    *,
    samples: int,
    pause: float,
    memory: bool,
    report: Callable[[str], None],
) -> list[Measurement]:
    """Measure each map size with each number of threads.

    Args:
        sides: map sizes.
        counts: numbers of threads.
        samples: of each case.
        pause: seconds of rest before each call.
        memory: measure peak memory, in a process per case.
        report: called with a line of text as each size begins.

    Raises:
        BenchmarkError: a case's result is not numpy's.
    """
    settings = {"sides": [*sides], "threads": [*counts], "samples": samples, "pause": pause, "blas": describe_blas()}
    common = {"run": Run(settings=settings), "environment": describe_environment()}
    rows: list[Measurement] = []
    for count in counts:
        for size in sides:
            report(f"{size} x {size} positions, {count} thread{'s' if count > 1 else ''}")
            measured = measure(size, count, samples=samples, pause=pause, memory=memory)
            rows += [row.model_copy(update=common) for row in measured]
    return rows
