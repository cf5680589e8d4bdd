"""The machine that a run of scripts/on-gpu.sh was made on, as JSON: GPUs, versions, the commit."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

from avsbg.runtime.device.gpu import driver_version, jetson_release, power_mode, read_cuda_driver

PACKAGES = ("torch", "triton", "numpy", "timm", "onnxruntime", "onnxruntime-gpu", "tensorrt", "cuda-bindings", "pytest")


def first_output(*command: str) -> str | None:
    """The output of a program; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """The processor's name, where Linux says it; the machine's kind otherwise."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str | None]:
    """The packages' versions; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    driver = read_cuda_driver()
    clocks = "--query-gpu=clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,persistence_mode"
    record = {
        "gpus": [vars(gpu) for gpu in driver.gpus],
        "no_gpu": driver.problem,
        "driver": driver_version(),
        "cuda_driver": driver.version,
        "nvcc": (first_output("nvcc", "--version") or "").splitlines()[-1:],
        "clocks": first_output("nvidia-smi", clocks, "--format=csv"),
        "jetson": jetson_release(),
        "power_mode": power_mode(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": sorted(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "packages": versions(),
        "commit": first_output("git", "rev-parse", "HEAD"),
        "is_modified": bool(first_output("git", "status", "--porcelain", "--untracked-files=no")),
    }
    output.write_text(json.dumps(record, indent=1) + "\n")
    print(output.read_text())


if __name__ == "__main__":
    main()
