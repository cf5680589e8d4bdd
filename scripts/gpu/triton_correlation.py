"""The mean correlation as a Triton kernel: a baseline, written as a user of Triton would."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _COLUMNS = 128, 64


@triton.jit
def _correlate(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    a, b, mean_a, mean_b, p, q, channels: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr
):
    pair = tl.program_id(1)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    channel = tl.arange(0, channels)
    left = tl.load(a + (pair * p + row[:, None]) * channels + channel[None, :], mask=row[:, None] < p, other=0.0)
    sums = tl.zeros((rows,), tl.float32)
    for start in range(0, q, columns):
        column = start + tl.arange(0, columns)
        right = tl.load(
            b + (pair * q + column[None, :]) * channels + channel[:, None], mask=column[None, :] < q, other=0.0
        )
        product = tl.maximum(tl.dot(left, right), 0.0)
        sums += tl.sum(product, 1)
        tl.atomic_add(mean_b + pair * q + column, tl.sum(product, 0) / p, mask=column < q)
    tl.store(mean_a + pair * p + row, sums / q, mask=row < p)


def fused(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Means of `relu(<a, b>)` over either side, fp32; a [N, P, C] and b [N, Q, C] dense, C a power of two."""
    n, p, channels = a.shape
    q = b.shape[1]
    mean_a = torch.empty((n, p), device=a.device, dtype=torch.float32)
    mean_b = torch.zeros((n, q), device=a.device, dtype=torch.float32)
    grid = (triton.cdiv(p, _ROWS), n)
    _correlate[grid](a, b, mean_a, mean_b, p, q, channels, _ROWS, _COLUMNS, num_warps=4, num_stages=3)
    return mean_a, mean_b
