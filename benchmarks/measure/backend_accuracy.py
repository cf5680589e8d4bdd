"""A trained network's scores through every backend: `python -m avsbg.benchmarks.measure.backend_accuracy BUNDLE ...`.

Each target, and each target's stream, is scored on the same clips of a data set by the code that scores checkpoints,
and compared with the first, clip by clip.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.results.schema import Measurement, Metric, Run, write_rows
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


def measure(bundle: Bundle, dataset: AvsBenchDataset, target: str, *, streamed: bool, threads: int) -> Measurement:
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
    clips = [clip.score for clip in scores.clips]
    return Measurement(
        kind="accuracy",
        label=target,
        case={
            "target": target,
            "streamed": streamed,
            "data": {"task": dataset.task, "split": dataset.split, **describe_data(dataset)},
        },
        metrics={
            "miou": Metric(samples=tuple(score.miou for score in clips)),
            "f_score": Metric(samples=tuple(score.f_score for score in clips)),
        },
        ran=describe_bundle(bundle, backend=described),
        run=Run(started=started, command=("python", "-m", "avsbg.benchmarks.measure.backend_accuracy", *sys.argv[1:])),
        environment=describe_environment(),
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
    write_rows(output, rows)
    typer.echo(f"{output}: {len(rows)} rows; `python -m avsbg.benchmarks table accuracy {output}` shows them")


if __name__ == "__main__":
    try:
        typer.run(main)
    except AvsbgError as error:
        sys.exit(f"error: {error}")
