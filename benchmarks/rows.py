"""The rows that a benchmark writes, one JSON line per contender: raw samples, what ran, on what, from which files.

The models here are the format. Times are in seconds, sizes in bytes, shares between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError

ROWS = "rows.jsonl"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Scope = Literal["model", "end-to-end"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BundleRow(_Record):
    """The bundle that ran, by the hashes of its files."""

    name: str
    manifest_sha256: Sha256
    onnx_sha256: dict[str, Sha256] = Field(description="file -> hash, of each graph and of its weights")
    weights: dict[str, JsonValue] = Field(description="where the weights come from, as the manifest has it")


class WorkloadRow(_Record):
    """What one call computes."""

    scope: Scope
    clips: int = Field(ge=1, description="clips per call")
    frames: int = Field(ge=1, description="T, frames per clip")
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    audio: str = Field(description="the graph's audio input")
    video_sha256: Sha256 | None = Field(default=None, description="of the file that end-to-end decodes")


class ParametersRow(_Record):
    """Parameters of the network, VGGish not included."""

    published: Count
    inference: Count


class FlopsRow(_Record):
    """Operations per clip, one multiply-add being two; matrix products and convolutions of the network."""

    total: Count
    parts: dict[str, Count]


class SummaryRow(_Record):
    """Of the samples divided by the clips per call."""

    n: int = Field(ge=1)
    minimum: Positive
    p50: Positive
    p90: Positive
    p95: Positive
    p99: Positive
    mean: Positive
    variation: float = Field(ge=0, description="coefficient of variation")


class LatencyRow(_Record):
    """Wall time of calls, sampled in turn with the other contenders of the run."""

    samples: tuple[Positive, ...] = Field(
        min_length=1, description="per call, in the order of the rounds, none dropped"
    )
    per_clip: SummaryRow
    drift: float | None = Field(description="median of the last quarter against the first, minus 1")


class RatioRow(_Record):
    """Median over the rounds of this row's time divided by the reference's, with a bootstrap interval."""

    reference: str
    median: Positive
    low: Positive
    high: Positive
    confidence: float = Field(gt=0, lt=1)


class MemoryRow(_Record):
    """Resident memory of a process of its own that loads this contender and runs it."""

    imported: Count = Field(description="once the interpreter and our own code are loaded")
    loaded: Count = Field(description="with the backend open, before the first run")
    load_peak: Count = Field(description="the most while loading")
    peak: Count = Field(description="the most while running, what is loaded included")
    runs: int = Field(ge=1)
    source: str = Field(description="where the figures are read")


class LimitsRow(_Record):
    """Beyond any of these, a row is unstable."""

    samples: Count
    variation: float
    drift: float
    others: float
    logit_difference: float


class RunRow(_Record):
    """The run that this row belongs to; its rows are comparable in pairs."""

    started: AwareDatetime
    command: tuple[str, ...]
    contenders: tuple[str, ...]
    reference: str
    warmup: Count = Field(description="rounds dropped")
    pause: float = Field(ge=0, description="rest before each call")
    others: float = Field(ge=0, description="share of all cores used by other processes while sampling")


class CoresRow(_Record):
    """How many cores."""

    physical: int | None
    logical: int | None
    usable: int = Field(description="by this process")


class EnvironmentRow(_Record):
    """The machine and the software."""

    avsbg: str
    commit: str | None = Field(description="of the checkout that ran, with -dirty if changed; null outside one")
    python: str
    system: str
    processor: str
    flags: tuple[str, ...] = Field(description="instruction sets that matrix kernels choose between")
    cores: CoresRow
    governor: str | None = Field(description="of the clock frequency, where the system tells")
    memory: Count
    load_average: tuple[float, float, float] = Field(description="before the run: 1, 5 and 15 minutes")
    packages: dict[str, str]
    variables: dict[str, str] = Field(description="of the environment: threads, kernels, devices")


class Row(_Record):
    """One contender of one run."""

    format: Literal[1] = 1
    label: str = Field(min_length=1)
    bundle: BundleRow
    variant: dict[str, str | bool] = Field(description="the network as it ran; `form` may differ from the bundle's")
    backend: dict[str, JsonValue] = Field(description="what ran, as the backend reports it")
    workload: WorkloadRow
    parameters: ParametersRow
    flops: FlopsRow | None
    latency: LatencyRow
    ratio: RatioRow
    memory: MemoryRow | None
    logit_difference: float | None = Field(description="largest, to PyTorch, on the bundle's own vectors")
    problems: tuple[str, ...] = Field(description="why the row is unstable; empty where it is not")
    limits: LimitsRow
    run: RunRow
    environment: EnvironmentRow

    @property
    def stable(self) -> bool:
        """Whether the row may be published."""
        return not self.problems


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON Lines; `path` appears when it is complete."""
    with atomic_file(path) as temporary:
        temporary.write_text("".join(f"{row.model_dump_json()}\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read and validate rows.

    Raises:
        BenchmarkError: the file cannot be read or is empty, or a line is not a valid row.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}.", "Make rows with `avsbg bench`.") from error
    if not lines:
        raise BenchmarkError(f"{path} holds no rows.", "Make some with `avsbg bench`.")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(Row.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the row"
            raise BenchmarkError(f"{path}, row {number}: {where}: {first['msg']}.", "Measure again.") from error
    return rows
