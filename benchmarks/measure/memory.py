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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from avsbg.benchmarks.errors import BenchmarkError

if TYPE_CHECKING:
    from avsbg.benchmarks.measure.cases import BenchmarkCase
    from avsbg.benchmarks.measure.workloads import Workload
    from avsbg.benchmarks.results.schema import Metric

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")  # writing 5 sets VmHWM to what is resident now
_SOURCE = "VmRSS and VmHWM of /proc/self/status"
_RESULT = "avsbg-memory: "  # an engine may print lines of its own


def measure_memory(case: BenchmarkCase, workload: Workload, *, runs: int = 3) -> dict[str, Metric]:
    """Load and run a case in a fresh process, and measure the memory that the process needs.

    Args:
        case: what to measure.
        workload: what it runs.
        runs: how often.

    Returns:
        Bytes: `imported_memory` once our own code is loaded, `loaded_memory` with the backend open, `load_peak_memory`
        the most until then, `peak_memory` the most while running; `gpu_memory` at the end, where NVML says it.

    Raises:
        BenchmarkError: the process failed, or the system does not give these figures.
    """
    from avsbg.benchmarks.results.schema import Metric

    for path in (_STATUS, _RESET):
        if not path.exists():
            raise BenchmarkError(f"peak memory is read through {path}, which this system lacks.", "Use --no-memory.")
    task = {
        "label": case.label,
        "bundle": str(case.bundle.path),
        "backend": case.backend,
        "options": case.options,
        "workload": asdict(workload) | {"video": str(workload.video) if workload.video else None},
        "runs": runs,
    }
    process = subprocess.run(
        [sys.executable, "-m", "avsbg.benchmarks.measure.memory"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    results = [line for line in process.stdout.splitlines() if line.startswith(_RESULT)]
    if process.returncode or not results:
        last = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
        what = f"the process that measures the memory of {case.label}"
        if process.returncode < 0:
            raise BenchmarkError(
                f"{what} was ended by signal {-process.returncode}: {last}",
                "Signal 9 is how a system that runs out of memory ends a process; --no-memory leaves this out.",
            )
        raise BenchmarkError(f"{what} failed: {last}")
    sizes: dict[str, int] = json.loads(results[-1].removeprefix(_RESULT))
    return {name: Metric(unit="B", value=size, source=_SOURCE) for name, size in sizes.items()}


def main() -> None:
    """The child: read a task from standard input, write the result as a line on standard output."""
    from avsbg.benchmarks.measure.cases import BenchmarkCase
    from avsbg.benchmarks.measure.workloads import Workload
    from avsbg.runtime.bundle import Bundle

    task = json.load(sys.stdin)
    workload = dict(task["workload"])
    video = workload.pop("video")
    work = Workload(**workload, video=Path(video) if video else None)
    imported = _resident("VmRSS")
    bundle = Bundle.open(Path(task["bundle"]))
    with BenchmarkCase(task["label"], bundle, task["backend"], task["options"]).create() as backend:
        call = work.prepare(backend)
        gc.collect()
        loaded = _resident("VmRSS")
        load_peak = _resident("VmHWM")  # read after it: what collecting touches counts for both, so the peak is no less
        _RESET.write_text("5", encoding="ascii")
        for _ in range(task["runs"]):
            call()
        peak = _resident("VmHWM")
        gpu = _gpu_memory()
    sizes = {"imported": imported, "loaded": loaded, "load_peak": load_peak, "peak": peak, "gpu": gpu}
    print(_RESULT + json.dumps({f"{name}_memory": size for name, size in sizes.items() if size is not None}))


def _gpu_memory() -> int | None:
    """What this process holds of the first GPU's memory; None where NVML cannot say."""
    from avsbg.benchmarks.machine.sensors import find_nvml

    nvml = find_nvml()
    if nvml is None:
        return None
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(0))
    return next((process.usedGpuMemory for process in processes if process.pid == os.getpid()), None)


def _resident(field: str) -> int:
    """A size from the status file, in bytes (the file has kB)."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")


if __name__ == "__main__":
    main()
