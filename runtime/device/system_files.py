"""Small files of /proc and /sys, and the processor's name from them."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path


def read_text(path: Path) -> str | None:
    """A small file of the system without what surrounds its text; None where it is empty or cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    return None


def read_number(path: Path) -> float | None:
    """The number that a file of the system holds; None where it holds none or cannot be read."""
    with suppress(OSError, ValueError):
        return float(path.read_text(encoding="ascii"))
    return None


def read_cpuinfo(root: Path = Path("/")) -> list[str]:
    """The lines of /proc/cpuinfo; none where it cannot be read."""
    return (read_text(root / "proc/cpuinfo") or "").splitlines()


def processor_name() -> str:
    """The board's name where the system has one (Jetson), else the processor's model."""
    models = (line.partition(":")[2].strip() for line in read_cpuinfo() if line.startswith("model name"))
    board = read_text(Path("/proc/device-tree/model"))
    return board or next(models, "") or platform.processor() or platform.machine()
