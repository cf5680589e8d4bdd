"""The machine and the software that a row was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from avsbg import __version__
from avsbg.benchmarks.results.schema import Environment
from avsbg.runtime.device.system_files import processor_name, read_cpuinfo, read_text
from avsbg.runtime.threads import usable_cores

# Packages whose version can change a figure.
_PACKAGES = (
    *("av", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "scipy"),
    *("tensorrt", "tensorrt-rtx-cu13", "timm", "torch"),
)
# Variables that set threads, kernels or devices, by their beginnings.
_VARIABLES = ("CUDA_", "GOMP_", "KMP_", "MALLOC_", "MKL_", "OMP_", "OPENBLAS_", "ORT_", "TORCH_")
# Instruction sets that matrix kernels choose between.
_FLAGS = ("amx", "asimd", "avx", "bf16", "f16c", "fma", "i8mm", "sse4", "sve")


def describe_environment() -> Environment:
    """This machine and what is installed on it."""
    import psutil

    versions = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return Environment(
        avsbg=__version__,
        commit=_commit(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=processor_name(),
        flags=processor_flags(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count(),
        cores=tuple(sorted(usable_cores())),
        governor=read_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        memory=psutil.virtual_memory().total,
        load_average=os.getloadavg(),
        packages=versions,
        variables={name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
    )


def describe_command() -> tuple[str, ...]:
    """The command line that runs, as a user would give it."""
    program = Path(sys.argv[0])
    is_module = program.name == "__main__.py" and program.parent.name == "benchmarks"
    return (*(("python", "-m", "avsbg.benchmarks") if is_module else ("avsbg",)), *sys.argv[1:])


def default_threads() -> int:
    """As many threads as physical cores, or fewer where the process is confined to fewer."""
    import psutil

    return max(1, min(psutil.cpu_count(logical=False) or 1, len(usable_cores())))


class OtherLoad:
    """The share of all cores that other processes use, from the moment it is made."""

    def __init__(self) -> None:
        self._busy, self._own, self._clock = self._read()

    def share(self) -> float:
        """Between 0 and 1; time that a hypervisor gave to somebody else counts as others' too."""
        import psutil

        busy, own, clock = self._read()
        elapsed = (clock - self._clock) * (psutil.cpu_count() or 1)
        return min(1.0, max(0.0, (busy - self._busy) - (own - self._own)) / elapsed) if elapsed else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        import psutil

        machine, process = psutil.cpu_times(), psutil.Process().cpu_times()
        kinds = ("user", "nice", "system", "irq", "softirq", "steal")
        busy = sum(getattr(machine, kind, 0.0) for kind in kinds)
        # Children count once they have ended.
        own = process.user + process.system + process.children_user + process.children_system
        return busy, own, time.monotonic()


def _commit() -> str | None:
    """The commit of the checkout that this code runs from, `-dirty` if it was changed; None outside a checkout."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(
                ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    # An installed copy may lie inside some other project's checkout: only a tracked file speaks for its commit.
    if git("ls-files", "--error-unmatch", here.name) is None or (commit := git("rev-parse", "HEAD")) is None:
        return None
    return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit


def processor_flags() -> tuple[str, ...]:
    """The instruction sets that matrix kernels choose between, as the processor names them."""
    for line in read_cpuinfo():
        if line.startswith(("flags", "Features")):
            return tuple(sorted(flag for flag in line.partition(":")[2].split() if flag.startswith(_FLAGS)))
    return ()
