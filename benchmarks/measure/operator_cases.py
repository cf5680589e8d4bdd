"""Ways to compute the mean correlation on a CPU, and the peak memory of each in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.benchmarks.measure.memory import read_memory, reset_peak, run_child, serve_child
from avsbg.runtime.backends.onnxruntime.operator import available_paths, register

Descriptors = NDArray[np.float32]
MeanCorrelation = Callable[[Descriptors, Descriptors], Any]

OURS = "avsbg"
OURS_BF16 = "avsbg, bf16"
FIVE_PRODUCTS = "avsbg, mean_a alone"
# Those that hold the whole volume, and those that hold a part of it at a time.
MATERIALISED = ("numpy", "torch", "onnxruntime")
TILED = ("torch, tiled", "onnxruntime, exported body")

_OPSET = 20


def case_names() -> list[str]:
    """Every way that this machine can run, ours first."""
    bf16 = [OURS_BF16] if any(path.endswith("bf16") for path in available_paths()) else []
    return [OURS, FIVE_PRODUCTS, *bf16, *MATERIALISED, *TILED]


def our_path(name: str) -> str:
    """The instruction set that one of our own runs on this machine."""
    paths = available_paths()
    return next(path for path in paths if path.endswith("bf16")) if name == OURS_BF16 else paths[0]


def create(name: str, side: int, threads: int) -> MeanCorrelation:
    """A way to compute maps of `side` times `side` positions, on that many threads.

    It takes `a [N, P, C]` and `b [N, Q, C]` and returns both means, except `FIVE_PRODUCTS`. PyTorch's and BLAS's
    threads are those of the process: `limit_threads` sets them.
    """
    if name in (OURS, OURS_BF16, FIVE_PRODUCTS):
        outputs = ["mean_a"] if name == FIVE_PRODUCTS else ["mean_a", "mean_b"]
        return _onnxruntime(threads, outputs, path=our_path(name))
    if name == "onnxruntime":
        return _onnxruntime(threads, ["mean_a", "mean_b"], blocks=1)
    if name == "onnxruntime, exported body":
        from avsbg.export.operators import row_blocks

        return _onnxruntime(threads, ["mean_a", "mean_b"], blocks=row_blocks(side * side))
    return {"numpy": _numpy, "torch": _torch, "torch, tiled": _torch_tiled}[name]


def limit_threads(threads: int) -> ExitStack:
    """Give BLAS (numpy) and, once it is imported, PyTorch that many threads until the returned stack is closed."""
    from threadpoolctl import threadpool_limits

    stack = ExitStack()
    stack.enter_context(threadpool_limits(threads))
    if torch := sys.modules.get("torch"):
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
    return stack


def _numpy(a: Descriptors, b: Descriptors) -> tuple[Descriptors, Descriptors]:
    volume = np.matmul(a, b.transpose(0, 2, 1))
    np.maximum(volume, 0, out=volume)
    return volume.mean(axis=2), volume.mean(axis=1)


def _torch(a: Descriptors, b: Descriptors) -> tuple[Any, Any]:
    import torch

    with torch.inference_mode():
        volume = torch.bmm(torch.from_numpy(a), torch.from_numpy(b).transpose(1, 2)).relu_()
        return volume.mean(dim=2), volume.mean(dim=1)


def _torch_tiled(a: Descriptors, b: Descriptors) -> tuple[Any, Any]:
    import torch

    from avsbg.model.operators import mean_correlation

    with torch.inference_mode():
        return mean_correlation(torch.from_numpy(a), torch.from_numpy(b))


def _onnxruntime(threads: int, outputs: list[str], *, path: str | None = None, blocks: int = 0) -> MeanCorrelation:
    """A session on one node: with our library if `path` is given, else on its body of standard operators."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    from avsbg.export.operators import DOMAIN, DOMAIN_VERSION, mean_correlation_body

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", positions, "C"])
        for name, positions in (("a", "P"), ("b", "Q"))
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    node = helper.make_node("MeanCorrelation", ["a", "b"], outputs, domain=DOMAIN)
    model = helper.make_model(
        helper.make_graph([node], "operator", inputs, results),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)],
        functions=[] if path else [mean_correlation_body(_OPSET, blocks)],
    )
    model.ir_version = onnx.IR_VERSION_2024_3_25  # what the oldest supported onnxruntime reads
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Its threads would go on spinning into the time of the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if path:
        register(options, path)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda a, b: session.run(outputs, {"a": a, "b": b})


def random_descriptors(pairs: int, side: int, channels: int, seed: int) -> Descriptors:
    """Normally distributed float32 `[pairs, side * side, channels]`."""
    return np.random.default_rng(seed).standard_normal((pairs, side * side, channels), dtype=np.float32)


def measure_memory(name: str, *, side: int, pairs: int, channels: int, threads: int) -> int:
    """Bytes that the process needs beyond its libraries and inputs at the peak of one call; outputs count."""
    task = {"name": name, "side": side, "pairs": pairs, "channels": channels, "threads": threads}
    return run_child("avsbg.benchmarks.measure.operator_cases", task, name)["peak"]


def _run_case(name: str, side: int, pairs: int, channels: int, threads: int) -> dict[str, int | None]:
    """The child's work."""
    if name.startswith("torch"):
        import torch  # noqa: F401  (before its threads are limited)
    with limit_threads(threads):
        a, b = (random_descriptors(pairs, side, channels, seed) for seed in (1, 2))
        compute = create(name, side, threads)
        compute(a[:1, :49], b[:1, :49])  # what is loaded or started at the first call
        reset_peak()
        before = read_memory("VmRSS")
        compute(a, b)
        return {"peak": read_memory("VmHWM") - before}


if __name__ == "__main__":
    serve_child(_run_case)
