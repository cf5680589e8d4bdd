"""Peak rates of the processor, measured beside the samples: matrix products and copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

_SIZE = 2048
_FLOP = 2 * _SIZE**3
_COPIED = 128 * 2**20  # bytes; beyond any cache
_REPEATS = 6


def measure_matrix_rates(threads: int) -> dict[str, float]:
    """Operations per second of a matrix product of 2048 x 2048, the best of a few calls, by precision.

    The faster of the two libraries that PyTorch has for it in fp32: its BLAS, which on some processors leaves half of
    their vector units unused, and oneDNN. bf16 and int8 only where the processor computes in it; without PyTorch
    nothing.
    """
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    from avsbg.benchmarks.machine.environment import processor_flags

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pair, flags = [torch.rand(_SIZE, _SIZE) for _ in range(2)], processor_flags()
        seconds = {"fp32": _best(partial(torch.mm, *pair))}
        if torch.backends.mkldnn.is_available():
            packed = [one.to_mkldnn() for one in pair]
            seconds["fp32"] = min(seconds["fp32"], _best(partial(torch.nn.functional.linear, *packed)))
        if any(flag in flags for flag in ("amx_bf16", "avx512_bf16", "bf16")):
            seconds["bf16"] = _best(partial(torch.mm, *(one.to(torch.bfloat16) for one in pair)))
        if any(flag in flags for flag in ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm")):
            whole = [torch.randint(-127, 128, (_SIZE, _SIZE), dtype=torch.int8) for _ in range(2)]
            seconds["int8"] = _best(partial(torch._int_mm, *whole))
        return {precision: _FLOP / least for precision, least in seconds.items()}
    finally:
        torch.set_num_threads(before)


def measure_copy_rate() -> float:
    """Bytes per second, read and written, of one thread that copies memory; the best of a few."""
    import numpy as np

    source = np.ones(_COPIED // 8)
    target = np.empty_like(source)
    return 2 * _COPIED / _best(lambda: np.copyto(target, source))


def _best(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)
