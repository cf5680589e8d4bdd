"""Tables of docs/operator-roofline.md: bounds of the correlation operator on devices that were not measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from avsbg.benchmarks.report.tables import Columns, markdown
from avsbg.benchmarks.static.roofline import SIDES, Device, Work, load_devices

# Per element of the volume on the ordinary cores, in fp32: ReLU, and an addition to each of the two sums.
_EPILOGUE_OPERATIONS = 3


def bounds(device: Device, side: int) -> dict[str, float]:
    """Microseconds that each resource needs at its peak rate; the largest bounds the operator from below."""
    work = Work(side=side)
    return {
        "tensor cores": work.flop / device.tensor_tflops / 1e6,
        "ReLU and sums": work.elements * _EPILOGUE_OPERATIONS / device.lane_tops / 1e6,
        "memory": work.compulsory_bytes / device.bandwidth_gb_s / 1e3,
        "volume": (work.compulsory_bytes + work.volume_bytes) / device.bandwidth_gb_s / 1e3,
    }


def peak_table(path: Path) -> str:
    """The devices' published peaks, with their sources."""
    columns: Columns[Device] = [
        ("device", lambda device: device.name),
        (
            "tensor cores, dense fp16",
            lambda device: (
                f"{device.multiprocessors} SM x {device.fp16_flop_per_clock} FLOP/clock x "
                f"{device.clock_ghz} GHz = {device.tensor_tflops:.1f} TFLOPS"
            ),
        ),
        (
            "fp32 instructions",
            lambda device: (
                f"{device.multiprocessors} x {device.fp32_lanes} x {device.clock_ghz} GHz = {device.lane_tops:.2f} T/s"
            ),
        ),
        ("memory", lambda device: f"{device.bandwidth_gb_s:g} GB/s"),
        (
            "check",
            lambda device: (
                f"x {device.check.over_dense_fp16} = "
                f"{device.tensor_tflops * device.check.over_dense_fp16:.0f}; published: {device.check.figure}"
            ),
        ),
    ]
    devices = load_devices(path)
    sources = "\n".join(f"* {device.name}: {device.source}." for device in devices)
    return f"{markdown(devices, columns)}\n\nSources:\n\n{sources}"


def bound_table(path: Path) -> str:
    """The bounds of one call on each device, in microseconds, and how a cell comes about."""
    devices = load_devices(path)
    rows = [(device.name, side, bounds(device, side)) for device in devices for side in SIDES]
    columns: Columns[tuple[str, int, dict[str, float]]] = [
        ("device", lambda row: row[0]),
        ("side", lambda row: row[1]),
        ("tensor cores", lambda row: _microseconds(row[2]["tensor cores"])),
        ("ReLU and sums", lambda row: _microseconds(row[2]["ReLU and sums"])),
        ("memory", lambda row: _microseconds(row[2]["memory"])),
        ("**bound**", lambda row: f"**{_microseconds(row[2][_bound_by(row[2])])}**"),
        ("by", lambda row: _bound_by(row[2])),
        ("stored volume's traffic", lambda row: _microseconds(row[2]["volume"])),
    ]
    device, work, times = devices[0], Work(side=SIDES[0]), rows[0][2]
    return (
        f"{markdown(rows, columns)}\n\nHow to read a cell: {device.name}, side {work.side}, tensor cores: "
        f"{work.flop / 1e9:.2f} GFLOP / {device.tensor_tflops:.1f} TFLOPS = {_microseconds(times['tensor cores'])} us; "
        f"memory: {work.compulsory_bytes / 1e6:.2f} MB / {device.bandwidth_gb_s:g} GB/s = "
        f"{_microseconds(times['memory'])} us."
    )


def _bound_by(times: Mapping[str, float]) -> str:
    return max((resource for resource in times if resource != "volume"), key=lambda resource: times[resource])


def _microseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
