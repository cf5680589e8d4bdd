"""The rows that a benchmark writes, one JSON line per contender: raw samples, what ran, on what, from which files.

The models here are the format. Times are in seconds, sizes in bytes, shares between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.json_lines import write_lines

ROWS = "rows.jsonl"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Phase = Literal["enqueue", "h2d", "compute", "d2h"]
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
    """DeviceTensor memory of a process of its own that loads this contender and runs it."""

    imported: Count = Field(description="once the interpreter and our own code are loaded")
    loaded: Count = Field(description="with the backend open, before the first run")
    load_peak: Count = Field(description="the most while loading")
    peak: Count = Field(description="the most while running, what is loaded included")
    runs: int = Field(ge=1)
    source: str = Field(description="where the figures are read")
    gpu: Count | None = Field(default=None, description="of the GPU's memory, as NVML says of that process at the end")


class PhaseRow(_Record):
    """A part of a call that a device's events delimit; seconds per call."""

    samples: tuple[float, ...] = Field(min_length=1, description="in the order of the rounds")
    p50: float = Field(ge=0)
    p99: float = Field(ge=0)


class ExecutionRow(_Record):
    """What was asked for and what ran; None where the backend does not say or there is no such thing."""

    target: str | None = Field(description="as asked for: BACKEND[:IMPLEMENTATION][:PRECISION]")
    requested: str | None = Field(description="precision")
    realised: dict[str, JsonValue] | None = Field(description="read back: the graph's precision, or an engine's layers")
    engine_sha256: Sha256 | None = None
    plugin_sha256: Sha256 | None = None
    cuda_graph: bool | None = Field(default=None, description="whether calls replay a captured CUDA graph")
    transfers: bool | None = Field(default=None, description="whether a call moves its inputs and outputs")
    phases: dict[Phase, PhaseRow] | None = Field(default=None, description="by events on the device, where it has them")


class EnergyRow(_Record):
    """Metered while the contender ran by itself without pause, and before that at rest."""

    source: str
    joules_per_clip: dict[str, float] = Field(description="by rail; rails may feed each other, so do not add them up")
    idle_watts: dict[str, float] = Field(description="by rail, at rest")
    seconds: Positive
    calls: int = Field(ge=1)


class GpuStateRow(_Record):
    """A GPU at one moment."""

    name: str
    driver: str | None
    clocks_mhz: dict[str, float]
    temperature: float | None = Field(description="degrees Celsius")
    power_mode: str | None = Field(description="a Jetson's nvpmodel mode, or the power limit")
    power_watts: float | None
    throttled: tuple[str, ...] = Field(description="why the clocks are lower than they could be")


class MachineStateRow(_Record):
    """The machine at one moment."""

    cpu_mhz: tuple[float, ...] | None = Field(description="of each core")
    resident: Count = Field(description="bytes of this process, all contenders together")
    temperatures: dict[str, float] = Field(description="degrees Celsius by thermal zone")
    overcurrent_events: int | None = Field(description="since the machine started, of a Jetson's counters")
    gpu: GpuStateRow | None


class LimitsRow(_Record):
    """Beyond any of these, a row is unstable."""

    samples: Count
    variation: float
    drift: float
    others: float
    logit_difference: float
    miou: float | None = None


class RunRow(_Record):
    """The run that this row belongs to; its rows are comparable in pairs."""

    started: AwareDatetime
    command: tuple[str, ...]
    contenders: tuple[str, ...]
    reference: str
    warmup: Count = Field(description="rounds dropped")
    patience: Count = Field(default=0, description="rounds that were allowed beyond those asked for, while unstable")
    pause: float = Field(ge=0, description="rest before each call")
    others: float = Field(ge=0, description="share of all cores used by other processes while sampling")
    before: MachineStateRow | None = Field(default=None, description="before the first sample, after the warm-up")
    after: MachineStateRow | None = Field(default=None, description="after the last sample")
    peak_gflops: dict[str, Positive] | None = Field(
        default=None, description="of a large matrix product by precision, on as many threads, after the samples"
    )
    copy_gb_s: Positive | None = Field(
        default=None, description="bytes read and written per second by a copy, measured after the samples"
    )


class CoresRow(_Record):
    """How many cores."""

    physical: int | None
    logical: int | None
    usable: int = Field(description="by this process")
    affinity: tuple[int, ...] | None = Field(default=None, description="the cores that this process may run on")


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
    execution: ExecutionRow | None = None
    energy: EnergyRow | None = None
    logit_difference: float | None = Field(description="largest, to PyTorch, on the bundle's own vectors")
    miou: float | None = Field(default=None, description="of its masks with PyTorch's, in a reduced precision")
    problems: tuple[str, ...] = Field(description="why the row is unstable; empty where it is not")
    notes: tuple[str, ...] = Field(default=(), description="what a reader should know of a row that is a result")
    limits: LimitsRow
    run: RunRow
    environment: EnvironmentRow

    @property
    def stable(self) -> bool:
        """Whether the row may be published."""
        return not self.problems


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON Lines; `path` appears when it is complete."""
    write_lines(path, rows)


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
