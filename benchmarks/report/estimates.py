"""Bounds for devices that are not here: a network's work and traffic over what their makers publish. Never measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avsbg.benchmarks.report.labels import network_title
from avsbg.benchmarks.results.rows import Row
from avsbg.benchmarks.static.roofline import Device, load_devices
from avsbg.runtime.bundle.precision import PRECISIONS

# The rate relative to the dense fp16 rate of the tensor cores (fp32 runs on the lanes instead).
_RATES = {"fp32": None, "fp16": 1, "int8": 2}


@dataclass(frozen=True)
class Estimate:
    """A bound from below on the time of one clip.

    Attributes:
        seconds: the bound.
        by: what bounds it, `compute` or `memory`.
        arithmetic: how it comes about.
    """

    network: str
    device: str
    precision: str
    seconds: float
    by: str
    arithmetic: str


def estimate(row: Row, device: Device, precision: str) -> Estimate:
    """The bound of a row's network on a device.

    Traffic is compulsory: weights read once, frames in, logits and probabilities out in fp32. Activations may stay in
    caches, so they do not count.
    """
    assert row.flops is not None
    size, rate = PRECISIONS[precision].bytes, _RATES[precision]
    tera = 2 * device.lane_tops if rate is None else rate * device.tensor_tflops
    pixels = row.workload.frames * row.workload.height * row.workload.width
    traffic = row.parameters.inference * size + pixels * 3 + 2 * pixels * 4
    compute, memory = row.flops.total / tera / 1e12, traffic / device.bandwidth_gb_s / 1e9
    return Estimate(
        network=network_title(row.variant),
        device=device.name,
        precision=precision,
        seconds=max(compute, memory),
        by="compute" if compute >= memory else "memory",
        arithmetic=(
            f"{row.flops.total / 1e9:.1f} GFLOP / {tera:.1f} TFLOP/s = {1e3 * compute:.2f} ms; "
            f"{traffic / 1e6:.1f} MB / {device.bandwidth_gb_s:g} GB/s = {1e3 * memory:.2f} ms"
        ),
    )


def estimates(rows: Sequence[Row]) -> list[Estimate]:
    """Of each network once, in the form that our engines have, on every Jetson of devices.json."""
    networks: dict[str, Row] = {}
    for row in rows:
        title = network_title(row.variant)
        if row.flops and (title not in networks or row.variant.get("form") == "efficient"):
            networks[title] = row
    devices = [device for device in load_devices() if "Jetson" in device.name]
    return [estimate(row, device, precision) for row in networks.values() for device in devices for precision in _RATES]
