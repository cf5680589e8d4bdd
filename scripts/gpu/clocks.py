"""Clocks, temperature, power and throttling of the GPU before, during and after a measurement.

They come from NVML, which every driver brings, or on a Jetson from its own files. What cannot be asked is said, since
nobody can tell whether a GPU that says nothing was throttled.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

from avsbg.runtime.device.gpu import THROTTLING
from avsbg.runtime.device.jetson import read_jetson

State = dict[str, Any]
# nvmlClockType_t, and nvmlTemperatureSensors_t of the GPU (NVML API reference).
_CLOCKS = {"graphics": 0, "sm": 1, "memory": 2}
_GPU_SENSOR = 0


class ClockError(Exception):
    """The GPU's clocks cannot be read; the message says why."""


class Nvml:
    """The NVML of the driver, asked for one GPU."""

    def __init__(self, uuid: str, library: Any = None) -> None:
        if library is None:
            try:
                library = ctypes.CDLL("libnvidia-ml.so.1")
            except OSError as error:
                raise ClockError(f"NVML cannot be loaded: {error}") from error
        self._library, self._handle = library, ctypes.c_void_p()
        self._call("nvmlInit_v2")
        self._call("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(self._handle))

    def read(self) -> State:
        """The GPU as it is now; None where it has no answer, but for throttling, whose absence is an error."""
        clocks = {name: self._ask("nvmlDeviceGetClockInfo", kind) for name, kind in _CLOCKS.items()}
        power, limit = self._ask("nvmlDeviceGetPowerUsage"), self._ask("nvmlDeviceGetEnforcedPowerLimit")
        reasons = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetCurrentClocksThrottleReasons", self._handle, ctypes.byref(reasons))
        return {
            "clocks_mhz": {name: clock for name, clock in clocks.items() if clock is not None},
            "temperature": self._ask("nvmlDeviceGetTemperature", _GPU_SENSOR),
            "power_mode": None if limit is None else f"limit {limit / 1e3:g} W",
            "power_watts": None if power is None else power / 1e3,
            "throttled": [name for bit, name in THROTTLING.items() if reasons.value & bit],
        }

    def _ask(self, function: str, *arguments: int) -> int | None:
        """The answer of a function that takes the GPU; None where it has none."""
        answer = ctypes.c_uint()
        try:
            self._call(function, self._handle, *arguments, ctypes.byref(answer))
        except ClockError:
            return None
        return answer.value

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            status = getattr(self._library, function)(*arguments)
        except AttributeError as error:
            raise ClockError(f"this NVML has no {function}") from error
        if status != 0:
            raise ClockError(f"{function} of NVML failed with status {status}")


def jetson_state() -> State | None:
    """A Jetson as it is now; None on other machines."""
    jetson = read_jetson(query=str)
    if jetson is None:
        return None
    gpu, memory = jetson.gpu, jetson.memory_mhz
    clocks = {"graphics": None if gpu is None else gpu.current, "memory": memory}
    return {
        "clocks_mhz": {name: clock for name, clock in clocks.items() if clock is not None},
        "temperature": None,
        "power_mode": jetson.describe(),
        "power_watts": next((rail.watts for name, rail in jetson.rails.items() if "GPU" in name), None),
        "throttled": list(jetson.throttled),
    }


def find_reader() -> Callable[[], State]:
    """A function that reads PyTorch's GPU; a `ClockError` where nothing can be asked."""
    if jetson_state() is not None:
        return lambda: jetson_state() or {}
    return Nvml(f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}").read


class Watch:
    """The states of the GPU around a measurement: `begin`, `look` as often as one likes, `end`.

    On a processor there is nothing to watch, and the record is empty.
    """

    def __init__(self, device: str) -> None:
        self._read: Callable[[], State] | None = None
        self._unknown: str | None = None
        self._states: list[State] = []
        if device == "cuda":
            try:
                self._read = find_reader()
            except (ClockError, AttributeError) as error:  # the latter: a PyTorch that tells no UUID
                self._unknown = str(error)

    def begin(self) -> None:
        """Read the state before the first sample."""
        self._states = []
        self.look()

    def look(self) -> None:
        """Read the state between samples."""
        if self._read is None:
            return
        try:
            self._states.append(self._read())
        except ClockError as error:
            self._read, self._unknown = None, str(error)

    def end(self) -> dict[str, Any]:
        """Read the state after the last sample; the fields that each row of the measurement gets."""
        self.look()
        if self._unknown is not None:
            return {"clocks_unknown": self._unknown}
        if not self._states:
            return {}
        reasons = dict.fromkeys(reason for state in self._states for reason in state["throttled"])
        return {"before": self._states[0], "after": self._states[-1], "throttled": list(reasons)}
