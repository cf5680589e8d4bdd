"""Clocks, throttling and energy, from a sysfs tree and an NVML that are made up."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avsbg.benchmarks.machine.sensors import (
    Ina3221Meter,
    NvmlMeter,
    cpu_frequencies,
    find_meter,
    measure_energy,
    read_state,
    throttling,
)
from avsbg.benchmarks.results.schema import MachineState
from fixtures.jetson import write_jetson


def _write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


MONITOR = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
JETSON: dict[str, object] = {
    f"{MONITOR}/in1_label": "VDD_IN",
    f"{MONITOR}/in1_input": 5000,
    f"{MONITOR}/curr1_input": 2000,
    f"{MONITOR}/in2_label": "VDD_CPU_GPU_CV",
    f"{MONITOR}/in2_input": 5000,
    f"{MONITOR}/curr2_input": 800,
    f"{MONITOR}/in3_label": "NC",
    f"{MONITOR}/in3_input": 0,
    f"{MONITOR}/curr3_input": 0,
    f"{MONITOR}/in7_label": "sum of shunt voltages",
    f"{MONITOR}/in7_input": 3,
    "sys/class/devfreq/17000000.ga10b/cur_freq": 918000000,
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": 61500,
    "sys/class/hwmon/hwmon1/oc1_event_cnt": 2,
    "sys/class/hwmon/hwmon1/oc3_event_cnt": 1,
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 1510400,
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": 729600,
}


def test_a_jetson_is_read_from_sysfs(tmp_path: Path) -> None:
    _write(tmp_path, JETSON)
    state = read_state(tmp_path)
    assert state.cpu_mhz == (1510.4, 729.6)
    assert state.temperatures == {"gpu-thermal": 61.5} and state.overcurrent_events == 3
    assert state.gpu is not None and state.gpu.clocks_mhz == {"graphics": 918.0}
    assert (state.gpu.temperature, state.gpu.power_watts) == (61.5, 4.0)
    assert state.gpu.name == "NVIDIA Jetson Orin Nano Developer Kit"
    assert state.resident > 2**20


def test_the_rails_of_a_jetson_are_named_and_integrated(tmp_path: Path) -> None:
    _write(tmp_path, JETSON)
    meter = find_meter(tmp_path)
    assert isinstance(meter, Ina3221Meter)
    assert sorted(meter.rails) == ["VDD_CPU_GPU_CV", "VDD_IN"]
    assert meter.watts() == {"VDD_IN": 10.0, "VDD_CPU_GPU_CV": 4.0}
    calls: list[int] = []
    began = time.monotonic()
    measured = measure_energy(lambda: calls.append(1), meter, clips=1, seconds=0.2)
    seconds = (time.monotonic() - began) / 2  # at rest, and calling
    assert measured["idle_power"].parts["VDD_IN"] == pytest.approx(10.0, rel=0.2)
    assert measured["energy"].parts["VDD_IN"] * len(calls) == pytest.approx(10.0 * seconds, rel=0.5)
    assert measured["energy"].source == "INA3221 (sysfs)"


def test_a_jetson_whose_nvml_counts_no_energy_is_metered_by_its_rails(tmp_path: Path) -> None:
    def refuse(_: object) -> int:
        raise RuntimeError("Not Supported")

    _write(tmp_path, JETSON)
    nvml = _Nvml()
    assert isinstance(find_meter(tmp_path, nvml), NvmlMeter)
    nvml.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert isinstance(find_meter(tmp_path, nvml), Ina3221Meter)
    assert find_meter(tmp_path / "elsewhere", nvml) is None


def test_where_nothing_can_be_read_nothing_is_claimed(tmp_path: Path) -> None:
    state = read_state(tmp_path)
    assert (state.cpu_mhz, state.temperatures, state.overcurrent_events, state.gpu) == (None, {}, None, None)
    assert find_meter(tmp_path) is None
    _write(tmp_path, {"proc/cpuinfo": "processor : 0\ncpu MHz\t\t: 2400.5\nprocessor : 1\ncpu MHz\t\t: 2401.0"})
    assert cpu_frequencies(tmp_path) == (2400.5, 2401.0)


class _Nvml(SimpleNamespace):
    """As much of pynvml as is asked; a question that it lacks fails, as on a GPU that does not support it."""

    NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 0, 1, 2, 0

    def __init__(self, reasons: int = 0) -> None:
        energy = itertools.count(0, 6000)  # mJ
        super().__init__(
            nvmlDeviceGetHandleByIndex=lambda index: f"gpu{index}",
            nvmlDeviceGetName=lambda _: "Imaginary GPU",
            nvmlDeviceGetClockInfo=lambda _, kind: 1000 + kind,
            nvmlDeviceGetCurrentClocksEventReasons=lambda _: reasons,
            nvmlDeviceGetTemperature=lambda *_: 55,
            nvmlDeviceGetEnforcedPowerLimit=lambda _: 70000,
            nvmlDeviceGetPowerUsage=lambda _: 31500,
            nvmlDeviceGetTotalEnergyConsumption=lambda _: next(energy),
        )


def test_a_gpu_is_asked_through_nvml(tmp_path: Path) -> None:
    gpu = read_state(tmp_path, _Nvml(reasons=0x20 | 0x1)).gpu
    assert gpu is not None and gpu.name == "Imaginary GPU" and gpu.driver is None
    assert gpu.clocks_mhz == {"graphics": 1000.0, "sm": 1001.0, "memory": 1002.0}
    assert (gpu.temperature, gpu.power_mode, gpu.power_watts) == (55, "limit 70 W", 31.5)
    assert gpu.throttled == ("thermal, software",)  # being idle is no throttling


def test_energy_is_counted_per_clip_over_a_clock() -> None:
    now = itertools.count()
    meter = find_meter(nvml=_Nvml())
    assert isinstance(meter, NvmlMeter)
    calls: list[int] = []
    measured = measure_energy(
        lambda: calls.append(1), meter, clips=2, seconds=3.0, clock=lambda: float(next(now)), rest=lambda _: None
    )
    # The counter moves 6 J between two readings, the clock a second: one second at rest, then 2 calls in 3 s.
    assert len(calls) == 3
    assert measured["energy"].parts == {"GPU board": pytest.approx(6.0 / (3 * 2))}
    assert measured["idle_power"].parts == {"GPU board": 6.0}


def _state(**changes: Any) -> MachineState:
    document = {"cpu_mhz": None, "resident": 1, "temperatures": {}, "overcurrent_events": None, "gpu": None}
    return MachineState.model_validate(document | changes)


def test_a_machine_that_slowed_itself_down_measured_nothing(tmp_path: Path) -> None:
    calm, hot = read_state(tmp_path, _Nvml()), read_state(tmp_path, _Nvml(reasons=0x4))
    assert throttling(calm, calm) == [] and throttling(_state(), _state()) == []
    assert throttling(calm, hot) == throttling(hot, calm) == ["the GPU throttled: power cap"]
    assert throttling(_state(overcurrent_events=3), _state(overcurrent_events=5)) == [
        "2 over-current events while sampling"
    ]


def test_the_setting_of_a_jetson_and_its_throttling_are_recorded(tmp_path: Path) -> None:
    write_jetson(tmp_path, cooling={"cpu-throttle-alert": 1})
    state = read_state(tmp_path)
    assert state.gpu is not None and state.overcurrent_events == 3
    assert state.gpu.power_mode is not None and state.gpu.power_mode.startswith("power mode 30W (2), GPU between 306")
    lowest, highest = state.gpu.clocks_mhz["graphics, lowest"], state.gpu.clocks_mhz["graphics, highest"]
    assert (lowest, highest, state.gpu.clocks_mhz["memory"]) == (306.0, 612.0, 2133.0)
    assert throttling(state, state) == ["the GPU throttled: cpu-throttle-alert"]
