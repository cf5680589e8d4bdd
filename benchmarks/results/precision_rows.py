"""The rows of what each precision costs in accuracy, one JSON line each; the models here are the format.

Sizes are in bytes, shares between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from avsbg.benchmarks.results.json_lines import read_lines, write_lines
from avsbg.benchmarks.results.rows import BundleRow, EnvironmentRow, Sha256
from avsbg.runtime.bundle.record_types import Precision

Share = Annotated[float, Field(ge=0, le=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class IntervalRow(_Record):
    """A mean over clips with its bootstrap interval over them; no interval for fewer than two clips."""

    mean: float
    low: float | None
    high: float | None
    confidence: float = Field(gt=0, lt=1)


class GraphRow(_Record):
    """The graph that was run, or from which the emulated one was made, and what of it takes which type."""

    name: str
    sha256: Sha256
    bytes: int = Field(ge=0, description="of the file and its weights")
    products: dict[str, int] = Field(description="matrix products, convolutions and correlations by their inputs' type")
    higher: dict[str, int] = Field(description="products that take a higher type than the precision, by the reason")
    calibration: dict[str, JsonValue] | None = Field(default=None, description="for int8 and fp8")


class AgreementRow(_Record):
    """The masks and logits of a precision against those of float32."""

    reference: str = Field(description="what computed the float32 logits")
    clips: int = Field(ge=1)
    logit_error: float = Field(ge=0, description="root mean square, as a share of the logits' standard deviation")
    largest: float = Field(ge=0, description="|difference| of a logit")
    miou: Share = Field(description="mean over frames of the IoU between the masks")
    flipped: Share = Field(description="of the pixels")
    worst_clip: str
    worst_miou: Share
    least_miou: Share = Field(description="the gate")
    passed: bool


class ScoresRow(_Record):
    """The masks of a precision against a data set's annotations, clip by clip as AVS-BG's published figures."""

    miou: IntervalRow
    f_score: IntervalRow
    miou_change: IntervalRow | None = Field(description="from float32, of the same clips; none for float32 itself")
    f_score_change: IntervalRow | None
    clips: tuple[tuple[float, float], ...] = Field(min_length=1, description="mIoU and F-score of each clip")


class DataRow(_Record):
    """What the precision was measured on."""

    kind: Literal["vectors", "dataset"]
    name: str = Field(description="`test vectors`, or task and split")
    sha256: dict[str, Sha256] = Field(description="of the vectors' files, or of the clips' names in their order")
    clips: int = Field(ge=1)


class PrecisionRow(_Record):
    """One precision of one bundle on one set of clips."""

    started: AwareDatetime
    command: tuple[str, ...]
    environment: EnvironmentRow
    bundle: BundleRow
    variant: dict[str, str | bool]
    height: int
    width: int
    frames: int = Field(description="T, frames per clip")
    precision: Precision
    emulated: bool = Field(description="float32 that rounds as an engine of the precision would")
    backend: dict[str, JsonValue] = Field(description="as it reports itself")
    graph: GraphRow
    data: DataRow
    agreement: AgreementRow
    scores: ScoresRow | None = None


def write_rows(path: Path, rows: Iterable[PrecisionRow]) -> None:
    """Write rows as JSON Lines; `path` appears when it is complete."""
    write_lines(path, rows)


def read_rows(path: Path) -> list[PrecisionRow]:
    """Read and validate rows.

    Raises:
        BenchmarkError: the file cannot be read, or a line is no valid row.
    """
    return read_lines(
        path, PrecisionRow.model_validate_json, "precisions", "python -m avsbg.benchmarks.measure.precision"
    )
