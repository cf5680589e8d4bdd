"""`avsbg train`: a network trained by one of the publications' recipes, or by a variation of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Exit, Option

from avsbg.cli import TRAIN, app
from avsbg.cli.options import Composite, DataFolder
from avsbg.cli.output import plain_console, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from avsbg.model.training.metrics import Score
    from avsbg.model.training.recipes import Observer


def _list_recipes(wanted: bool) -> None:
    if not wanted:
        return
    from avsbg.model.training.recipes import RECIPES

    columns = ("epochs", "batch", "audio_visual", "seed")
    rows = ((name, *(f"{getattr(recipe, column):g}" for column in columns)) for name, recipe in RECIPES.items())
    print_table(("recipe", "epochs", "batch", "lambda", "seed"), rows)
    raise Exit


@app.command(rich_help_panel=TRAIN)
def train(  # noqa: PLR0917  (each is an option by name)
    recipe: Annotated[str, Argument(help="s4/avs-bg, ms3/avsbench-resnet50, ...; --list shows them all.")],
    data: DataFolder,
    output: Annotated[Path, Option("-o", "--output", metavar="RUN", help="The run's folder.")],
    vggish: Annotated[Path | None, Option(metavar="FILE", help="VGGish's weights, which stay frozen.")] = None,
    encoder_weights: Annotated[
        str,
        Option(
            metavar="SOURCE",
            help="The visual encoder's initial weights: imagenet (downloaded by timm), random, or a file.",
        ),
    ] = "imagenet",
    init: Annotated[
        Path | None,
        Option(metavar="PATH", help="Start from a checkpoint of the whole network, or from a run's folder."),
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Continue the run in RUN. Give the same options.")] = False,
    encoder: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Another visual encoder than the recipe's: pvt_v2_b0 to b5, resnet50, tf_efficientnet_lite0.",
        ),
    ] = None,
    audio_encoder: Annotated[
        Literal["vggish", "compact"] | None,
        Option(help="vggish: pretrained and frozen. compact: small, and trained with the network."),
    ] = None,
    epochs: Annotated[int | None, Option(metavar="N", help="Epochs, in place of the recipe's.")] = None,
    batch: Annotated[int | None, Option(metavar="N", help="Clips per step, in place of the recipe's.")] = None,
    learning_rate: Annotated[float | None, Option(metavar="X", help="Learning rate, in place of the recipe's.")] = None,
    seed: Annotated[int | None, Option(metavar="N", min=0, help="Seed, in place of the recipe's.")] = None,
    micro_batch: Annotated[
        int | None,
        Option(metavar="N", min=1, help="Clips computed at once; gradients are added up over the step's batch."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], Option(help="The precision of the forward and backward pass.")
    ] = "fp32",
    device: Annotated[
        Literal["cpu", "cuda"] | None, Option(help="By default cuda where PyTorch finds a GPU, else cpu.")
    ] = None,
    composite: Composite = False,
    loader_workers: Annotated[int, Option(metavar="N", min=0, help="Processes that load clips.")] = 2,
    save_every: Annotated[int, Option(metavar="N", min=1, help="Steps between two saved states.")] = 100,
    select_on: Annotated[
        Literal["val", "test"],
        Option(help="The split that chooses the best epoch. AVS-BG's release chooses on test."),
    ] = "val",
    list_: Annotated[  # noqa: ARG001
        bool, Option("--list", callback=_list_recipes, is_eager=True, help="List the recipes and exit.")
    ] = False,
) -> None:
    """Train a network on AVSBench, or on data in its layout.

    RUN receives run.json, log.jsonl, best.safetensors, last.safetensors, and the state from which --resume continues.
    Ctrl-C saves that state too. On several GPUs: torchrun --nproc-per-node N --no-python avsbg train ...
    """
    from avsbg.model.training.recipes import named_recipe

    chosen = named_recipe(recipe)
    changed: dict[str, Any] = {"epochs": epochs, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    changed["variant"] = replace(chosen.variant, encoder=encoder) if encoder else None
    changed["audio_encoder"] = audio_encoder
    chosen = replace(chosen, **{key: value for key, value in changed.items() if value is not None})

    import torch

    from avsbg.model.operators import composite as composite_operators
    from avsbg.model.training.initialization import initialize_modules
    from avsbg.model.training.loop import Training
    from avsbg.model.training.recipes import Interrupted, Settings
    from avsbg.model.training.run_directory import RunDirectory, read_trained

    console = plain_console(stderr=True)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    settings = Settings(micro_batch, precision, device, loader_workers, save_every, select_on)
    files = {"network": init, "vggish": vggish, "data": data}
    if init is not None and init.is_dir():
        trained = read_trained(init)
        files |= {"network": trained.weights, "audio": trained.audio_weights}
    with _observer(console) as observer, composite_operators() if composite else nullcontext():
        initial = initialize_modules(chosen, encoder=encoder_weights, **files, resume=resume, observer=observer)
        training = Training(chosen, initial, data, RunDirectory(output), settings=settings, observer=observer)
        if training.accelerator.is_main_process:
            console.print(training.summary())
        try:
            result = training.execute(resume=resume)
        except Interrupted as stopped:
            console.print(f"interrupted after step {stopped.step}; the same command with --resume goes on from there")
            raise Exit(130) from None
    if training.accelerator.is_main_process:
        scores = f"mIoU {result.score.miou:.4f}, F-score {result.score.f_score:.4f} on {select_on}"
        console.print(f"best epoch {result.epoch}: {scores}; weights in {training.run.weights('best')}")


@contextmanager
def _observer(console: Console) -> Iterator[Observer]:
    """A progress bar over the steps, and a line for each epoch."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from avsbg.model.training.recipes import Observer

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:

        class Bar(Observer):
            def audio_stepped(self, step: int, total_steps: int) -> None:
                if step == 1:
                    self.sound = progress.add_task("sound", total=total_steps)
                progress.update(self.sound, completed=step)

            def started(self, step: int, total_steps: int) -> None:
                self.bar = progress.add_task("step", completed=step, total=total_steps)

            def stepped(self, step: int, loss: float) -> None:
                progress.update(self.bar, completed=step, description=f"loss {loss:.4f}")

            def scored(self, epoch: int, score: Score, *, best: bool) -> None:
                figures = f"mIoU {score.miou:.4f}, F-score {score.f_score:.4f}"
                console.print(f"epoch {epoch}: {figures}{' (best so far)' if best else ''}")

        yield Bar()
