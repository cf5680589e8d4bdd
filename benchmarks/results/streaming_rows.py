"""The rows of the streaming benchmark, one JSON line each; the models here are the format.

Times are in seconds, sizes in bytes, shares between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from avsbg.benchmarks.results.json_lines import read_lines, write_lines
from avsbg.benchmarks.results.rows import BundleRow, EnvironmentRow, LimitsRow, RatioRow, SummaryRow
from avsbg.runtime.streaming.stream import Latency


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StreamRunRow(_Record):
    """What ran, where and when."""

    started: AwareDatetime
    command: tuple[str, ...]
    target: str
    bundle: BundleRow
    variant: dict[str, str | bool]
    size: tuple[int, int] = Field(description="height and width of the frames, pixels")
    frames_per_clip: int
    audio: str = Field(description="the form in which the network takes sound")
    encode: dict[str, JsonValue] = Field(description="the encoder as its backend reports it")
    decode: dict[str, JsonValue]
    environment: EnvironmentRow


class MemoryRow(_Record):
    """DeviceTensor memory of the process."""

    imported: int = Field(description="before the backends were opened")
    loaded: int = Field(description="with the backends open, before the first frame")
    peak: int = Field(description="the most while frames came")


class PaceRow(_Record):
    """Frames offered at a fixed rate, or as fast as they are taken, to a stream in its thread."""

    kind: Literal["pace"] = "pace"
    run: StreamRunRow
    latency_mode: Latency
    rate: float | None = Field(description="frames per second; None for as fast as they are taken")
    offered: int
    masks: int
    missed: int = Field(description="frames dropped because the network was busy")
    late: int = Field(description="masks that came later than one frame interval after the frame that completed them")
    samples: tuple[float, ...] = Field(min_length=1, description="from a frame's arrival to the mask it completes")
    latency: SummaryRow
    jitter: float = Field(description="standard deviation of the intervals between masks")
    seconds: float
    cpu: float = Field(description="processor time of this process over wall time, in cores")
    others: float = Field(description="share of all cores that other processes used")
    memory: MemoryRow


class PairsRow(_Record):
    """Clip mode against streaming per new frame: calls in turn, the i-th of both from the same round."""

    kind: Literal["pairs"] = "pairs"
    run: StreamRunRow
    clip: tuple[float, ...] = Field(description="re-running the clip of the last T frames for a new one")
    stream: tuple[float, ...] = Field(description="taking one new frame: encode and decode")
    clip_summary: SummaryRow
    stream_summary: SummaryRow
    ratio: RatioRow = Field(description="stream over clip")
    others: float
    problems: tuple[str, ...]
    limits: LimitsRow


class DifferenceRow(_Record):
    """What `latency="zero"` costs: masks whose partner is the frame before, against the exact ones."""

    kind: Literal["difference"] = "difference"
    run: StreamRunRow
    frames: int = Field(description="compared; the first and the last of a run are left out")
    largest: float = Field(description="of a probability")
    mean: float
    flipped: float = Field(description="share of pixels on the other side of 0.5")
    input: str


class SoakRow(_Record):
    """Frames of a long stream at full speed."""

    kind: Literal["soak"] = "soak"
    run: StreamRunRow
    frames: int
    stream_seconds: float = Field(description="what the timestamps span")
    masks: int
    lost: int
    dropped: int
    incomplete: int = Field(description="frames part of whose sound was missing")
    seconds: float = Field(description="wall time")
    resident: tuple[int, ...] = Field(description="bytes, at even distances in the stream")
    growth: int = Field(description="the median of the last quarter of `resident` minus that of the second")


StreamingRow = PaceRow | PairsRow | DifferenceRow | SoakRow
_ADAPTER: TypeAdapter[StreamingRow] = TypeAdapter(Annotated[StreamingRow, Field(discriminator="kind")])


def write_rows(path: Path, rows: Iterable[StreamingRow]) -> None:
    """Write rows as JSON Lines; `path` appears when it is complete."""
    write_lines(path, rows)


def read_rows(path: Path) -> list[StreamingRow]:
    """Read and validate rows.

    Raises:
        BenchmarkError: the file cannot be read, or a line is no valid row.
    """
    return read_lines(path, _ADAPTER.validate_json, "streams", "bench-stream")
