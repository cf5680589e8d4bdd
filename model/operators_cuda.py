"""The correlation operators on a GPU: the kernels of libavsbg_cuda on PyTorch's tensors, stream and memory.

`model/operators.py` registers these functions for CUDA; they load the library when the first tensor comes. They
allocate through PyTorch, synchronise nothing, and may be captured in a CUDA graph.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from avsbg.errors import AvsbgError
from avsbg.native_library import NativeLibraryError, native_library

_ABI_VERSION = 1
_DTYPES = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 3}
_TF32 = 1
_ALIGNMENT = 16  # bytes, of descriptors


class OperatorError(AvsbgError, ValueError):
    """The CUDA kernels decline a problem, or fail; the message is the library's."""


class _Problem(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int64) for name in "npqc"), ("dtype", ctypes.c_int32)]


class _Task(ctypes.Structure):
    _fields_ = [
        ("problem", _Problem),
        ("pairs_per_clip", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("a", "b", "mean_a", "mean_b")),
    ]


def uses_tf32() -> bool:
    """Whether the user lets PyTorch round fp32 matrix products to tf32, by whichever of its settings."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


class CudaLibrary:
    """A libavsbg_cuda, called on tensors as `runtime/native/cuda/avsbg_cuda.h` says.

    A build on the emulated CUDA, whose device is the processor, takes tensors of the CPU. It is a `NativeLibraryError`
    if the library cannot be loaded or has another interface.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
            version = self._library.avsbg_cuda_abi_version()
        except (OSError, AttributeError) as error:
            raise NativeLibraryError(
                f"the CUDA kernels cannot be loaded: {error}.", "Build them: make native"
            ) from error
        if version != _ABI_VERSION:
            message = f"{path} has version {version} of its interface, and {_ABI_VERSION} is needed."
            raise NativeLibraryError(message, "Build it again: make native")
        self._library.avsbg_cuda_last_error.restype = ctypes.c_char_p
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._library.avsbg_cuda_workspace_size.argtypes = [pointer, ctypes.c_int32, pointer]
        self._library.avsbg_cuda_mean_correlation.argtypes = [*[pointer] * 7, size, pointer]
        self._library.avsbg_cuda_group_workspace_size.argtypes = [pointer, ctypes.c_int32, ctypes.c_int32, pointer]
        self._library.avsbg_cuda_mean_correlations.argtypes = [pointer, ctypes.c_int32, pointer, pointer, size, pointer]
        self._library.avsbg_cuda_correlation_volume.argtypes = [*[pointer] * 5, ctypes.c_int32, pointer]

    def mean_correlation(self, a: Tensor, b: Tensor, *, tf32: bool = False) -> tuple[Tensor, Tensor]:
        """As `model.operators.mean_correlation`, on the current stream of the tensors' device.

        Args:
            tf32: round fp32 descriptors to tf32; without effect on others.

        Raises:
            OperatorError: the kernels do not take the type or the shape (C is a multiple of 8 from 8 to 512), or the
                device has no such arithmetic.
        """
        problem, a, b = self._prepare(a, b, tf32)
        mean_a, mean_b = (one.new_empty(one.shape[:2], dtype=torch.float32) for one in (a, b))
        bytes_needed = ctypes.c_size_t()
        self._check(self._library.avsbg_cuda_workspace_size(problem, 1, ctypes.byref(bytes_needed)))
        workspace = a.new_empty(bytes_needed.value, dtype=torch.uint8)
        with _on_device_of(a):
            status = self._library.avsbg_cuda_mean_correlation(
                problem, None, *_pointers(a, b, mean_a, mean_b, workspace), workspace.numel(), _stream(a)
            )
        self._check(status)
        return mean_a, mean_b

    def mean_correlations(
        self, pairs: Sequence[tuple[Tensor, Tensor]], *, with_mean_b: bool = True, tf32: bool = False
    ) -> list[tuple[Tensor, ...]]:
        """`mean_correlation` of each of one to four pairs of tensors, all in one launch, as in the TensorRT plugin.

        Args:
            pairs: a and b of each, of one type and device.
            with_mean_b: False leaves `mean_b` out, and its cost.
            tf32: as of `mean_correlation`.

        Raises:
            OperatorError: as of `mean_correlation`, or the library takes no such group.
        """
        prepared = [self._prepare(a, b, tf32) for a, b in pairs]
        means = [
            tuple(one.new_empty(one.shape[:2], dtype=torch.float32) for one in (a, b)[: 1 + with_mean_b])
            for _, a, b in prepared
        ]
        tasks = (_Task * len(prepared))(
            *(
                _Task(problem[0], 0, *_pointers(a, b, *outputs))
                for (problem, a, b), outputs in zip(prepared, means, strict=True)
            )
        )
        bytes_needed, first = ctypes.c_size_t(), prepared[0][1]
        group = (tasks, len(prepared))
        self._check(self._library.avsbg_cuda_group_workspace_size(*group, int(with_mean_b), ctypes.byref(bytes_needed)))
        workspace = first.new_empty(bytes_needed.value, dtype=torch.uint8)
        with _on_device_of(first):
            status = self._library.avsbg_cuda_mean_correlations(
                *group, None, workspace.data_ptr(), workspace.numel(), _stream(first)
            )
        self._check(status)
        return means

    def correlation_volume(self, a: Tensor, b: Tensor, relu: bool = False, *, tf32: bool = False) -> Tensor:
        """As `model.operators.correlation_volume`; arguments and errors as of `mean_correlation`."""
        problem, a, b = self._prepare(a, b, tf32)
        volume = a.new_empty((*a.shape[:2], b.shape[1]), dtype=torch.float32)
        with _on_device_of(a):
            status = self._library.avsbg_cuda_correlation_volume(
                problem, None, *_pointers(a, b, volume), int(relu), _stream(a)
            )
        self._check(status)
        return volume

    def _prepare(self, a: Tensor, b: Tensor, tf32: bool) -> tuple[ctypes.Array[_Problem], Tensor, Tensor]:
        if a.dtype not in _DTYPES:
            raise OperatorError(
                f"the CUDA kernels take float32, float16 and bfloat16, not {str(a.dtype).removeprefix('torch.')}.",
                "The composite takes it: avsbg.model.operators.composite().",
            )
        if a.device != b.device:
            raise OperatorError(f"descriptors must lie on one device, not on {a.device} and {b.device}.")
        dtype = _TF32 if tf32 and a.dtype == torch.float32 else _DTYPES[a.dtype]
        problem = _Problem(a.shape[0], a.shape[1], b.shape[1], a.shape[2], dtype)
        return (_Problem * 1)(problem), _dense(a), _dense(b)

    def _check(self, status: int) -> None:
        if status != 0:
            reason = self._library.avsbg_cuda_last_error().decode(errors="replace")
            raise OperatorError(f"the CUDA kernels cannot compute this: {reason}.")


def _dense(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy where its layout or its start is not what the kernels take."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def _pointers(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _on_device_of(tensor: Tensor) -> torch.cuda.device | nullcontext[None]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _stream(tensor: Tensor) -> int | None:
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else None


@cache
def library() -> CudaLibrary:
    """The library of this installation, loaded once; a `NativeLibraryError` says why it is not there."""
    try:
        return CudaLibrary(native_library("cuda").path)
    except NativeLibraryError as error:
        raise NativeLibraryError(
            f"the correlation operator has no CUDA kernels here: {error.message}",
            f"{error.hint} In a checkout: `make native`. Without them: torch:efficient, or "
            "avsbg.model.operators.composite(), computes with PyTorch's own operators.",
        ) from error


def mean_correlation(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """`CudaLibrary.mean_correlation` of this installation, in tf32 where PyTorch is set to it."""
    return library().mean_correlation(a, b, tf32=uses_tf32())


def correlation_volume(a: Tensor, b: Tensor, relu: bool = False) -> Tensor:
    """`CudaLibrary.correlation_volume` of this installation, in tf32 where PyTorch is set to it."""
    return library().correlation_volume(a, b, relu, tf32=uses_tf32())
