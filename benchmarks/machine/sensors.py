"""The state of the machine around a measurement: clocks, temperatures, throttling, power mode; energy by rail.

A GPU is asked through NVML (extra `nvml`), a Jetson through sysfs, a processor through sysfs and /proc. What cannot be
read is None, never a guess.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from avsbg.benchmarks.results.schema import GpuState, MachineState, Metric
from avsbg.runtime.device.gpu import THROTTLING
from avsbg.runtime.device.jetson import ROOT, find_rails, gpu_frequency_folder, overcurrent_events, read_jetson
from avsbg.runtime.device.system_files import read_cpuinfo, read_number, read_text


def read_state(root: Path = ROOT, nvml: Any = None) -> MachineState:
    """The machine as it is now; `nvml` is the module `pynvml`, initialised, None where there is no NVIDIA driver."""
    import psutil

    events = overcurrent_events(root)
    return MachineState(
        cpu_mhz=cpu_frequencies(root),
        resident=psutil.Process().memory_info().rss,
        temperatures=_temperatures(root),
        overcurrent_events=sum(events.values()) if events else None,
        gpu=_nvml_state(nvml) if nvml is not None else _jetson_state(root),
    )


def find_nvml() -> Any:
    """The module `pynvml`, initialised, if this machine has an NVIDIA driver that it can talk to; None otherwise."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml if pynvml.nvmlDeviceGetCount() else None
    except Exception:  # no package, no driver, a driver without NVML (Jetson): all of them mean that it cannot be asked
        return None


def throttling(before: MachineState, after: MachineState) -> list[str]:
    """The reasons why a measurement between two states is no result: the machine slowed itself down."""
    found = []
    if reasons := {reason for state in (before, after) if state.gpu for reason in state.gpu.throttled}:
        found.append(f"the GPU throttled: {', '.join(sorted(reasons))}")
    if before.overcurrent_events is not None and after.overcurrent_events is not None:
        events = after.overcurrent_events - before.overcurrent_events
        if events > 0:
            found.append(f"{events} over-current events while sampling")
    return found


def cpu_frequencies(root: Path = ROOT) -> tuple[float, ...] | None:
    """MHz of each core as the governor has set it, else as /proc/cpuinfo says; None where neither does."""
    cores = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*"), key=lambda path: int(path.name[3:]))
    set_by_governor = [read_number(core / "cpufreq/scaling_cur_freq") for core in cores]
    if set_by_governor and None not in set_by_governor:
        return tuple(kilohertz / 1e3 for kilohertz in set_by_governor if kilohertz is not None)
    return tuple(float(line.partition(":")[2]) for line in read_cpuinfo(root) if line.startswith("cpu MHz")) or None


def _temperatures(root: Path) -> dict[str, float]:
    """Degrees Celsius by thermal zone."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if (millidegrees := read_number(zone / "temp")) is not None:
            found[read_text(zone / "type") or zone.name] = millidegrees / 1e3
    return found


def _jetson_state(root: Path) -> GpuState | None:
    folder = gpu_frequency_folder(root)
    if folder is None:
        return None
    jetson = read_jetson(root)
    names = {"graphics": "cur_freq", "graphics, lowest": "min_freq", "graphics, highest": "max_freq"}
    hertz = {name: read_number(folder / file) for name, file in names.items()}
    clocks = {name: value / 1e6 for name, value in hertz.items() if value is not None}
    if jetson is not None and jetson.memory_mhz is not None:
        clocks["memory"] = jetson.memory_mhz
    return GpuState(
        name=read_text(root / "proc/device-tree/model") or folder.name,
        driver=None,
        clocks_mhz=clocks,
        temperature=_temperatures(root).get("gpu-thermal"),
        power_mode=None if jetson is None else jetson.describe(),
        # The rail of the GPU and what else is on it: VDD_GPU_SOC (AGX Orin), VDD_CPU_GPU_CV (Nano, NX).
        power_watts=next((rail.watts for name, rail in find_rails(root).items() if "GPU" in name), None),
        throttled=() if jetson is None else jetson.throttled,
    )


def _nvml_state(nvml: Any) -> GpuState:
    handle = nvml.nvmlDeviceGetHandleByIndex(0)

    def ask(function: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, function)(*arguments)
        except Exception:  # not every GPU answers every question
            return None

    kinds = {"graphics": nvml.NVML_CLOCK_GRAPHICS, "sm": nvml.NVML_CLOCK_SM, "memory": nvml.NVML_CLOCK_MEM}
    clocks = {name: ask("nvmlDeviceGetClockInfo", handle, kind) for name, kind in kinds.items()}
    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons", handle) or 0
    limit, power = ask("nvmlDeviceGetEnforcedPowerLimit", handle), ask("nvmlDeviceGetPowerUsage", handle)
    return GpuState(
        name=str(ask("nvmlDeviceGetName", handle)),
        driver=ask("nvmlSystemGetDriverVersion"),
        clocks_mhz={name: float(value) for name, value in clocks.items() if value is not None},
        temperature=ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
        power_mode=None if limit is None else f"limit {limit / 1e3:g} W",
        power_watts=None if power is None else power / 1e3,
        throttled=tuple(name for bit, name in THROTTLING.items() if reasons & bit),
    )


class EnergyMeter(Protocol):
    """Adds up energy by rail between `start` and `stop`."""

    source: str

    def start(self) -> None:
        """Begin at zero."""

    def stop(self) -> Mapping[str, float]:
        """Joules by rail since `start`."""


def find_meter(root: Path = ROOT, nvml: Any = None) -> EnergyMeter | None:
    """The meter that this machine has: NVML's counter, or a Jetson's INA3221; None where there is neither.

    A Thor has NVML, which may not count energy there, and INA3221.
    """
    if nvml is not None:
        counter = NvmlMeter(nvml)
        with suppress(Exception):  # NVML's error for what a GPU does not support
            counter.stop()
            return counter
    meter = Ina3221Meter(root)
    return meter if meter.rails else None


class NvmlMeter:
    """The energy counter of a GPU (Volta and later): its whole board."""

    source = "NVML, nvmlDeviceGetTotalEnergyConsumption"

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
        self._began = 0

    def start(self) -> None:
        self._began = self._millijoules()

    def stop(self) -> dict[str, float]:
        return {"GPU board": (self._millijoules() - self._began) / 1e3}

    def _millijoules(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


class Ina3221Meter:
    """The power monitors of a Jetson, one rail per channel, sampled by a thread and integrated (trapezoids).

    On some boards one rail (VDD_IN) feeds the others, so rails are not to be added up.
    """

    source = "INA3221 (sysfs)"

    def __init__(self, root: Path = ROOT, *, interval: float = 0.01) -> None:
        self.rails = find_rails(root)
        self._interval = interval
        self._stop, self._begun = threading.Event(), threading.Event()
        self._joules: dict[str, float] = {}
        self._power: dict[str, float] = {}
        self._moment = 0.0
        self._thread: threading.Thread | None = None

    def watts(self) -> dict[str, float]:
        """Power of each rail now."""
        return {name: rail.watts for name, rail in self.rails.items()}

    def start(self) -> None:
        self._joules = dict.fromkeys(self.rails, 0.0)
        self._stop.clear()
        self._begun.clear()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        # Read here, last of all: on a busy machine the thread's first turn, and the return from starting it, come late.
        self._power, self._moment = self.watts(), time.monotonic()
        self._begun.set()

    def stop(self) -> dict[str, float]:
        until = time.monotonic()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if until > self._moment:
            self._integrate(until)
        return dict(self._joules)

    def _sample(self) -> None:
        self._begun.wait()
        while not self._stop.wait(self._interval):
            self._integrate(time.monotonic())

    def _integrate(self, until: float) -> None:
        power = self.watts()
        for name in self.rails:
            self._joules[name] += (self._power[name] + power[name]) / 2 * (until - self._moment)
        self._power, self._moment = power, until


def measure_energy(
    call: Callable[[], object],
    meter: EnergyMeter,
    *,
    clips: int,
    seconds: float = 3.0,
    clock: Callable[[], float] = time.monotonic,
    rest: Callable[[float], object] = time.sleep,
) -> dict[str, Metric]:
    """Meter a machine at rest, then one that calls without pause; meters answer more slowly than one call takes.

    `call`, of so many clips, has been warmed up; `seconds` is for each of the two, at the least. Returns joules per
    clip and watts at rest, by power rail; rails may feed each other, so they are not added up.
    """
    meter.start()
    began = clock()
    rest(seconds)
    idle_seconds = clock() - began
    idle = meter.stop()
    calls = 0
    meter.start()
    began = clock()
    while calls == 0 or clock() - began < seconds:
        call()
        calls += 1
    joules = {rail: value / (calls * clips) for rail, value in meter.stop().items()}
    watts = {rail: value / idle_seconds for rail, value in idle.items()}
    return {
        "energy": Metric(unit="J", parts=joules, source=meter.source),
        "idle_power": Metric(unit="W", parts=watts, source=meter.source),
    }
