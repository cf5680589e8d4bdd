"""Peak rates of the processor, measured beside the samples: matrix products and copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

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
        seconds = {"fp32": _best(_product(torch.float32))}
        if torch.backends.mkldnn.is_available():
            seconds["fp32"] = min(seconds["fp32"], _best(_onednn_product()))
        flags = processor_flags()
        if any(flag in flags for flag in ("amx_bf16", "avx512_bf16", "bf16")):
            seconds["bf16"] = _best(_product(torch.bfloat16))
        if any(flag in flags for flag in ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm")):
            seconds["int8"] = _best(_int8_product())
        return {precision: _FLOP / least for precision, least in seconds.items()}
    finally:
        torch.set_num_threads(before)


def measure_copy_rate() -> float:
    """Bytes per second, read and written, of one thread that copies memory; the best of a few."""
    import numpy as np

    source = np.ones(_COPIED // 8)
    target = np.empty_like(source)
    return 2 * _COPIED / _best(lambda: np.copyto(target, source))


def _product(dtype: torch.dtype) -> Callable[[], object]:
    import torch

    left, right = (torch.rand(_SIZE, _SIZE).to(dtype) for _ in range(2))
    return lambda: torch.mm(left, right)


def _onednn_product() -> Callable[[], object]:
    import torch

    left, right = (torch.rand(_SIZE, _SIZE).to_mkldnn() for _ in range(2))
    return lambda: torch.nn.functional.linear(left, right)


def _int8_product() -> Callable[[], object]:
    import torch

    left, right = (torch.randint(-127, 128, (_SIZE, _SIZE), dtype=torch.int8) for _ in range(2))
    return lambda: torch._int_mm(left, right)


def _best(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)
