"""Ways to compute the mean correlation on a CPU, and the peak memory of each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.benchmarks.errors import BenchmarkError

Descriptors = NDArray[np.float32]
BenchmarkCase = Callable[[Descriptors, Descriptors], Any]

OURS = "avsbg"
OURS_BF16 = "avsbg, bf16"
FIVE_PRODUCTS = "avsbg, mean_a alone"
# Forms that hold the whole volume, and those that hold a part of it at a time.
MATERIALISED = ("numpy", "torch", "onnxruntime")
TILED = ("torch, tiled", "onnxruntime, exported body")

_OPSET = 20
_STATUS = Path("/proc/self/status")


def contender_names() -> list[str]:
    """Every contender that this machine can run, ours first."""
    from avsbg.runtime.backends.onnxruntime.operator import available_paths

    bf16 = [OURS_BF16] if any(path.endswith("bf16") for path in available_paths()) else []
    return [OURS, FIVE_PRODUCTS, *bf16, *MATERIALISED, *TILED]


def our_path(name: str) -> str:
    """The instruction set that one of our contenders runs on this machine."""
    from avsbg.runtime.backends.onnxruntime.operator import available_paths

    paths = available_paths()
    return next(path for path in paths if path.endswith("bf16")) if name == OURS_BF16 else paths[0]


def create(name: str, side: int, threads: int) -> BenchmarkCase:
    """A contender for maps of `side` times `side` positions, on that many threads.

    It takes `a [N, P, C]` and `b [N, Q, C]` and returns both means, except `FIVE_PRODUCTS`. PyTorch's and BLAS's
    threads are those of the process: `limit_threads` sets them.
    """
    if name in (OURS, OURS_BF16):
        return _onnxruntime(threads, ["mean_a", "mean_b"], path=our_path(name))
    if name == FIVE_PRODUCTS:
        return _onnxruntime(threads, ["mean_a"], path=our_path(name))
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


def _onnxruntime(threads: int, outputs: list[str], *, path: str | None = None, blocks: int = 0) -> BenchmarkCase:
    """A session on one node: with our library if `path` is given, else on its body of standard operators."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    from avsbg.export.operators import DOMAIN, DOMAIN_VERSION, mean_correlation_body
    from avsbg.runtime.backends.onnxruntime.operator import register

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
    # Its threads would go on spinning into the time of the next contender.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if path:
        register(options, path)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda a, b: session.run(outputs, {"a": a, "b": b})


# ---- peak memory ----------------------------------------------------------------------------------------------------


def measure_memory(name: str, *, side: int, pairs: int, channels: int, threads: int) -> int:
    """Bytes that the process needs beyond its libraries and inputs at the peak of one call; outputs count.

    Raises:
        BenchmarkError: the process failed, or this system does not tell a process its peak.
    """
    task = {"name": name, "side": side, "pairs": pairs, "channels": channels, "threads": threads}
    command = [sys.executable, "-m", "avsbg.benchmarks.measure.operator_cases", json.dumps(task)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchmarkError(
            f"the process that measures the memory of {name} failed with exit code {process.returncode}: {last}",
            "--no-memory leaves this measurement out.",
        )
    return int(process.stdout.split()[-1])


def random_descriptors(pairs: int, side: int, channels: int, seed: int) -> Descriptors:
    return np.random.default_rng(seed).standard_normal((pairs, side * side, channels), dtype=np.float32)


def _child(name: str, side: int, pairs: int, channels: int, threads: int) -> int:
    if name.startswith("torch"):
        import torch  # noqa: F401  (before its threads are limited)
    with limit_threads(threads):
        a, b = (random_descriptors(pairs, side, channels, seed) for seed in (1, 2))
        contender = create(name, side, threads)
        contender(a[:1, :49], b[:1, :49])  # what is loaded or started at the first call
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here
        before = _status("VmRSS")
        contender(a, b)
        return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")


if __name__ == "__main__":
    print(_child(**json.loads(sys.argv[1])))
