"""What the correlation operator could reach on devices that are not here: `python -m avsbg.benchmarks.static.roofline`.

Writes docs/operator-roofline.md from devices.json. Every figure is an estimate by arithmetic, none is a measurement.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, TypeAdapter

from avsbg.atomic import atomic_file

DEVICES = Path(__file__).parent / "devices.json"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "operator-roofline.md"
SIDES = (56, 28, 14, 7)
PAIRS, CHANNELS = 4, 128
# Per element of the volume on the ordinary cores, in fp32: ReLU, and an addition to each of the two sums.
_EPILOGUE_OPERATIONS = 3


class Check(BaseModel):
    """A figure that the maker publishes, and how many times the dense fp16 rate it must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    figure: str
    tera: float
    over_dense_fp16: int


class Device(BaseModel):
    """Peak figures of a GPU, per multiprocessor where they are rates per clock."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    multiprocessors: int
    clock_ghz: float
    fp16_flop_per_clock: int  # tensor cores, dense, fp32 accumulation
    fp32_lanes: int
    bandwidth_gb_s: float
    source: str
    check: Check

    @property
    def tensor_tflops(self) -> float:
        """Dense fp16 peak, 1e12 operations per second."""
        return self.multiprocessors * self.fp16_flop_per_clock * self.clock_ghz / 1e3

    @property
    def lane_tops(self) -> float:
        """fp32 instructions of the ordinary cores, 1e12 per second (a fused multiply-add is one)."""
        return self.multiprocessors * self.fp32_lanes * self.clock_ghz / 1e3


class Work(BaseModel):
    """What one call costs: 4 pairs of maps of side x side positions with 128 channels in fp16."""

    side: int

    @property
    def elements(self) -> int:
        """Of the volume."""
        return PAIRS * self.side**4

    @property
    def flop(self) -> int:
        return 2 * self.elements * CHANNELS

    @property
    def compulsory_bytes(self) -> int:
        """Descriptors in fp16 read once (T = 5 frames for 4 pairs), both means in fp32 written once."""
        return (PAIRS + 1) * self.side**2 * CHANNELS * 2 + 2 * PAIRS * self.side**2 * 4

    @property
    def volume_bytes(self) -> int:
        """The volume in fp16 written once and read once, as the materialised form must."""
        return 2 * 2 * self.elements


def load_devices(path: Path = DEVICES) -> list[Device]:
    return TypeAdapter(list[Device]).validate_json(path.read_text(encoding="utf-8"))


def bounds(device: Device, side: int) -> dict[str, float]:
    """Microseconds that each resource needs at its peak rate; the largest bounds the operator from below."""
    work = Work(side=side)
    return {
        "tensor cores": work.flop / device.tensor_tflops / 1e6,
        "ReLU and sums": work.elements * _EPILOGUE_OPERATIONS / device.lane_tops / 1e6,
        "memory": work.compulsory_bytes / device.bandwidth_gb_s / 1e3,
        "volume": (work.compulsory_bytes + work.volume_bytes) / device.bandwidth_gb_s / 1e3,
    }


def document(devices: list[Device]) -> str:
    """The page, in Markdown."""
    first = Work(side=SIDES[0])
    lines = [
        "# The correlation operator on devices that were not measured",
        "",
        "Written by `python -m avsbg.benchmarks.static.roofline` from `benchmarks/static/devices.json`.",
        "**Every time below is an estimate**: work divided by a published peak, a bound that no kernel beats and that",
        "a good one comes near.",
        "",
        "## Work",
        "",
        f"One clip of T = 5 frames: N = {PAIRS} pairs, P = Q = side x side positions, C = {CHANNELS} channels, fp16",
        "inputs, fp32 sums. At stage 0, side 56:",
        "",
        f"* tensor cores: 2 N P Q C = 2 x 4 x 3136 x 3136 x 128 = {first.flop / 1e9:.2f} GFLOP;",
        f"* ReLU and two additions per element on the ordinary cores: 3 N P Q = {3 * first.elements / 1e6:.1f} M;",
        f"* memory: 5 maps of 3136 x 128 fp16 read, 2 x 4 x 3136 fp32 means written:"
        f" {first.compulsory_bytes / 1e6:.2f} MB;",
        "* the volume, if it is stored in fp16 (written once, read once):"
        f" 2 x 2 N P Q = {first.volume_bytes / 1e6:.1f} MB.",
        "",
        "## Peaks",
        "",
        "| device | tensor cores, dense fp16 | fp32 instructions | memory | check |",
        "|---|---|---|---|---|",
    ]
    for device in devices:
        derived = device.tensor_tflops * device.check.over_dense_fp16
        lines.append(
            f"| {device.name} | {device.multiprocessors} SM x {device.fp16_flop_per_clock} FLOP/clock x "
            f"{device.clock_ghz} GHz = {device.tensor_tflops:.1f} TFLOPS "
            f"| {device.multiprocessors} x {device.fp32_lanes} x {device.clock_ghz} GHz = {device.lane_tops:.2f} T/s "
            f"| {device.bandwidth_gb_s:g} GB/s "
            f"| x {device.check.over_dense_fp16} = {derived:.0f}; published: {device.check.figure} |"
        )
    lines += ["", "Sources:", "", *(f"* {device.name}: {device.source}." for device in devices)]
    lines += [
        "",
        "## Bounds",
        "",
        "Microseconds; the largest of the first three bounds the operator. The last column is what the traffic of a",
        "stored volume alone would take, which the operator avoids.",
        "",
        "| device | side | tensor cores | ReLU and sums | memory | **bound** | by | stored volume's traffic |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for device in devices:
        for side in SIDES:
            times = bounds(device, side)
            volume = times.pop("volume")
            by = max(times, key=lambda resource: times[resource])
            cells = [_microseconds(time) for time in times.values()]
            lines.append(
                f"| {device.name} | {side} | {' | '.join(cells)} | **{_microseconds(times[by])}** | {by} "
                f"| {_microseconds(volume)} |"
            )
    example = devices[0]
    lines += [
        "",
        f"How to read a cell: {example.name}, side 56, tensor cores: {first.flop / 1e9:.2f} GFLOP /"
        f" {example.tensor_tflops:.1f} TFLOPS = {_microseconds(bounds(example, 56)['tensor cores'])} us; memory:"
        f" {first.compulsory_bytes / 1e6:.2f} MB / {example.bandwidth_gb_s:g} GB/s ="
        f" {_microseconds(bounds(example, 56)['memory'])} us.",
        "",
        "Left out: launches (some microseconds each, which outweigh the small stages), caches (which may hold the",
        "small maps, and a part of a stored volume), and the lower clocks of other power modes. The kernel's",
        "instructions (`mma.sync`) do not reach the full rate of the tensor cores of H100 and Thor.",
        "",
    ]
    return "\n".join(lines)


def render(path: Path) -> str:
    """The page, from the file of devices."""
    return document(load_devices(path))


def _microseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main(output: Annotated[Path, typer.Option("--output", "-o", help="Markdown file to write.")] = DOCUMENT) -> None:
    """Write the estimates for devices that were not measured."""
    with atomic_file(output) as temporary:
        temporary.write_text(document(load_devices()), encoding="utf-8")
    typer.echo(f"written to {output}")


if __name__ == "__main__":
    typer.run(main)
