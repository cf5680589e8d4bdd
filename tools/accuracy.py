"""Scores of a trained network through every backend: `python -m tools.accuracy BUNDLE --data ROOT --task s4 -o FILE`.

Each target, and each target's stream, is scored on the same clips of a data set by the code that scores checkpoints,
and compared with the first, clip by clip.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.measure.accuracy import bundle_predictor
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.results.schema import Measurement, Metric, Run, write_rows
from avsbg.model.training.data import AvsBenchDataset, describe_data
from avsbg.model.training.evaluation import evaluate
from avsbg.model.training.layout import Split, Task
from avsbg.runtime import backends
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.streaming.frame_pair import create_streamed_clip
from tools import Output, command
from tools.training_tables import accuracy_table

# Of the committed rows; the first is what the others are compared with.
TARGETS = (
    *("torch", "onnxruntime:plain", "onnxruntime:function", "onnxruntime:native", "onnxruntime:native:fp16"),
    *("onnxruntime:native:int8", "openvino"),
)
STREAMS = ("torch", "onnxruntime:native", "onnxruntime:native:fp16")


def measure_accuracy(
    bundle: Bundle, dataset: AvsBenchDataset, target: str, *, streamed: bool, threads: int
) -> Measurement:
    """Score one target, even one whose graph missed its accuracy threshold."""
    started, parsed = datetime.now(timezone.utc), backends.BackendSpec.parse(target)
    known = backends.options(parsed.backend)
    limits = {name: value for name, value in (("threads", threads), ("allow_failed_accuracy", True)) if name in known}
    with (
        create_streamed_clip(bundle, parsed, **limits)
        if streamed
        else backends.create(parsed.backend, bundle, **{**parsed.options(), **limits})
    ) as backend:
        clips = [clip.score for clip in evaluate(dataset, bundle_predictor(backend)).clips]
        described = backend.describe()
    data = {"task": dataset.task, "split": dataset.split, **describe_data(dataset)}
    return Measurement(
        kind="accuracy",
        label=target,
        case={"target": target, "streamed": streamed, "data": data},
        metrics={
            "miou": Metric(samples=tuple(score.miou for score in clips)),
            "f_score": Metric(samples=tuple(score.f_score for score in clips)),
        },
        ran=describe_bundle(bundle, backend=described),
        run=Run(started=started, command=("python", "-m", "tools.accuracy", *sys.argv[1:])),
        environment=describe_environment(),
    )


@command
def main(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, typer.Argument(help="Exported with --stream, with the graphs that the targets need.")],
    data: Annotated[Path, typer.Option(help="The folder that holds Single-source or Multi-sources.")],
    task: Annotated[Task, typer.Option(help="One sounding object, or several.")],
    output: Output,
    split: Annotated[Split, typer.Option(help="Whose clips.")] = "test",
    threads: Annotated[int, typer.Option(min=1, help="Of every backend.")] = 1,
) -> None:
    """Score every target and every stream of a bundle on a split; rows and a table."""
    opened, dataset = Bundle.open(bundle), AvsBenchDataset(data, task, split)
    rows = []
    for target, streamed in [(target, False) for target in TARGETS] + [(target, True) for target in STREAMS]:
        typer.echo(f"{target}{' as a stream' * streamed} on {len(dataset)} clips", err=True)
        rows.append(measure_accuracy(opened, dataset, target, streamed=streamed, threads=threads))
    write_rows(output, rows)
    typer.echo(accuracy_table(rows))
