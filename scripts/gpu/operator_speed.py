"""The mean correlation on a GPU: our kernels against PyTorch materialised, compiled, in tiles, and a Triton kernel.

Each way is a CUDA graph of one call, first held against float64, then timed in turn with the others: warm, many replays
in a row; and cold, one replay after the L2 cache was overwritten. A way that cannot run is a row that says why. Shapes
are those of a network's four stages, each alone, and all four of a clip, in one launch and in turn. Each row has the
GPU's clocks before and after its samples, and why they were lowered meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import measure
import torch
from clocks import Watch
from torch import Tensor

from avsbg.model import mean_correlation, operators_cuda
from avsbg.model.operators import composite

CHANNELS = 128
SIDES = (56, 28, 14, 7)
Means = tuple[Tensor, ...]
Pairs = Sequence[tuple[Tensor, Tensor]]
# Largest error of a mean, relative to the largest mean: ours, with fp32 sums; and rivals, which may round the volume.
BOUNDS = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 1e-5, "bf16": 1e-5}
RIVALS_BOUND = 2e-2
STORAGE = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Inductor tries many kernels for each shape, which takes seconds: it gets the shapes of these numbers of pairs.
COMPILED = (4, 16)


class Way(NamedTuple):
    """A way to compute the means of pairs of tensors; `make` is called late, since it may fail."""

    name: str
    precision: str
    make: Callable[[], Callable[[Pairs], list[Means]]]

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("avsbg")


def materialised(a: Tensor, b: Tensor) -> Means:
    """With the volume in memory, as a user writes it."""
    volume = torch.bmm(a, b.transpose(1, 2)).relu_()
    return volume.mean(2, dtype=torch.float32), volume.mean(1, dtype=torch.float32)


def tiled(a: Tensor, b: Tensor) -> Means:
    """cuBLAS in tiles of the volume that stay in L2 (16 MiB), in the inputs' type."""
    partner = b.transpose(1, 2)
    rows = max(1, 16 * 2**20 // (a.shape[0] * b.shape[1] * a.element_size()))
    means, columns = [], torch.zeros(b.shape[:2], device=b.device)
    for tile in a.split(rows, dim=1):
        volume = torch.bmm(tile, partner).relu_()
        means.append(volume.mean(2, dtype=torch.float32))
        columns += volume.sum(1, dtype=torch.float32)
    return torch.cat(means, 1), columns / a.shape[1]


def composed(a: Tensor, b: Tensor) -> Means:
    """The composite of model/operators.py."""
    with composite():
        return mean_correlation(a, b)


def compiled() -> Callable[[Tensor, Tensor], Means]:
    """`materialised` through Inductor, which may fuse the reductions into one pass over the volume.

    All shapes compile the same function, and after eight of them PyTorch would run it as it is: what was compiled
    before is forgotten, and a function that is not compiled as a whole is an error.
    """
    torch._dynamo.reset()
    return torch.compile(materialised, mode="max-autotune-no-cudagraphs", dynamic=False, fullgraph=True)


def triton_kernel() -> Callable[[Tensor, Tensor], Means]:
    """Fused in Triton: a program owns 128 rows and adds its column sums to memory with atomics."""
    from triton_correlation import fused  # noqa: PLC0415  (Triton is there only with a GPU)

    return fused


def grouped(precision: str, *, with_mean_b: bool = True) -> Callable[[Pairs], list[Means]]:
    """All pairs in one launch of our kernels; both means, or that of a alone."""
    group = operators_cuda.library().mean_correlations
    return partial(group, with_mean_b=with_mean_b, tf32=precision == "tf32")


def in_turn(function: Callable[[Tensor, Tensor], Means]) -> Callable[[Pairs], list[Means]]:
    """One call after the other."""
    return lambda pairs: [function(a, b) for a, b in pairs]


def ways(device: str, n: int) -> Iterator[Way]:
    """Every way to compute one stage."""
    if device == "cuda":
        for precision in STORAGE:
            yield Way("avsbg", precision, lambda: in_turn(mean_correlation))
            yield Way("avsbg, mean_a alone", precision, partial(grouped, precision, with_mean_b=False))
    for precision in ("fp16", "bf16", "tf32") if device == "cuda" else ("fp32",):
        yield Way("materialised", precision, lambda: in_turn(materialised))
        yield Way("tiles in L2", precision, lambda: in_turn(tiled))
    yield Way("composite", "fp32", lambda: in_turn(composed))
    if device == "cuda":
        if n in COMPILED:
            yield Way("torch.compile", "fp16", lambda: in_turn(compiled()))
        yield Way("triton", "fp16", lambda: in_turn(triton_kernel()))


def stage_ways(device: str) -> Iterator[Way]:
    """Ways to compute the four stages of a clip."""
    if device == "cuda":
        for precision in STORAGE:
            yield Way("avsbg, one launch", precision, partial(grouped, precision))
            yield Way("avsbg, mean_a alone, one launch", precision, partial(grouped, precision, with_mean_b=False))
            yield Way("avsbg, in turn", precision, lambda: in_turn(mean_correlation))
    yield Way("materialised, in turn", "fp16" if device == "cuda" else "fp32", lambda: in_turn(materialised))


def relative_error(results: Sequence[Means], pairs: Pairs) -> float:
    """The largest difference from float64, relative to the largest mean of its kind."""
    worst = 0.0
    for means, (a, b) in zip(results, pairs, strict=True):
        for n in range(a.shape[0]):
            volume = (a[n].double() @ b[n].double().T).relu()
            for result, dim in zip(means, (1, 0), strict=False):  # mean_a, and mean_b where it is wanted
                expected = volume.mean(dim)
                worst = max(worst, ((result[n].double() - expected).abs().max() / expected.abs().max()).item())
    return worst


def measure_shape(n: int, sides: Sequence[int], device: str, rounds: int) -> list[dict[str, Any]]:
    """Rows of every way for n pairs of side x side maps, or for n pairs of each side where there are several."""
    operations = sum(2 * n * side**4 * CHANNELS for side in sides)
    generator = torch.Generator(device).manual_seed(0)
    full = [
        [torch.randn(n, side * side, CHANNELS, generator=generator, device=device) for _ in range(2)] for side in sides
    ]
    rows: list[dict[str, Any]] = []
    calls: dict[int, measure.Call] = {}
    for way in ways(device, n) if len(sides) == 1 else stage_ways(device):
        row: dict[str, Any] = {"kind": "operator", "way": way.name, "precision": way.precision, "n": n}
        row["sides"] = list(sides)
        rows.append(row)
        pairs = [(a.to(STORAGE[way.precision]), b.to(STORAGE[way.precision])) for a, b in full]
        try:
            function = way.make()
            torch.set_float32_matmul_precision("high" if way.precision == "tf32" else "highest")
            row["error"] = relative_error(function(pairs), pairs)
            row["is_right"] = row["error"] < (BOUNDS[way.precision] if way.is_ours else RIVALS_BOUND)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                function(pairs)
                row["peak_bytes"] = torch.cuda.max_memory_allocated() - before
                calls[len(rows) - 1] = measure.capture(partial(function, pairs))
            else:
                calls[len(rows) - 1] = partial(function, pairs)
        except Exception as error:  # a rival that fails is a result, and must not take the others along
            row["failed"] = measure.first_line(error)
    torch.set_float32_matmul_precision("highest")
    time_in_turn(rows, calls, device, rounds)
    for row in rows:
        if "warm_us" in row:
            row["tflops"] = operations / row["warm_us"]["p50"] * 1e-6
    return rows


def time_in_turn(rows: list[dict[str, Any]], calls: dict[int, measure.Call], device: str, rounds: int) -> None:
    """Add warm and cold times to the rows, sample by sample in turn, and the GPU's state around them."""
    flush = torch.empty(measure.L2_FLUSH_BYTES, dtype=torch.uint8, device=device) if device == "cuda" else None
    warm: dict[int, list[float]] = {number: [] for number in calls}
    cold: dict[int, list[float]] = {number: [] for number in calls}
    watch = Watch(device)
    watch.begin()
    for _ in range(rounds):
        for number, call in calls.items():
            call()
            warm[number].append(1e3 * measure.milliseconds(call, repeats=20 if device == "cuda" else 1))
            if flush is not None:
                flush.zero_()
                cold[number].append(1e3 * measure.milliseconds(call))
        watch.look()
    state = watch.end()
    for number in calls:
        rows[number].update(state)
        rows[number]["warm_us"] = measure.summary(warm[number])
        if flush is not None:
            rows[number]["cold_us"] = measure.summary(cold[number])


def rates(device: str) -> list[dict[str, Any]]:
    """Peak rates of the GPU by the same clock: cuBLAS on 8192 x 8192, a copy, and an empty graph."""
    if device == "cpu":
        return []
    rows: list[dict[str, Any]] = []
    watch = Watch(device)
    watch.begin()
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))
        torch.mm(a, b)
        taken = min(measure.milliseconds(partial(torch.mm, a, b), repeats=5) for _ in range(5))
        watch.look()
        rows.append({"kind": "rate", "name": f"cuBLAS {name} 8192", "tflops": 2 * 8192**3 / taken * 1e-9})
    source, target = (torch.empty(2**30, dtype=torch.uint8, device=device) for _ in range(2))
    taken = min(measure.milliseconds(lambda: target.copy_(source), repeats=5) for _ in range(5))
    rows.append({"kind": "rate", "name": "copy", "gigabytes_per_second": 2 * 2**30 / taken * 1e-6})
    small = torch.zeros(1, device=device)
    empty = measure.capture(lambda: small.add_(1))
    taken = min(measure.milliseconds(empty, repeats=100) for _ in range(5))
    rows.append({"kind": "rate", "name": "graph of one small kernel", "us": 1e3 * taken})
    state = watch.end()
    return [row | state for row in rows]


def main() -> None:
    """Measure and write the rows."""
    options = measure.parser(__doc__).parse_args()
    # The four stages together come early: they are there where time runs out.
    shapes = [(n, (side,)) for side in SIDES for n in (4, 1, 16)]
    shapes[1:1] = [(4, SIDES), (1, SIDES)]
    if options.quick:
        shapes = [(1, (7,)), (2, (14,)), (1, (7, 14))]
    rows = rates(options.device)
    with torch.inference_mode():
        for n, sides in shapes:
            rows += measure_shape(n, sides, options.device, rounds=3 if options.quick else 20)
            measure.write(options.output, rows)  # what is measured is kept if time runs out


if __name__ == "__main__":
    main()
