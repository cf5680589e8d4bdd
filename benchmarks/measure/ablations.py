"""The ablations of the paper's Tables 3, 4 and 5 on sounding stamps: `python -m avsbg.benchmarks.measure.ablations`.

Trains the recipe `s4/small` whole and with one switch turned off, over several seeds, and scores the test split: a row
per run, with the score of every clip.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.errors import AvsbgError

if TYPE_CHECKING:
    from avsbg.model.training.recipes import Recipe

Precision = Literal["fp32", "bf16"]
RECIPE = "s4/small"
# Row -> the switch of the recipe's variant that is turned off.
ABLATIONS: dict[str, str | None] = {
    "whole": None,
    "without-audio": "audio",
    "without-motion": "motion",
    "without-bg": "bidirectional",
}


def recipe_of(name: str, seed: int, *, epochs: int | None = None) -> Recipe:
    """The recipe of one run.

    Raises:
        BenchmarkError: there is no such ablation.
    """
    from avsbg.model.training.recipes import named_recipe

    if name not in ABLATIONS:
        raise BenchmarkError(f"unknown ablation {name!r}.", f"Choose from: {', '.join(ABLATIONS)}.")
    small = named_recipe(RECIPE)
    switch = ABLATIONS[name]
    off: dict[str, Any] = {switch: False} if switch else {}
    return replace(small, variant=replace(small.variant, **off), seed=seed, epochs=epochs or small.epochs)


def run_one(recipe: Recipe, data: Path, folder: Path, encoder_weights: str, precision: Precision) -> dict[str, Any]:
    """Train in `folder`, going on where an earlier call was interrupted, and score the test split."""
    from avsbg.model.training.initialization import initialize_modules
    from avsbg.model.training.loop import Training
    from avsbg.model.training.recipes import Settings
    from avsbg.model.training.run_directory import RunDirectory

    run = RunDirectory(folder)
    resume = run.state.exists()
    began = time.process_time()
    environment = describe_environment()
    initial = initialize_modules(recipe, encoder=encoder_weights, data=data, resume=resume)
    training = Training(recipe, initial, data, run, settings=Settings(precision=precision))
    result = training.execute(resume=resume)
    seconds = time.process_time() - began
    return {
        "seed": recipe.seed,
        **score_run(folder, data),
        "selected": {"epoch": result.epoch, **asdict(result.score)},
        "steps": training.total_steps,
        "processor_seconds": None if resume else round(seconds, 1),
        "run": run.read_record(),
        "environment": environment.model_dump(mode="json"),
    }


def score_run(folder: Path, data: Path) -> dict[str, Any]:
    """What a finished run reaches on a test split: the mean, the score and the category of each clip, and the split."""
    import torch

    from avsbg.model.training.data import AvsBenchDataset, describe_data
    from avsbg.model.training.evaluation import checkpoint_predictor, evaluate
    from avsbg.model.training.run_directory import read_trained

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
    return {
        **asdict(scores.per_clip),
        "categories": [clip.category for clip in test.clips],
        "clips": [[clip.score.miou, clip.score.f_score] for clip in scores.clips],
        "test": describe_data(test),
    }


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
    import torch

    torch.set_num_threads(threads)
    for one in seed or [0, 1, 2]:
        for name in only or ABLATIONS:
            recipe = recipe_of(name, one, epochs=epochs)
            folder = output / f"{name}-{one}"
            done = folder / "scores.json"
            if not done.is_file():
                _write(done, {"ablation": name, **run_one(recipe, data, folder, encoder_weights, precision)})
            row = json.loads(done.read_text())
            if also is not None:
                scorer = describe_environment()
                row["also"] = {**score_run(folder, also), "environment": scorer.model_dump(mode="json")}
                _write(done, row)
            typer.echo(f"{name} seed {one}: mIoU {row['miou']:.4f}, F-score {row['f_score']:.4f}")
    rows = sorted(output.glob("*/scores.json"))
    with atomic_file(output / "rows.jsonl") as temporary:
        temporary.write_text("".join(path.read_text() for path in rows))
    typer.echo(f"{output / 'rows.jsonl'}: {len(rows)} runs")


def _write(path: Path, row: dict[str, Any]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(row) + "\n")


if __name__ == "__main__":
    try:
        typer.run(main)
    except AvsbgError as error:
        sys.exit(f"error: {error}")
