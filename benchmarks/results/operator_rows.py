"""The rows of the operator's benchmark, one JSON line each; the models here are the format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from avsbg.benchmarks.results.rows import EnvironmentRow

RESULTS = Path(__file__).parent / "operator_cpu.jsonl"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MachineRow(_Record):
    """The first line: where and with what the others were measured."""

    kind: Literal["machine"] = "machine"
    environment: EnvironmentRow
    blas: list[dict[str, JsonValue]]
    arguments: dict[str, JsonValue]


class OperatorRow(_Record):
    """One contender at one size on a number of threads. Seconds, bytes, 1e9 operations per second."""

    kind: Literal["operator", "sgemm"]
    contender: str
    path: str | None  # the instruction set, of ours
    threads: int
    side: int  # the map is side x side positions
    pairs: int
    channels: int
    flop: int  # per call; a multiply-add counts two
    repeats: int  # calls in a row per sample: one call on small maps is too short to time, and finds cold caches
    seconds: dict[str, float]  # per call, of all samples
    gflops: dict[str, float]  # p50, best
    # The rate over the faster sgemm's: median of the ratios within a round and its interval; best over best.
    share_of_sgemm: dict[str, float]
    # How many times faster than each contender that holds the volume: median within a round and its interval.
    speedup: dict[str, dict[str, float]]
    peak_memory: int | None  # beyond libraries and inputs
    samples: list[float]  # seconds per call


class ClipRow(_Record):
    """A clip of five frames: four products whose second mean serves the last frame, against five products."""

    kind: Literal["clip"] = "clip"
    threads: int
    side: int
    four_over_five: dict[str, float]


Row = MachineRow | OperatorRow | ClipRow

_ROW: TypeAdapter[Row] = TypeAdapter(Annotated[Row, Field(discriminator="kind")])


def read_rows(path: Path) -> list[Row]:
    """The rows of a results file.

    Raises:
        pydantic.ValidationError: a line is not a row.
    """
    return [_ROW.validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
