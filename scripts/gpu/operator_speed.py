"""The mean correlation on a GPU: our kernels against PyTorch materialised, compiled, in tiles, and a Triton kernel.

Each way is a CUDA graph of one call, first held against float64, then timed in turn with the others: warm, many replays
in a row; and cold, one replay after the L2 cache was overwritten. A way that cannot run is a row that says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import measure
import torch
from torch import Tensor

from avsbg.model import mean_correlation
from avsbg.model.operators import composite

CHANNELS = 128
Means = tuple[Tensor, Tensor]
# Largest error of a mean, relative to the largest mean: ours, with fp32 sums; and rivals, which may round the volume.
BOUNDS = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 1e-5, "bf16": 1e-5}
RIVALS_BOUND = 2e-2
STORAGE = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


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


def compiled() -> Any:
    """`materialised` through Inductor, which may fuse the reductions into one pass over the volume."""
    return torch.compile(materialised, mode="max-autotune-no-cudagraphs", dynamic=False)


def ways(device: str) -> Iterator[tuple[str, str, Any]]:
    """Names, precisions and what makes the function; made late, since making may fail."""
    if device == "cuda":
        for precision in STORAGE:
            yield "avsbg", precision, lambda: mean_correlation
    for precision in ("fp16", "bf16", "tf32") if device == "cuda" else ("fp32",):
        yield "materialised", precision, lambda: materialised
        yield "tiles in L2", precision, lambda: tiled
    yield "composite", "fp32", lambda: composed
    if device == "cuda":
        yield "torch.compile", "fp16", compiled
        yield "triton", "fp16", triton_kernel


def triton_kernel() -> Any:
    """Fused in Triton: a program owns 128 rows and adds its column sums to memory with atomics."""
    from triton_correlation import fused  # noqa: PLC0415  (Triton is there only with a GPU)

    return fused


def relative_error(results: Means, a: Tensor, b: Tensor) -> float:
    """The largest difference from float64, relative to the largest mean."""
    worst = 0.0
    for n in range(a.shape[0]):
        volume = (a[n].double() @ b[n].double().T).relu()
        for result, dim in zip(results, (1, 0), strict=True):
            expected = volume.mean(dim)
            worst = max(worst, ((result[n].double() - expected).abs().max() / expected.abs().max()).item())
    return worst


def measure_shape(n: int, side: int, device: str, rounds: int) -> list[dict[str, Any]]:
    """Rows of every way for n pairs of side x side maps."""
    positions = side * side
    operations = 2 * n * positions * positions * CHANNELS
    generator = torch.Generator(device).manual_seed(0)
    full = [torch.randn(n, positions, CHANNELS, generator=generator, device=device) for _ in range(2)]
    rows: list[dict[str, Any]] = []
    calls: dict[int, measure.Call] = {}
    for name, precision, make in ways(device):
        row: dict[str, Any] = {"kind": "operator", "way": name, "precision": precision, "n": n, "side": side}
        rows.append(row)
        a, b = (one.to(STORAGE[precision]) for one in full)
        try:
            function = make()
            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
            row["error"] = relative_error(function(a, b), a, b)
            row["is_right"] = row["error"] < (BOUNDS[precision] if name == "avsbg" else RIVALS_BOUND)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                function(a, b)
                row["peak_bytes"] = torch.cuda.max_memory_allocated() - before
                calls[len(rows) - 1] = measure.capture(partial(function, a, b))
            else:
                calls[len(rows) - 1] = partial(function, a, b)
        except Exception as error:  # a rival that fails is a result, and must not take the others along
            row["failed"] = measure.first_line(error)
    torch.set_float32_matmul_precision("highest")
    time_in_turn(rows, calls, device, rounds)
    for row in rows:
        if "warm_us" in row:
            row["tflops"] = operations / row["warm_us"]["p50"] * 1e-6
    return rows


def time_in_turn(rows: list[dict[str, Any]], calls: dict[int, measure.Call], device: str, rounds: int) -> None:
    """Add warm and cold times to the rows, sample by sample in turn."""
    flush = torch.empty(measure.L2_FLUSH_BYTES, dtype=torch.uint8, device=device) if device == "cuda" else None
    warm: dict[int, list[float]] = {number: [] for number in calls}
    cold: dict[int, list[float]] = {number: [] for number in calls}
    for _ in range(rounds):
        for number, call in calls.items():
            call()
            warm[number].append(1e3 * measure.milliseconds(call, repeats=20 if device == "cuda" else 1))
            if flush is not None:
                flush.zero_()
                cold[number].append(1e3 * measure.milliseconds(call))
    for number in calls:
        rows[number]["warm_us"] = measure.summary(warm[number])
        if flush is not None:
            rows[number]["cold_us"] = measure.summary(cold[number])


def rates(device: str) -> list[dict[str, Any]]:
    """Peak rates of the GPU by the same clock: cuBLAS on 8192 x 8192, a copy, and an empty graph."""
    if device == "cpu":
        return []
    rows: list[dict[str, Any]] = []
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))
        torch.mm(a, b)
        taken = min(measure.milliseconds(partial(torch.mm, a, b), repeats=5) for _ in range(5))
        rows.append({"kind": "rate", "name": f"cuBLAS {name} 8192", "tflops": 2 * 8192**3 / taken * 1e-9})
    source, target = (torch.empty(2**30, dtype=torch.uint8, device=device) for _ in range(2))
    taken = min(measure.milliseconds(lambda: target.copy_(source), repeats=5) for _ in range(5))
    rows.append({"kind": "rate", "name": "copy", "gigabytes_per_second": 2 * 2**30 / taken * 1e-6})
    small = torch.zeros(1, device=device)
    empty = measure.capture(lambda: small.add_(1))
    taken = min(measure.milliseconds(empty, repeats=100) for _ in range(5))
    return [*rows, {"kind": "rate", "name": "graph of one small kernel", "us": 1e3 * taken}]


def main() -> None:
    """Measure and write the rows."""
    options = measure.parser(__doc__).parse_args()
    shapes = [(1, 7), (2, 14)] if options.quick else [(n, side) for side in (56, 28, 14, 7) for n in (4, 1, 16)]
    rows = rates(options.device)
    with torch.inference_mode():
        for n, side in shapes:
            rows += measure_shape(n, side, options.device, rounds=3 if options.quick else 20)
            measure.write(options.output, rows)  # what is measured is kept if time runs out


if __name__ == "__main__":
    main()
