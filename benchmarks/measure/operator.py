"""The correlation operator on the CPU, computed in several ways.

All ways to compute it and a large matrix product (sgemm, whose best rate is the machine's practical peak) are sampled
in turn in one process, at the sizes of the network's four stages. Every row keeps its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.measure import operator_cases
from avsbg.benchmarks.measure.operator_cases import FIVE_PRODUCTS, MATERIALISED, OURS, OURS_BF16, random_descriptors
from avsbg.benchmarks.measure.sampling import interleave
from avsbg.benchmarks.results.schema import Measurement, Metric, Run
from avsbg.benchmarks.results.statistics import paired_ratio, summarise
from avsbg.progress import Progress

RESULTS = Path(__file__).parents[1] / "results" / "operator_cpu.jsonl"
SIDES = (56, 28, 14, 7)
PAIRS, CHANNELS = 4, 128
_SGEMM_SIZE = 2048
_SGEMM_FLOP = 2 * _SGEMM_SIZE**3


def measure_operator(
    sides: Sequence[int], threads: Sequence[int], progress: Progress, *, samples: int, pause: float, memory: bool
) -> list[Measurement]:
    """Measure all ways to compute the operator on maps of each side in positions, and sgemm.

    Each call follows `pause` seconds of rest; `memory` measures peak memory, in a process for each way. A
    `BenchmarkError` if the ways disagree.
    """
    settings = {"sides": [*sides], "threads": [*threads], "samples": samples, "pause": pause, "blas": _describe_blas()}
    shared = {"run": Run(settings=settings), "environment": describe_environment()}
    rows = []
    for done, (count, side) in enumerate((count, side) for count in threads for side in sides):
        progress("sizes and numbers of threads", done, len(threads) * len(sides))
        rows += measure_size(side, count, samples=samples, pause=pause, memory=memory)
    return [row.model_copy(update=shared) for row in rows]


def measure_size(side: int, threads: int, *, samples: int, pause: float, memory: bool) -> list[Measurement]:
    """Measure one size on a number of threads; see `measure_operator`."""
    import torch  # noqa: F401  (before its threads are limited)

    a, b = (random_descriptors(PAIRS, side, CHANNELS, seed) for seed in (1, 2))
    five = tuple(random_descriptors(PAIRS + 1, side, CHANNELS, seed) for seed in (1, 2))
    repeats = max(1, SIDES[0] ** 4 // (64 * side**4))
    with operator_cases.limit_threads(threads):
        ways = {name: operator_cases.create(name, side, threads) for name in operator_cases.case_names()}
        _check_agreement({name: compute(a, b) for name, compute in ways.items()})

        def call(name: str) -> Callable[[], object]:
            inputs = five if name == FIVE_PRODUCTS else (a, b)
            return lambda: [ways[name](*inputs) for _ in range(repeats)]

        sgemm = _sgemm_calls()
        times = interleave({name: call(name) for name in ways} | sgemm, warmup=2, samples=samples, pause=pause)
    times |= {name: [seconds / repeats for seconds in times[name]] for name in ways}
    peak = [min(pair) for pair in zip(*(times[name] for name in sgemm), strict=True)]
    rows = []
    for name in times:
        metrics = _metrics(name, times, peak, side)
        case: dict[str, Any] = {"path": None, "threads": threads, "side": side, "pairs": 0, "channels": 0, "repeats": 1}
        if name in ways:
            case |= {"pairs": _pairs(name), "channels": CHANNELS, "repeats": repeats}
        if name in (OURS, OURS_BF16, FIVE_PRODUCTS):
            case["path"] = operator_cases.our_path(name)
        if memory and name in ways and name != FIVE_PRODUCTS:
            size = operator_cases.measure_memory(name, side=side, pairs=PAIRS, channels=CHANNELS, threads=threads)
            metrics["peak_memory"] = Metric(unit="B", value=size)
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
        for mean, wanted in zip(means, expected, strict=False):  # one returns mean_a alone
            error = float(np.abs(np.asarray(mean) - wanted).max())
            if not error <= tolerance:
                raise BenchmarkError(f"{name} differs from numpy by {error:g}, more than {tolerance:g}.")


def _describe_blas() -> list[dict[str, Any]]:
    """The matrix libraries that are loaded."""
    import numpy  # noqa: F401  (loads the BLAS that is to be described)
    import torch  # noqa: F401
    from threadpoolctl import threadpool_info

    described = ("user_api", "internal_api", "version", "architecture", "num_threads", "threading_layer")
    return [{key: library.get(key) for key in described} for library in threadpool_info()]
