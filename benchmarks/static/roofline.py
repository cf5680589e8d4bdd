"""The correlation operator's work against the published peaks of devices that are not here.

Every figure is an estimate by arithmetic, none is a measurement.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter

from avsbg.benchmarks.results.schema import Record

DEVICES = Path(__file__).parent / "devices.json"
SIDES = (56, 28, 14, 7)
PAIRS, CHANNELS = 4, 128
SCHEDULERS, TILE = 4, 32
KERNEL = "fp16, resident, both means"


class Check(Record):
    """A figure that the maker publishes, and how many times the dense fp16 rate it must be."""

    figure: str
    tera: float
    over_dense_fp16: int


class Device(Record):
    """Peak figures of a GPU, per multiprocessor where they are rates per clock."""

    name: str
    architecture: int  # 10 x compute capability
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

    @property
    def issue_rate(self) -> float:
        """Instructions of warps, 1e9 per second: one a clock for each of a multiprocessor's four schedulers."""
        return self.multiprocessors * SCHEDULERS * self.clock_ghz


class Work(Record):
    """The cost of one call: 4 pairs of maps of side x side positions with 128 channels in fp16."""

    side: int

    @property
    def elements(self) -> int:
        """Of the volume."""
        return PAIRS * self.side**4

    @property
    def warp_tiles(self) -> int:
        """Products of 32 x 32 positions, of which a warp computes one at a time; tiles at the edges are whole ones."""
        tile = -(-(self.side**2) // TILE)
        return PAIRS * tile * tile

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


def load_issue_slots(path: Path) -> dict[int, int]:
    """The instructions that a warp issues for a tile, by architecture, from the compiler's table of the kernels."""
    kernels = json.loads(path.read_text(encoding="utf-8"))["kernels"]
    return {row["architecture"]: row["loop"]["issue_slots"] for row in kernels if row["kernel"] == KERNEL}


def load_devices(path: Path = DEVICES) -> list[Device]:
    """Read the devices' figures."""
    return TypeAdapter(list[Device]).validate_json(path.read_text(encoding="utf-8"))
