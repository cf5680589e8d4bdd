"""The definition of the two correlation operators, as `torch.library` operators with gradients.

Every other implementation (ONNX function body, ONNX Runtime operator, TensorRT plugin) is tested against these. They
work on sets of descriptors: rows are positions, channels last. The 4D correlation volume of two frames,
`volume[n, p, q] = <a[n, p], b[n, q]>`, is what the paper's equation 2 calls Corr(Z_t, Z_t+1); the network needs only
its mean after the ReLU, so neither the forward nor the backward of `mean_correlation` ever holds all of it.

What stands here is the composite, made of PyTorch's own operators: the CPU's implementation, the reference, and every
device's backward. On a GPU the forward is our CUDA kernels (`operators_cuda.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from avsbg.model import operators_cuda

# Elements of the volume held at once: 2**22 fp32 values are 16 MB, small enough for a last-level cache and large
# enough that the matrix products run at full speed.
_TILE_ELEMENTS = 2**22


def _check(a: Tensor, b: Tensor) -> None:
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[2]:
        raise ValueError(
            "descriptors must be a [N, P, C] and b [N, Q, C] with equal N and C, "
            f"not {list(a.shape)} and {list(b.shape)}"
        )
    if a.dtype != b.dtype or not a.is_floating_point():
        raise TypeError(f"descriptors must share one floating-point type, not {a.dtype} and {b.dtype}")


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """Sums are held in fp32 whatever the input; float64 stays float64, for references."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _row_tile(a: Tensor, b: Tensor) -> int:
    return max(1, _TILE_ELEMENTS // max(1, a.shape[0] * b.shape[1]))


@torch.library.custom_op("avsbg::mean_correlation", mutates_args=())
def mean_correlation(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the rectified correlation volume over either side, without the volume.

    Args:
        a: descriptors `[N, P, C]` of one frame of each of N pairs.
        b: descriptors `[N, Q, C]` of its partner.

    Returns:
        `mean_a [N, P]`, the mean over q of `relu(<a[n, p], b[n, q]>)`, and `mean_b [N, Q]`, the mean over p of the
        same; fp32 (float64 for float64 input). A NaN in a product reaches both means; P and Q are at least 1.

    Raises:
        ValueError: the shapes do not fit, or the CUDA kernels decline them. TypeError: the types differ or are not
            floating-point. NativeLibraryError: on a GPU, the kernels were not built.
    """
    _check(a, b)
    dtype = _accumulator(a.dtype)
    a, b = a.to(dtype), b.to(dtype)
    partner = b.transpose(1, 2)
    rows, columns = [], torch.zeros(b.shape[:2], dtype=dtype, device=b.device)
    for tile in a.split(_row_tile(a, b), dim=1):
        volume = torch.bmm(tile, partner).relu_()
        rows.append(volume.mean(dim=2))
        columns += volume.sum(dim=1)
    return torch.cat(rows, dim=1), columns / a.shape[1]


@mean_correlation.register_fake
def _(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    _check(a, b)
    dtype = _accumulator(a.dtype)
    return a.new_empty(a.shape[:2], dtype=dtype), b.new_empty(b.shape[:2], dtype=dtype)


@torch.library.custom_op("avsbg::mean_correlation_backward", mutates_args=())
def mean_correlation_backward(a: Tensor, b: Tensor, grad_a: Tensor, grad_b: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `mean_correlation`, recomputing the volume tile by tile.

    With s = <a_p, b_q> and g_pq = grad_a[p] / Q + grad_b[q] / P where s > 0, else 0:
    d a_p = sum over q of g_pq b_q, d b_q = sum over p of g_pq a_p.
    """
    dtype = _accumulator(a.dtype)
    left, right = a.to(dtype), b.to(dtype)
    partner = right.transpose(1, 2)
    from_columns = (grad_b.to(dtype) / a.shape[1]).unsqueeze(1)
    from_rows = (grad_a.to(dtype) / b.shape[1]).unsqueeze(2)
    left_gradient, right_gradient = [], torch.zeros_like(right)
    tile_rows = _row_tile(a, b)
    for tile, row_gradient in zip(left.split(tile_rows, dim=1), from_rows.split(tile_rows, dim=1), strict=True):
        gradient = (row_gradient + from_columns) * (torch.bmm(tile, partner) > 0)
        left_gradient.append(torch.bmm(gradient, right))
        right_gradient += torch.bmm(gradient.transpose(1, 2), tile)
    return torch.cat(left_gradient, dim=1).to(a.dtype), right_gradient.to(b.dtype)


@mean_correlation_backward.register_fake
def _(a: Tensor, b: Tensor, grad_a: Tensor, grad_b: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return torch.empty_like(a), torch.empty_like(b)


def _save_descriptors(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _mean_correlation_gradient(ctx, grad_a, grad_b):  # type: ignore[no-untyped-def]
    a, b = ctx.saved_tensors
    dtype = _accumulator(a.dtype)
    grad_a = a.new_zeros(a.shape[:2], dtype=dtype) if grad_a is None else grad_a
    grad_b = b.new_zeros(b.shape[:2], dtype=dtype) if grad_b is None else grad_b
    return mean_correlation_backward(a, b, grad_a, grad_b)


mean_correlation.register_autograd(_mean_correlation_gradient, setup_context=_save_descriptors)


@torch.library.custom_op("avsbg::correlation_volume", mutates_args=())
def correlation_volume(a: Tensor, b: Tensor, relu: bool = False) -> Tensor:
    """The correlation volume itself, for those who look at it: `[N, P, Q]`, viewed as `[N, H, W, H, W]` by the caller.

    It holds `<a[n, p], b[n, q]>`, with `relu` negative entries set to 0. Arguments, type of the result and errors: as
    of `mean_correlation`.
    """
    _check(a, b)
    dtype = _accumulator(a.dtype)
    volume = torch.bmm(a.to(dtype), b.to(dtype).transpose(1, 2))
    return volume.relu_() if relu else volume


@correlation_volume.register_fake
def _(a: Tensor, b: Tensor, relu: bool = False) -> Tensor:  # noqa: ARG001
    _check(a, b)
    return a.new_empty((a.shape[0], a.shape[1], b.shape[1]), dtype=_accumulator(a.dtype))


def _save_volume(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    a, b, relu = inputs
    ctx.relu = relu
    ctx.save_for_backward(a, b, output)


def _correlation_volume_gradient(ctx, gradient):  # type: ignore[no-untyped-def]
    a, b, volume = ctx.saved_tensors
    if ctx.relu:
        gradient = gradient * (volume > 0)
    gradient_a = torch.bmm(gradient, b.to(gradient.dtype))
    gradient_b = torch.bmm(gradient.transpose(1, 2), a.to(gradient.dtype))
    return gradient_a.to(a.dtype), gradient_b.to(b.dtype), None


correlation_volume.register_autograd(_correlation_volume_gradient, setup_context=_save_volume)


@mean_correlation.register_kernel("cuda")
def _(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    _check(a, b)
    return operators_cuda.mean_correlation(a, b)


@correlation_volume.register_kernel("cuda")
def _(a: Tensor, b: Tensor, relu: bool = False) -> Tensor:
    _check(a, b)
    return operators_cuda.correlation_volume(a, b, relu)


@contextmanager
def composite() -> Iterator[None]:
    """Within it, the composite computes on GPUs too, in every thread: the reference, in float64 as well."""
    with (
        mean_correlation.set_kernel_enabled("cuda", enabled=False),
        correlation_volume.set_kernel_enabled("cuda", enabled=False),
    ):
        yield
