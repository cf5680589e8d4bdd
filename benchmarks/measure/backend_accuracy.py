"""A trained network's scores through every backend: `python -m avsbg.benchmarks.measure.backend_accuracy BUNDLE ...`.

Each target, and each target's stream, is scored on the same clips of a data set by the code that scores checkpoints,
and compared with the first, clip by clip.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.results.json_lines import read_lines, write_lines
from avsbg.benchmarks.results.rows import EnvironmentRow, Sha256
from avsbg.benchmarks.results.statistics import mean_interval
from avsbg.errors import AvsbgError
from avsbg.model.training.layout import Split, Task
from avsbg.runtime.bundle import Bundle

if TYPE_CHECKING:
    from avsbg.model.training.data import AvsBenchDataset
    from avsbg.runtime.backends import Backend

# What makes the committed rows; the first is what the others are compared with.
TARGETS = (
    "torch",
    "onnxruntime:plain",
    "onnxruntime:function",
    "onnxruntime:native",
    "onnxruntime:native:fp16",
    "onnxruntime:native:int8",
    "openvino",
)
STREAMS = ("torch", "onnxruntime:native", "onnxruntime:native:fp16")


class AccuracyRow(BaseModel):
    """One way to compute a split's masks, and how good they are."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    started: AwareDatetime
    command: tuple[str, ...]
    environment: EnvironmentRow
    bundle: str
    manifest_sha256: Sha256
    weights: dict[str, JsonValue]
    data: dict[str, JsonValue] = Field(description="task, split and what `describe_data` says")
    target: str
    streamed: bool
    backend: dict[str, JsonValue] = Field(description="as it reports itself")
    clips: tuple[tuple[float, float], ...] = Field(min_length=1, description="mIoU and F-score of each clip")


def measure(bundle: Bundle, dataset: AvsBenchDataset, target: str, *, streamed: bool, threads: int) -> AccuracyRow:
    """Score one target, what did not pass its gate too.

    Raises:
        BackendError: the bundle has no such graph, or the backend cannot run it.
        DatasetError: the bundle does not take the data set's clips.
    """
    from avsbg.benchmarks.measure.accuracy import bundle_predictor
    from avsbg.model.training.data import describe_data
    from avsbg.model.training.evaluation import evaluate

    started = datetime.now(timezone.utc)
    with _create(bundle, target, streamed=streamed, threads=threads) as backend:
        scores = evaluate(dataset, bundle_predictor(backend))
        described = backend.describe()
    return AccuracyRow(
        started=started,
        command=("python", "-m", "avsbg.benchmarks.measure.backend_accuracy", *sys.argv[1:]),
        environment=describe_environment(),
        bundle=bundle.manifest.name,
        manifest_sha256=bundle.manifest_sha256,
        weights=bundle.manifest.weights.model_dump(mode="json"),
        data={"task": dataset.task, "split": dataset.split, **describe_data(dataset)},
        target=target,
        streamed=streamed,
        backend=described,
        clips=tuple((clip.score.miou, clip.score.f_score) for clip in scores.clips),
    )


def _create(bundle: Bundle, target: str, *, streamed: bool, threads: int) -> Backend:
    from avsbg.runtime import backends
    from avsbg.runtime.streaming.frame_pair import create_streamed_clip

    backends.register("torch", "avsbg.export.torch_backend:TorchBackend")
    parsed = backends.BackendSpec.parse(target)
    known = backends.options(parsed.backend)
    limits = {name: value for name, value in (("threads", threads), ("allow_failed_accuracy", True)) if name in known}
    if streamed:
        return create_streamed_clip(bundle, parsed, **limits)
    return backends.create(parsed.backend, bundle, **{**parsed.options(), **limits})


def read_rows(path: Path) -> list[AccuracyRow]:
    """Read and validate rows.

    Raises:
        BenchmarkError: the file cannot be read, or a line is no valid row.
    """
    return read_lines(
        path, AccuracyRow.model_validate_json, "accuracy", "python -m avsbg.benchmarks.measure.backend_accuracy"
    )


def render(path: Path) -> str:
    """Committed rows as Markdown.

    Raises:
        BenchmarkError: there are no rows, rows of several bundles or splits, or one measured with uncommitted changes.
    """
    rows = read_rows(path)
    if len({(row.manifest_sha256, str(row.data)) for row in rows}) != 1:
        raise BenchmarkError(f"{path} must hold rows of one bundle on one split.")
    if any(str(row.environment.commit).endswith("-dirty") for row in rows):
        raise BenchmarkError(f"{path} has rows that were measured with uncommitted changes.", "Measure them again.")
    return table(rows)


def table(rows: Sequence[AccuracyRow]) -> str:
    """Rows as Markdown, each compared with the first."""
    first = rows[0]
    lines = [
        f"| computed by | mIoU | F-score | mIoU against {first.target}, same clips | F-score |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"`{row.target}`" + ", as a stream" * row.streamed]
        cells += [_interval([clip[score] for clip in row.clips]) for score in (0, 1)]
        for score in (0, 1):
            changes = [ours[score] - theirs[score] for ours, theirs in zip(row.clips, first.clips, strict=True)]
            cells.append("" if row is first else _change(changes))
        lines.append(f"| {' | '.join(cells)} |")
    packages = first.environment.packages
    names = [f"{name} {packages[name]}" for name in ("torch", "onnxruntime", "openvino") if name in packages]
    lines += [
        "",
        f"{len(first.clips)} clips of {first.data['task']} {first.data['split']}, {first.data['height']} x "
        f"{first.data['width']}; mean over the clips with its 95 % bootstrap interval. {', '.join(names)}; commit "
        f"{str(first.environment.commit)[:12]}.",
    ]
    return "\n".join(lines)


def _interval(values: Sequence[float]) -> str:
    found = mean_interval(values)
    return f"{found.mean:.4f}" if found.low is None else f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"


def _change(values: Sequence[float]) -> str:
    if max(map(abs, values)) < 5e-5:
        return "the same to four digits, every clip"
    found = mean_interval(values)
    return f"{found.mean:+.4f}" if found.low is None else f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def main(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, typer.Argument(help="Exported with --stream, with the graphs that the targets need.")],
    data: Annotated[Path, typer.Option(help="The folder that holds Single-source or Multi-sources.")],
    task: Annotated[Task, typer.Option(help="One sounding object, or several.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Receives the rows.")],
    split: Annotated[Split, typer.Option(help="Whose clips.")] = "test",
    backend: Annotated[list[str] | None, typer.Option(help=f"Several times; {', '.join(TARGETS)}.")] = None,
    stream: Annotated[list[str] | None, typer.Option(help=f"Several times; {', '.join(STREAMS)}.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of every backend.")] = 1,
) -> None:
    """Score every target and every stream of a bundle on a split; rows and a table."""
    from avsbg.model.training.data import AvsBenchDataset

    opened = Bundle.open(bundle)
    dataset = AvsBenchDataset(data, task, split)
    wanted = [(target, False) for target in backend or TARGETS] + [(target, True) for target in stream or STREAMS]
    rows = []
    for target, streamed in wanted:
        typer.echo(f"{target}{' as a stream' * streamed} on {len(dataset)} clips", err=True)
        rows.append(measure(opened, dataset, target, streamed=streamed, threads=threads))
    write_lines(output, rows)
    typer.echo(table(rows))


if __name__ == "__main__":
    try:
        typer.run(main)
    except AvsbgError as error:
        sys.exit(f"error: {error}")
