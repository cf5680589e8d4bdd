"""Common parts of the programs of this folder: times by events on a GPU, by the clock on a processor; JSON Lines.

They need PyTorch and this checkout alone, and run on a processor too, so that they are known to work before a GPU is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], Any]
L2_FLUSH_BYTES = 256 * 2**20  # more than any L2 holds


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all of them take."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("-o", "--output", type=Path, required=True, help="the rows, as JSON Lines; replaced")
    made.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    made.add_argument("--quick", action="store_true", help="small shapes and few samples: does it run at all?")
    return made


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows, and say on standard output what they are."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        print(json.dumps(row))


def capture(call: Call) -> Call:
    """The call as a CUDA graph: what it costs the GPU, without what it costs Python."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def milliseconds(call: Call, *, repeats: int = 1) -> float:
    """The time of one call, the mean of `repeats` in a row."""
    if not torch.cuda.is_available():
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        return 1e3 * (time.perf_counter() - began) / repeats
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def summary(samples: list[float]) -> dict[str, Any]:
    """Median and 90th percentile, in the samples' unit, how many there are, and each in the order it was taken."""
    ordered = sorted(samples)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return {"p50": statistics.median(ordered), "p90": p90, "samples": len(ordered), "each": samples}


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
