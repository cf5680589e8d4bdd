"""The ablations of the paper's Tables 3, 4 and 5 on sounding stamps: `python -m tools.ablations`.

Trains the recipe `s4/small` in full and with one switch turned off, over several seeds, and scores the test split: a
row per run, with the score of every clip.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.results.schema import ROWS, Environment, Measurement, Metric, Ran, Run, read_rows, write_rows
from avsbg.model.training.data import AvsBenchDataset, describe_data
from avsbg.model.training.evaluation import checkpoint_predictor, evaluate
from avsbg.model.training.initialization import initialize_modules
from avsbg.model.training.loop import Training
from avsbg.model.training.recipes import Recipe, Settings, named_recipe
from avsbg.model.training.run_directory import RunDirectory, read_trained
from tools import command

Precision = Literal["fp32", "bf16"]
SCORES = "scores.jsonl"
# Row -> the switch of the recipe's variant that is turned off.
ABLATIONS = {"full": None, "without-audio": "audio", "without-motion": "motion", "without-bg": "bidirectional"}


def recipe_of(name: str, seed: int, *, epochs: int | None = None) -> Recipe:
    """The recipe of one run; a `BenchmarkError` if there is no such ablation."""
    if name not in ABLATIONS:
        raise BenchmarkError(f"unknown ablation {name!r}.", f"Choose from: {', '.join(ABLATIONS)}.")
    small, switch = named_recipe("s4/small"), ABLATIONS[name]
    off: dict[str, Any] = {switch: False} if switch else {}
    return replace(small, variant=replace(small.variant, **off), seed=seed, epochs=epochs or small.epochs)


def run_one(
    name: str, recipe: Recipe, data: Path, folder: Path, *, encoder_weights: str, precision: Precision
) -> Measurement:
    """Train in `folder`, going on where an earlier call was interrupted, and score the test split."""
    run = RunDirectory(folder)
    resume = run.state.exists()
    began, environment = time.process_time(), describe_environment()
    initial = initialize_modules(recipe, encoder=encoder_weights, data=data, resume=resume)
    training = Training(recipe, initial, data, run, settings=Settings(precision=precision))
    result = training.execute(resume=resume)
    scores = {"validation_miou": result.score.miou, "validation_f_score": result.score.f_score}
    values = {"steps": training.total_steps, "epoch": result.epoch, **scores}
    metrics = {metric: Metric(value=value) for metric, value in values.items()}
    if not resume:
        metrics["processor_time"] = Metric(unit="s", value=round(time.process_time() - began, 1))
    if (accuracy := run.read_record().get("audio_accuracy")) is not None:
        metrics["audio_accuracy"] = Metric(value=accuracy)
    return score_run(name, folder, data, "test", environment=environment, metrics=metrics)


def score_run(
    name: str,
    folder: Path,
    data: Path,
    clips: Literal["test", "other"],
    *,
    environment: Environment,
    metrics: dict[str, Metric],
) -> Measurement:
    """The scores that a finished run reaches on the test split of its own data set or of another one, and `metrics`."""
    trained = read_trained(folder)
    predict = checkpoint_predictor(
        trained.recipe.variant,
        trained.weights,
        audio_encoder=trained.recipe.audio_encoder,
        audio_weights=trained.audio_weights,
        device=torch.device("cpu"),
    )
    test = AvsBenchDataset(data, trained.recipe.task, "test")
    scores = evaluate(test, predict)
    scored = {
        score: Metric(value=mean, samples=tuple(getattr(clip.score, score) for clip in scores.clips))
        for score, mean in (("miou", scores.per_clip.miou), ("f_score", scores.per_clip.f_score))
    }
    case = {"ablation": name, "seed": trained.recipe.seed, "clips": clips, "data": describe_data(test)}
    return Measurement(
        kind="ablation",
        label=f"{name}-{trained.recipe.seed}",
        case={**case, "categories": [clip.category for clip in test.clips]},
        metrics=scored | metrics,
        ran=Ran(variant=trained.recipe.variant.to_dict()),
        run=Run(settings=RunDirectory(folder).read_record()),
        environment=environment,
    )


@command
def main(  # noqa: PLR0917  (each is an option by name)
    data: Annotated[Path, typer.Option(help="Sounding stamps of the task s4.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Receives a folder per run, and rows.jsonl.")],
    encoder_weights: Annotated[str, typer.Option(help="As of `avsbg train`.")] = "imagenet",
    seed: Annotated[list[int] | None, typer.Option(help="Of the runs, several times; by default 0, 1 and 2.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="One ablation, several times.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each run, instead of the recipe's.")] = None,
    precision: Annotated[Precision, typer.Option(help="Of the forward and backward pass.")] = "bf16",
    threads: Annotated[int, typer.Option(min=1, help="Of PyTorch.")] = 1,
    also: Annotated[
        Path | None, typer.Option(help="Other sounding stamps, whose test split the finished runs are scored on too.")
    ] = None,
) -> None:
    """Train and score every ablation with every seed; runs that are finished are kept.

    Several processes may share an output, each with seeds of its own.
    """
    torch.set_num_threads(threads)
    for one in seed or [0, 1, 2]:
        for name in only or ABLATIONS:
            recipe = recipe_of(name, one, epochs=epochs)
            folder = output / f"{name}-{one}"
            done = folder / SCORES
            if not done.is_file():
                trained = run_one(name, recipe, data, folder, encoder_weights=encoder_weights, precision=precision)
                write_rows(done, [trained])
            row = read_rows(done, "ablation")[0]
            if also is not None:
                environment = describe_environment()
                write_rows(done, [row, score_run(name, folder, also, "other", environment=environment, metrics={})])
            typer.echo(f"{name} seed {one}: mIoU {row['miou'].number:.4f}, F-score {row['f_score'].number:.4f}")
    done_runs = sorted(output.glob(f"*/{SCORES}"))
    write_rows(output / ROWS, [row for path in done_runs for row in read_rows(path, "ablation")])
    typer.echo(f"{output / ROWS}: {len(done_runs)} runs")
