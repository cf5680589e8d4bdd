"""Settings of a Jetson, read from a tree of files that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbg.runtime.device.jetson import JetsonState, PowerMode, find_rails, read_jetson
from fixtures.jetson import write_jetson


def read(root: Path, query: str = "", **changes: object) -> JetsonState:
    write_jetson(root, **changes)
    state = read_jetson(root, lambda: query)
    assert state is not None
    return state


def test_another_machine_is_none(tmp_path: Path) -> None:
    assert read_jetson(tmp_path) is None


def test_the_machine_and_what_it_is_set_to_are_read(tmp_path: Path) -> None:
    state = read(tmp_path, "NV Power Mode: MODE_30W\n2\n")
    assert (state.release, state.jetpack) == ("R36, REVISION: 4.3", "6")
    assert state.module == "NVIDIA Jetson AGX Orin Developer Kit"
    assert state.mode == PowerMode(2, "30W") and len(state.modes) == 4
    assert state.memory_bytes == 64_000_000 * 1024
    assert state.overcurrent_events == {"oc1": 2, "oc3": 1}
    assert {name: rail.watts for name, rail in state.rails.items()} == {"VDD_GPU_SOC": 4.0, "VIN_SYS_5V0": 10.0}
    assert state.rails["VDD_GPU_SOC"].limit_milliamperes == 9000
    assert not state.is_fast
    assert state.describe() == "power mode 30W (2), GPU between 306 and 612 MHz, memory at 2133 MHz"
    assert state.fast_commands() == ("sudo nvpmodel -m 0", "sudo jetson_clocks")


def test_the_fast_setting_is_known_when_it_is_set(tmp_path: Path) -> None:
    state = read(tmp_path, "NV Power Mode: MAXN\n0\n", gpu=(1300500000, 1300500000, 1300500000))
    assert state.is_fast and state.fast_commands() == ()
    assert state.describe().startswith("power mode MAXN (0), GPU fixed at 1300 MHz")


def test_clocks_that_are_not_fixed_are_fixed_without_another_mode(tmp_path: Path) -> None:
    state = read(tmp_path, "NV Power Mode: MAXN\n0\n", gpu=(612000000, 306000000, 1300500000))
    assert not state.is_fast and state.fast_commands() == ("sudo jetson_clocks",)


def test_throttling_is_told_and_a_fan_is_none(tmp_path: Path) -> None:
    fast = {"gpu": (1300500000, 1300500000, 1300500000)}
    state = read(tmp_path, "NV Power Mode: MAXN\n0\n", cooling={"gpu-throttle-alert": 1, "pwm-fan": 3}, **fast)
    assert state.throttled == ("gpu-throttle-alert",) and not state.is_fast
    assert "throttled by gpu-throttle-alert" in state.describe()


@pytest.mark.parametrize(
    ("modes", "number", "commands"),
    [
        ({0: "15W", 1: "25W", 2: "MAXN_SUPER"}, "0", ("sudo nvpmodel -m 2", "sudo jetson_clocks")),
        ({0: "MODE_15W", 1: "MODE_7W"}, "1", ("sudo nvpmodel -m 0", "sudo jetson_clocks")),
        ({}, "1", ("sudo jetson_clocks",)),
    ],
)
def test_the_fastest_mode_is_maxn_or_has_the_most_watts(
    tmp_path: Path, modes: dict[int, str], number: str, commands: tuple[str, ...]
) -> None:
    """The mode is read from nvpmodel's note where nvpmodel itself does not answer."""
    state = read(tmp_path, modes=modes, status=number)
    assert state.mode is not None and state.mode.number == int(number)
    assert state.fast_commands() == commands


def test_channels_that_are_no_rail_are_left_out(tmp_path: Path) -> None:
    write_jetson(tmp_path)
    monitor = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    for channel, label in ((3, "NC"), (7, "sum of shunt voltages")):
        (monitor / f"in{channel}_label").write_text(f"{label}\n")
        (monitor / f"in{channel}_input").write_text("1\n")
        (monitor / f"curr{channel}_input").write_text("1\n")
    assert sorted(find_rails(tmp_path)) == ["VDD_GPU_SOC", "VIN_SYS_5V0"]
