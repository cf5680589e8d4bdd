"""The one model of what benchmarks write: a `Measurement` on each line of a JSON Lines file.

A measurement is a case, its metrics, and all that is needed to repeat it. Every metric has one unit: seconds (`s`),
bytes (`B`), operations (`FLOP`), rates (`FLOP/s`, `B/s`), `J`, `W`, and `1` for what has none (shares between 0 and 1,
ratios, counts). `KINDS` says which parameters and metrics each kind of measurement has at the least; a measurement that
lacks one is not made and not read. Parameters, settings and what a backend says of itself are JSON values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.statistics import Interval, Summary, summarise

ROWS, PROFILE = "rows.jsonl", "profile.jsonl"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Unit = Literal["1", "s", "B", "FLOP", "FLOP/s", "B/s", "J", "W"]
Facts = dict[str, Any]  # JSON values
Number = int | float  # an integer stays one in the file
Kind = str  # one of `KINDS`

# Kind -> the parameters and the metrics that every measurement of it has.
KINDS: dict[Kind, tuple[set[str], set[str]]] = {
    "latency": ({"scope", "clips", "frames", "height", "width", "audio"}, {"latency", "ratio"}),
    "profile": ({"clips", "source"}, {"time", "layers"}),
    "operator": ({"threads", "side", "pairs", "channels"}, {"latency", "p50", "p90", "operations"}),
    "operator-clip": ({"threads", "side"}, {"four_over_five"}),
    "stream-rate": ({"rate", "latency_mode"}, {"latency", "offered", "masks", "missed"}),
    "stream-pairs": ({"frames"}, {"clip", "stream", "ratio"}),
    "stream-difference": ({"input"}, {"frames", "largest", "mean", "flipped"}),
    "stream-soak": (set(), {"frames", "masks", "lost", "dropped", "resident"}),
    "served-streams": ({"streams", "frames", "backend"}, {"latency", "masks", "duration"}),
    "collection": ({"videos", "nodes", "killed"}, {"done", "most_results", "files", "differing"}),
    "stream-profile": ({"frames", "weight_bytes"}, {"clip", "encode", "decode"}),
    "start-up": ({"video", "backend"}, {"first_mask", "imports", "hashing", "session"}),
    "collection-speed": (
        {"engine", "videos", "workers", "threads", "video_seconds", "video_bytes"},
        {"duration", "ratio", "inference", "decode", "overlay"},
    ),
    "spinning": ({"setting", "frames"}, {"latency", "processor", "ratio", "processor_ratio"}),
    "phase-batches": ({"backend", "mode", "phases"}, {"latency", "processor", "ratio", "processor_ratio"}),
    "native-runtime": ({"quantity"}, {"python", "native", "ratio"}),
    "run-soak": ({"source", "mode"}, {"masks", "dropped", "resident"}),
    "front-end": ({"video", "width", "height", "clips"}, {"front_end", "network"}),
    "precision": ({"precision", "emulated", "data"}, {"logit_error", "agreement", "flipped"}),
    "accuracy": ({"target", "streamed", "data"}, {"miou", "f_score"}),
    "mask-rate": ({"rate", "frame_rate", "scenes", "size", "data"}, {"iou"}),
    "ablation": ({"ablation", "seed", "data", "categories"}, {"miou", "f_score"}),
    "interval-coverage": ({"disturbance", "rounds", "trials"}, {"told", "firm"}),
    "engine": ({"engine", "graph", "clips", "precision", "operator"}, {"engine_bytes"}),
    "engine-failure": ({"graph", "clips", "precision", "operator"}, set()),
    "gpu-stage": ({"stage", "result"}, {"time"}),
    "gpu-operator": ({"implementation", "side", "pairs", "channels"}, {"operations"}),
    "gpu-rate": ({"name"}, {"rate"}),
    "gpu-counter": ({"problem", "kernel", "metric", "unit"}, set()),
    "gpu-verify": ({"target", "precision"}, {"miou", "flipped"}),
    "gpu-power": ({"mode", "rail"}, {"power"}),
    "gpu-failure": ({"scope", "clips", "frames", "height", "width"}, set()),
    "operator-copies": ({"graph", "form", "clips"}, {"launches", "copies", "copied"}),
    "activation-memory": ({"graph", "clips", "node", "part"}, {"live"}),
}


class Record(BaseModel):
    """A part of a measurement: immutable, with no other fields than its own, and finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Metric(Record):
    """One quantity of a case: samples, or a value, or both; with its 95 % confidence interval where there is one."""

    unit: Unit = "1"
    value: Number | None = None
    low: float | None = Field(default=None, description="of the 95 % confidence interval")
    high: float | None = None
    samples: tuple[Number, ...] = Field(default=(), description="in the order in which they were taken, none dropped")
    parts: dict[str, Number] = Field(default={}, description="by part of the network, layer, tensor, type or rail")
    source: str = Field(default="", description="where it was read, where that matters")

    @classmethod
    def of(cls, interval: Interval, samples: Iterable[float] = ()) -> Metric:
        """A metric without a unit: an estimate with its interval, and what it was made from."""
        return cls(value=interval.value, low=interval.low, high=interval.high, samples=tuple(samples))

    @property
    def summary(self) -> Summary:
        """Percentiles of the samples; a `ValueError` if there are none."""
        return summarise(self.samples)

    @property
    def number(self) -> float:
        """The value; a `ValueError` if it has none."""
        if self.value is None:
            raise ValueError("a metric of samples has no single value")
        return self.value


class Ran(Record):
    """The network and backend that were executed, by the hashes of their files."""

    network: str = Field(default="", description="the bundle's name")
    variant: dict[str, str | bool | int] = Field(
        default={}, description="as it ran; `form` may differ from the bundle's"
    )
    weights: Facts = Field(default={}, description="where they come from, as the bundle's manifest has it")
    files: dict[str, Sha256] = Field(default={}, description="the manifest, graphs, engines, videos, test vectors")
    backend: Facts = Field(default={}, description="as the backend describes itself")
    requested: str | None = Field(default=None, description="the precision asked for")
    realised: Facts | None = Field(default=None, description="the precision read back, of a graph or of layers")


class GpuState(Record):
    """A GPU at one moment."""

    name: str
    driver: str | None
    clocks_mhz: dict[str, float]
    temperature: float | None = Field(description="degrees Celsius")
    power_mode: str | None = Field(description="a Jetson's power mode and clocks, or the power limit")
    power_watts: float | None
    throttled: tuple[str, ...] = Field(description="why the clocks are lower than they could be")


class MachineState(Record):
    """The machine at one moment."""

    cpu_mhz: tuple[float, ...] | None = Field(description="of each core")
    resident: int = Field(ge=0, description="bytes of this process, all cases together")
    temperatures: dict[str, float] = Field(default={}, description="degrees Celsius by thermal zone")
    overcurrent_events: int | None = Field(default=None, description="since the start, of a Jetson's counters")
    gpu: GpuState | None = None


class Run(Record):
    """The run that a measurement belongs to; the i-th samples of its latencies form pairs."""

    started: AwareDatetime | None = None
    command: tuple[str, ...] = ()
    settings: Facts = Field(default={}, description="warm-up, pauses, limits, the reference of ratios")
    others: float | None = Field(default=None, ge=0, description="share of all cores used by other processes meanwhile")
    before: MachineState | None = Field(default=None, description="before the first sample, after the warm-up")
    after: MachineState | None = Field(default=None, description="after the last sample")
    peaks: dict[str, float] = Field(
        default={}, description="FLOP/s of a large matrix product by precision, on as many threads, after the samples"
    )
    copy_rate: float | None = Field(default=None, description="B/s read and written by a copy, after the samples")


class Environment(Record):
    """The machine and the software that a measurement was made on."""

    avsbg: str
    commit: str | None = Field(description="of the checkout that ran, with -dirty if changed; None outside one")
    python: str
    system: str
    processor: str
    flags: tuple[str, ...] = Field(description="instruction sets that matrix kernels choose between")
    physical_cores: int | None
    logical_cores: int | None
    cores: tuple[int, ...] = Field(description="the logical cores that the process may run on")
    governor: str | None = Field(default=None, description="of the clock frequency, where the system tells")
    memory: int = Field(ge=0, description="bytes")
    load_average: tuple[float, float, float] = Field(description="before the run: 1, 5 and 15 minutes")
    packages: dict[str, str]
    variables: dict[str, str] = Field(default={}, description="of the environment: threads, kernels, devices")


class Measurement(Record):
    """One case, measured."""

    format: Literal[2] = 2
    kind: Kind
    label: str = Field(default="", description="the name of the case within its run")
    case: Facts = Field(default={}, description="parameters of what was measured")
    metrics: dict[str, Metric]
    problems: tuple[str, ...] = Field(default=(), description="why it is unstable; empty where it is not")
    notes: tuple[str, ...] = Field(default=(), description="what a reader should know of a stable measurement")
    ran: Ran = Ran()
    run: Run = Run()
    environment: Environment | None = Field(default=None, description="None for what no machine's speed can change")

    @model_validator(mode="after")
    def _complete(self) -> Measurement:
        if self.kind not in KINDS:
            raise ValueError(f"there is no kind {self.kind!r} of measurement")
        parameters, metrics = KINDS[self.kind]
        if missing := sorted(parameters - self.case.keys()) + sorted(metrics - self.metrics.keys()):
            raise ValueError(f"a measurement of the kind {self.kind} lacks {', '.join(missing)}")
        return self

    def __getitem__(self, metric: str) -> Metric:
        return self.metrics[metric]

    def value(self, metric: str) -> float | None:
        """The value of a metric; None where it was not measured."""
        return self.metrics[metric].value if metric in self.metrics else None

    @property
    def is_stable(self) -> bool:
        """True where nothing speaks against publishing it."""
        return not self.problems

    @property
    def commit(self) -> str:
        """The first digits of the commit that was measured, `-dirty` if it was changed; `unknown` if none was."""
        commit = None if self.environment is None else self.environment.commit
        return "unknown" if commit is None else commit[:12] + "-dirty" * commit.endswith("-dirty")


def write_rows(path: Path, rows: Iterable[Measurement]) -> None:
    """Write measurements as JSON Lines; `path` appears when it is complete."""
    lines = [{"format": 2, **row.model_dump(mode="json", exclude_defaults=True)} for row in rows]
    with atomic_file(path) as temporary:
        temporary.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def replace_rows(path: Path, rows: Sequence[Measurement], key: Callable[[Measurement], object]) -> None:
    """Write rows into a file, where the first stood that has a key of theirs, or at its end; the others stay."""
    renewed = {key(row) for row in rows}
    earlier = read_rows(path) if path.is_file() else []
    place = next((number for number, row in enumerate(earlier) if key(row) in renewed), len(earlier))
    kept = [row for row in earlier[place:] if key(row) not in renewed]
    write_rows(path, [*earlier[:place], *rows, *kept])


def read_rows(path: Path, *kinds: Kind) -> list[Measurement]:
    """Read measurements from a file, or a directory of `avsbg bench`, that may hold `kinds`; any if none is named.

    A `BenchmarkError` if the file cannot be read or is empty, or a line is no valid measurement of these kinds.
    """
    path = path / ROWS if path.is_dir() else path
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}.", "Make rows with `avsbg bench run`.") from error
    if not lines:
        raise BenchmarkError(f"{path} holds no rows.", "Make some with `avsbg bench run`.")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = Measurement.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the row"
            if where == "format":
                age = "an older" if first["input"] == 1 else "another"
                problem = f"{path}, row {number}: its format is {first['input']!r}, which {age} version of avsbg wrote"
                raise BenchmarkError(f"{problem}; this one reads 2.", "Measure again.") from error
            raise BenchmarkError(f"{path}, row {number}: {where}: {first['msg']}.", "Measure again.") from error
        if kinds and row.kind not in kinds:
            raise BenchmarkError(f"{path}, row {number}: a row of the kind {row.kind}, not {' or '.join(kinds)}.")
        rows.append(row)
    return rows


def check_published(rows: Iterable[Measurement]) -> None:
    """Raise a `BenchmarkError` if a row was measured with uncommitted changes, so that no commit can repeat it."""
    for row in rows:
        if row.commit.endswith("-dirty"):
            title = row.label or f"a row of {row.kind} of {row.ran.network}"
            raise BenchmarkError(f"{title} was measured with uncommitted changes.", "Commit, and measure again.")
