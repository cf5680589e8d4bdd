"""Peak memory of one case, measured in a process of its own: rows that share a process cannot be told apart.

The figures are the kernel's, of that process: VmRSS and VmHWM in /proc/self/status. (`ru_maxrss` would not do: it
survives exec, so a child starts with its parent's peak.) The peak is reset between loading and running, so that a
loader that holds the weights twice for a moment does not pass for the network's need.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avsbg.benchmarks.errors import BenchmarkError

if TYPE_CHECKING:
    from avsbg.benchmarks.measure.cases import BenchmarkCase
    from avsbg.benchmarks.measure.workloads import Workload
    from avsbg.benchmarks.results.schema import Metric

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")  # writing 5 sets VmHWM to what is resident now
_SOURCE = "VmRSS and VmHWM of /proc/self/status"
_RESULT = "avsbg-memory: "  # an engine may print lines of its own


def read_memory(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes in memory now (VmRSS), or at the most since `reset_peak` (VmHWM); a `BenchmarkError` if it is unknown."""
    lines = _STATUS.read_text(encoding="ascii").splitlines() if _STATUS.exists() and _RESET.exists() else []
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024  # the file has kB
    message = f"memory is read through {_STATUS} and {_RESET}, which this system lacks."
    raise BenchmarkError(message, "Measure on Linux, or use --no-memory.")


def reset_peak() -> None:
    """Let the peak begin again with what is in memory now."""
    _RESET.write_text("5", encoding="ascii")


def run_child(module: str, task: Mapping[str, Any], label: str) -> dict[str, int]:
    """Run a module, whose end is `serve_child`, for `label` in a fresh process, and return the bytes it counted."""
    process = subprocess.run(
        [sys.executable, "-m", module], input=json.dumps(task), capture_output=True, text=True, check=False
    )
    results = [line for line in process.stdout.splitlines() if line.startswith(_RESULT)]
    if process.returncode or not results:
        last = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
        what = f"the process that measures the memory of {label}"
        if process.returncode < 0:
            raise BenchmarkError(
                f"{what} was ended by signal {-process.returncode}: {last}",
                "Signal 9 is how a system that runs out of memory ends a process; --no-memory leaves this out.",
            )
        raise BenchmarkError(f"{what} failed: {last}", "--no-memory leaves this measurement out.")
    sizes: dict[str, int] = json.loads(results[-1].removeprefix(_RESULT))
    return sizes


def serve_child(function: Callable[..., Mapping[str, int | None]]) -> None:
    """Call a function with the task on standard input, and write the sizes that it returns on standard output."""
    sizes = function(**json.load(sys.stdin))
    print(_RESULT + json.dumps({name: size for name, size in sizes.items() if size is not None}))


def measure_memory(case: BenchmarkCase, workload: Workload, *, runs: int = 3) -> dict[str, Metric]:
    """Load and run a case in a fresh process, and measure the memory that the process needs.

    Bytes: `imported_memory` once our own code is loaded, `loaded_memory` with the backend open, `load_peak_memory` the
    most until then, `peak_memory` the most while running; `gpu_memory` at the end, where NVML says it.
    """
    from avsbg.benchmarks.results.schema import Metric

    read_memory("VmHWM")  # refused here where the system cannot say it
    task = {
        "label": case.label,
        "bundle": str(case.bundle.path),
        "backend": case.backend,
        "options": case.options,
        "workload": asdict(workload) | {"video": str(workload.video) if workload.video else None},
        "runs": runs,
    }
    sizes = run_child("avsbg.benchmarks.measure.memory", task, case.label)
    return {f"{name}_memory": Metric(unit="B", value=size, source=_SOURCE) for name, size in sizes.items()}


def _run_case(
    *, label: str, bundle: str, backend: str, options: dict[str, Any], workload: dict[str, Any], runs: int
) -> dict[str, int | None]:
    """The child's work."""
    from avsbg.benchmarks.measure.cases import BenchmarkCase
    from avsbg.benchmarks.measure.workloads import Workload
    from avsbg.runtime.bundle import Bundle

    work = Workload(**workload | {"video": Path(workload["video"]) if workload["video"] else None})
    imported = read_memory("VmRSS")
    with BenchmarkCase(label, Bundle.open(Path(bundle)), backend, options).create() as opened:
        call = work.prepare(opened)
        gc.collect()
        loaded = read_memory("VmRSS")
        load_peak = read_memory("VmHWM")  # after it: what collecting touches counts for both, so the peak is no less
        reset_peak()
        for _ in range(runs):
            call()
        peak = {"load_peak": load_peak, "peak": read_memory("VmHWM")}
        return {"imported": imported, "loaded": loaded, **peak, "gpu": _gpu_memory()}


def _gpu_memory() -> int | None:
    """The share of the first GPU's memory that this process holds; None where NVML cannot say."""
    from avsbg.benchmarks.machine.sensors import find_nvml

    if (nvml := find_nvml()) is None:
        return None
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(0))
    return next((process.usedGpuMemory for process in processes if process.pid == os.getpid()), None)


def main() -> None:
    """Serve as the child."""
    serve_child(_run_case)


if __name__ == "__main__":
    main()
