"""Settings of a Jetson that decide its speed: power mode, clocks, throttling, power rails; read from its own files.

Nothing but `nvpmodel` is called. Where things are is said in NVIDIA's Jetson Linux Developer Guide, Platform Power and
Performance (docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide/SD/PlatformPowerAndPerformance).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from avsbg.runtime.device.gpu import jetpack_version, jetson_release, module_name, power_mode
from avsbg.runtime.device.system_files import read_number, read_text

ROOT = Path("/")


@dataclass(frozen=True)
class PowerMode:
    """A power mode, as `nvpmodel` numbers and names them."""

    number: int
    name: str  # `MAXN`, `30W`; empty where only the number is known

    def __str__(self) -> str:
        return f"{self.name or 'mode'} ({self.number})"


@dataclass(frozen=True)
class Clock:
    """A clock in MHz: now, the limits that it is scaled between, and the highest that the part knows."""

    current: float
    lowest: float
    highest: float
    possible: float

    @property
    def is_fixed(self) -> bool:
        """Whether the clock is held in one place, as `jetson_clocks` does."""
        return self.lowest == self.highest


@dataclass(frozen=True)
class PowerRail:
    """A rail of an INA3221: the files of its millivolts and milliamperes, and the limit of its current, if any."""

    millivolts: Path
    milliamperes: Path
    limit_milliamperes: float | None

    @property
    def watts(self) -> float:
        """The power now; 0 where it cannot be read."""
        return (read_number(self.millivolts) or 0.0) * (read_number(self.milliamperes) or 0.0) / 1e6


@dataclass(frozen=True)
class JetsonState:
    """A Jetson as it is now."""

    release: str  # of Jetson Linux
    jetpack: str | None  # the major version
    module: str | None
    mode: PowerMode | None
    modes: tuple[PowerMode, ...]  # those of nvpmodel's configuration
    gpu: Clock | None
    cpu: Clock | None  # of the slowest core that is on
    memory_mhz: float | None  # of the memory controller, which only root may read
    memory_bytes: int | None  # of the processor and the GPU together
    throttled: tuple[str, ...]  # the cooling devices that slow something down
    overcurrent_events: dict[str, int]  # by counter, since the start
    rails: dict[str, PowerRail]

    @property
    def fastest_mode(self) -> PowerMode | None:
        """The mode of the highest clocks: MAXN and its kin, else the one with the most watts."""

        def rank(mode: PowerMode) -> tuple[bool, bool, int]:
            watts = re.search(r"(\d+)W", mode.name)
            return mode.name.startswith("MAXN"), "SUPER" in mode.name, int(watts[1]) if watts else 0

        return max(self.modes, key=rank, default=None)

    @property
    def is_fast(self) -> bool:
        """Whether the power mode is the fastest, and the GPU's clock is fixed at its highest."""
        fastest = self.fastest_mode
        in_mode = self.mode is not None and fastest is not None and self.mode.number == fastest.number
        return in_mode and self.gpu is not None and self.gpu.is_fixed and not self.throttled

    def describe(self) -> str:
        """The setting that something is measured in, in words."""
        words = [f"power mode {self.mode or 'unknown'}"]
        if self.gpu is not None:
            scaled = f"between {self.gpu.lowest:.0f} and {self.gpu.highest:.0f} MHz"
            words.append(f"GPU {f'fixed at {self.gpu.highest:.0f} MHz' if self.gpu.is_fixed else scaled}")
        if self.memory_mhz is not None:
            words.append(f"memory at {self.memory_mhz:.0f} MHz")
        if self.throttled:
            words.append(f"throttled by {', '.join(self.throttled)}")
        return ", ".join(words)

    def fast_commands(self) -> tuple[str, ...]:
        """The commands that lead from here to the fast setting, in their order; none where it is set."""
        commands = []
        fastest = self.fastest_mode
        if fastest is not None and (self.mode is None or self.mode.number != fastest.number):
            commands.append(f"sudo nvpmodel -m {fastest.number}")
        if self.gpu is None or not self.gpu.is_fixed or commands:  # a new mode changes the limits
            commands.append("sudo jetson_clocks")
        return tuple(commands)


def read_jetson(root: Path = ROOT, query: Callable[[], str] | None = None) -> JetsonState | None:
    """Read a Jetson's state below `root`; None on other machines.

    `query` returns the output of `nvpmodel -q`, which is called if it is None and `root` is this machine's.
    """
    release = jetson_release(root)
    if release is None:
        return None
    modes = _modes(root)
    if query is None:
        query = _ask_nvpmodel if root == ROOT else str
    memory = re.search(r"MemTotal:\s+(\d+) kB", read_text(root / "proc/meminfo") or "")
    emc = read_number(root / "sys/kernel/debug/bpmp/debug/clk/emc/rate")
    return JetsonState(
        release=release,
        jetpack=jetpack_version(root),
        module=module_name(root),
        mode=_mode(query(), power_mode(root), modes),
        modes=modes,
        gpu=_gpu_clock(root),
        cpu=_cpu_clock(root),
        memory_mhz=None if emc is None else emc / 1e6,
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        throttled=_throttled(root),
        overcurrent_events=overcurrent_events(root),
        rails=find_rails(root),
    )


def find_rails(root: Path = ROOT) -> dict[str, PowerRail]:
    """The rails that INA3221 monitors measure, by name.

    The kernel's channel that adds up others is left out, and channels that are not connected.
    """
    found = {}
    for label in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*/in*_label")):
        name, channel = read_text(label), label.name.removeprefix("in").removesuffix("_label")
        volts, amperes = label.with_name(f"in{channel}_input"), label.with_name(f"curr{channel}_input")
        if name and name != "NC" and "sum of" not in name.lower() and volts.exists() and amperes.exists():
            found[name] = PowerRail(volts, amperes, read_number(label.with_name(f"curr{channel}_crit")))
    return found


def gpu_frequency_folder(root: Path = ROOT) -> Path | None:
    """The folder of the integrated GPU's clock: `17000000.gpu`, in JetPack 5 `17000000.ga10b`; None without one."""
    folders = sorted((root / "sys/class/devfreq").glob("*"))
    return next((one for one in folders if "gpu" in one.name or one.name.endswith((".ga10b", ".gv11b"))), None)


def overcurrent_events(root: Path = ROOT) -> dict[str, int]:
    """Counts of how often each over-current limit slowed the machine down since its start, by counter."""
    counters = sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
    counts = {file.name.removesuffix("_event_cnt"): read_number(file) for file in counters}
    return {name: int(count) for name, count in counts.items() if count is not None}


def _ask_nvpmodel() -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=False, timeout=20).stdout
    return ""


def _modes(root: Path) -> tuple[PowerMode, ...]:
    """The modes of nvpmodel's configuration, `< POWER_MODEL ID=0 NAME=MAXN >`."""
    found = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", read_text(root / "etc/nvpmodel.conf") or "")
    return tuple(PowerMode(int(number), name.removeprefix("MODE_")) for number, name in found)


def _mode(answer: str, status: str | None, modes: tuple[PowerMode, ...]) -> PowerMode | None:
    """The mode as `nvpmodel -q` prints it (its name, then its number), else as it noted it (the number alone)."""
    said = re.search(r"NV Power Mode:\s*(\S+)\s+(\d+)", answer)
    if said is not None:
        return PowerMode(int(said[2]), said[1].removeprefix("MODE_"))
    if status is None or not status.isdecimal():
        return None
    number = int(status)
    return next((mode for mode in modes if mode.number == number), PowerMode(number, ""))


def _gpu_clock(root: Path) -> Clock | None:
    folder = gpu_frequency_folder(root)
    if folder is None:
        return None
    numbers = [read_number(folder / name) for name in ("cur_freq", "min_freq", "max_freq")]
    current, lowest, highest = (number / 1e6 if number is not None else None for number in numbers)
    if current is None or lowest is None or highest is None:
        return None
    known = [float(word) / 1e6 for word in (read_text(folder / "available_frequencies") or "").split()]
    return Clock(current, lowest, highest, max(known, default=highest))


def _cpu_clock(root: Path) -> Clock | None:
    clocks = []
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"):
        names = ("scaling_cur_freq", "scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
        numbers = [number / 1e3 for name in names if (number := read_number(folder / name)) is not None]
        if len(numbers) == len(names):
            clocks.append(Clock(*numbers))
    return min(clocks, key=lambda clock: clock.highest, default=None)


def _throttled(root: Path) -> tuple[str, ...]:
    """The cooling devices that are at work, but fans, which cost no speed."""
    found = []
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        kind = read_text(device / "type") or device.name
        if (read_number(device / "cur_state") or 0) > 0 and "fan" not in kind:
            found.append(kind)
    return tuple(found)
