"""Bounds for devices that are not here: a network's work and traffic over what their makers publish. Never measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from avsbg.benchmarks.report.labels import network_title
from avsbg.benchmarks.report.tables import Columns, Table, make_table, number
from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.static.roofline import Device, load_devices
from avsbg.runtime.bundle.precision import PRECISIONS

# The rate relative to the dense fp16 rate of the tensor cores (fp32 runs on the lanes instead).
_RATES = {"fp32": None, "fp16": 1, "int8": 2}


class Estimate(NamedTuple):
    """A bound from below on the time of one clip; `by` says whether it is of `compute` or of `memory`."""

    network: str
    device: str
    precision: str
    seconds: float
    by: str
    arithmetic: str


def estimate(row: Measurement, device: Device, precision: str) -> Estimate:
    """The bound of a row's network on a device.

    Traffic is compulsory: weights read once, frames in, logits and probabilities out in fp32. Activations may stay in
    caches, so they do not count.
    """
    size, rate = PRECISIONS[precision].bytes, _RATES[precision]
    tera = 2 * device.lane_tops if rate is None else rate * device.tensor_tflops
    operations = row["operations"].number
    pixels: int = row.case["frames"] * row.case["height"] * row.case["width"]
    traffic = row["needed_parameters"].number * size + pixels * 3 + 2 * pixels * 4
    compute, memory = operations / tera / 1e12, traffic / device.bandwidth_gb_s / 1e9
    return Estimate(
        network=network_title(row.ran.variant),
        device=device.name,
        precision=precision,
        seconds=max(compute, memory),
        by="compute" if compute >= memory else "memory",
        arithmetic=(
            f"{operations / 1e9:.1f} GFLOP / {tera:.1f} TFLOP/s = {1e3 * compute:.2f} ms; "
            f"{traffic / 1e6:.1f} MB / {device.bandwidth_gb_s:g} GB/s = {1e3 * memory:.2f} ms"
        ),
    )


def estimate_table(rows: Sequence[Measurement]) -> Table:
    """The bounds of each network once, in the form that our engines have, on every Jetson of devices.json."""
    networks: dict[str, Measurement] = {}
    for row in rows:
        title = network_title(row.ran.variant)
        if "operations" in row.metrics and (title not in networks or row.ran.variant.get("form") == "efficient"):
            networks[title] = row
    devices = [device for device in load_devices() if "Jetson" in device.name]
    columns: Columns[Estimate] = [
        ("network", lambda found: found.network),
        ("device", lambda found: found.device),
        ("precision", lambda found: found.precision),
        ("bound ms", lambda found: number(f"{1e3 * found.seconds:.2f}")),
        ("by", lambda found: found.by),
        ("arithmetic", lambda found: found.arithmetic),
    ]
    return make_table(
        (estimate(row, device, name) for row in networks.values() for device in devices for name in _RATES),
        columns,
        "ESTIMATES, not measurements: the larger of work over the published peak and compulsory traffic over the "
        "published bandwidth. No engine beats them, and a real one will be slower.",
    )
