"""`avsbg eval`: mIoU and F-score of a checkpoint, of a training run, or of any backend of a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from avsbg.cli import TRAIN, app
from avsbg.cli.backends import create_backend, create_streamed
from avsbg.cli.options import BACKEND_HELP, BACKEND_SYNTAX, Composite, DataFolder, Device, SplitName, Task, Trust
from avsbg.cli.output import print_table, write_json
from avsbg.errors import AvsbgError
from avsbg.progress import count_progress

if TYPE_CHECKING:
    from avsbg.model import AudioEncoderName, Variant
    from avsbg.model.training.evaluation import Predict


@app.command("eval", rich_help_panel=TRAIN)
def evaluate(  # noqa: PLR0917  (each is an option by name)
    model: Annotated[
        Path, Argument(help="A bundle, a folder that `avsbg train` wrote, or a checkpoint (with --variant).")
    ],
    data: DataFolder,
    task: Task,
    split: Annotated[SplitName, Option(help="The split to score.")] = "test",
    backend: Annotated[
        str | None,
        Option(metavar=BACKEND_SYNTAX, help=f"What executes a bundle, onnxruntime by default: {BACKEND_HELP}."),
    ] = None,
    variant: Annotated[str | None, Option(help="Of a checkpoint: avs-bg, avsbench-resnet50 ...")] = None,
    encoder: Annotated[str | None, Option(help="Of a checkpoint, where it is not the variant's own.")] = None,
    vggish: Annotated[Path | None, Option(metavar="FILE", help="VGGish's weights; a bundle has its own.")] = None,
    batch: Annotated[int, Option(min=1, help="Clips scored together for the per-batch figures.")] = 4,
    threads: Annotated[int | None, Option(min=1, help="Of a bundle's backend.")] = None,
    device: Device = None,
    composite: Composite = False,
    trust: Trust = False,
    stream: Annotated[
        bool, Option("--stream", help="Score a bundle's stream: each frame encoded once, each mask from a pair.")
    ] = False,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Also write the scores, of each clip too, here.")
    ] = None,
    picture: Annotated[
        Path | None, Option(metavar="FILE", help="Also draw clips, what is marked tinted and the annotation outlined.")
    ] = None,
    pictured: Annotated[int, Option(min=1, help="How many clips --picture draws, spread over the split.")] = 8,
) -> None:
    """Score masks against a split of AVSBench, or of data in its layout.

    Two averages are printed. Per clip: each clip is scored by itself, as AVS-BG's published figures. Per batch: several
    clips are scored together, as AVSBench's script does with four; the F-score's best threshold is then theirs jointly.
    """
    from avsbg.model.training.contact_sheet import write_contact_sheet
    from avsbg.model.training.data import AvsBenchDataset
    from avsbg.model.training.evaluation import evaluate as score_split

    dataset = AvsBenchDataset(data, task, split)
    options = {"backend": backend, "variant": variant, "encoder": encoder, "vggish": vggish, "threads": threads}
    options |= {"trust": trust or None, "stream": stream or None, "device": device, "composite": composite or None}
    with _predictor(model, options) as (predict, description), count_progress("scoring", len(dataset)) as advance:
        scores = score_split(dataset, predict, batch=batch, advance=advance)
        if picture is not None:
            write_contact_sheet(picture, dataset, pictured, lambda sample: predict(sample).cpu().numpy() > 0.0)
    where = {"task": task, "split": split, "clips": len(dataset), "sound": dataset.sound}
    print(f"{task} {split}, {len(dataset)} clips, sound from {dataset.sound}")
    averages = {"per clip": scores.per_clip, f"per batch of {scores.batch} clips": scores.per_batch}
    rows = ((name, f"{average.miou:.4f}", f"{average.f_score:.4f}") for name, average in averages.items())
    print_table(("average", "mIoU", "F-score"), rows)
    if json_file is not None:
        write_json(json_file, {"data": where, "model": description, **asdict(scores)})


@contextmanager
def _predictor(model: Path, options: dict[str, Any]) -> Iterator[tuple[Predict, dict[str, Any]]]:
    """Open the predictor and describe it; `options` that the kind of `model` does not take are errors."""
    from avsbg.model import named_variant
    from avsbg.model.training.run_directory import is_run, read_trained

    if is_run(model):
        _refuse(options, ("backend", "variant", "encoder", "threads", "trust", "stream"), "a training run")
        run = read_trained(model)
        audio = run.audio_weights or options["vggish"]
        with _torch_predictor(run.recipe.variant, run.weights, run.recipe.audio_encoder, audio, options) as predictor:
            yield predictor
    elif model.is_file():
        _refuse(options, ("backend", "threads", "trust", "stream"), "a checkpoint")
        if options["variant"] is None:
            raise AvsbgError(f"the network of the checkpoint {model} is not known.", "Name it with --variant.")
        switches = {} if options["encoder"] is None else {"encoder": options["encoder"]}
        variant, audio = named_variant(options["variant"], **switches), options["vggish"]
        with _torch_predictor(variant, model, "vggish", audio, options) as predictor:
            yield predictor
    else:
        _refuse(options, ("variant", "encoder", "vggish", "composite"), "a bundle")
        from avsbg.benchmarks.measure.accuracy import bundle_predictor
        from avsbg.runtime.bundle import Bundle

        bundle = Bundle.open(model)
        target, trust = options["backend"] or "onnxruntime", bool(options["trust"])
        # Scoring is how one learns what a precision costs, so a missed threshold does not stop it.
        create = create_streamed if options["stream"] else create_backend
        how = {"threads": options["threads"], "device": options["device"]}
        with create(target, bundle, trust=trust, allow_failed_accuracy=True, **how) as backend:
            yield bundle_predictor(backend), {"bundle": bundle.manifest.name, "backend": backend.describe()}


def _refuse(options: dict[str, Any], unfit: tuple[str, ...], kind: str) -> None:
    for name in unfit:
        if options[name] is not None:
            raise AvsbgError(f"--{name} does not apply to {kind}.", "Leave it out.")


@contextmanager
def _torch_predictor(
    variant: Variant,
    weights: Path,
    audio_encoder: AudioEncoderName,
    audio_weights: Path | None,
    options: dict[str, Any],
) -> Iterator[tuple[Predict, dict[str, Any]]]:
    import torch

    from avsbg.export.torch_backend import torch_device
    from avsbg.model.operators import composite
    from avsbg.model.training.evaluation import checkpoint_predictor

    device = torch_device(options["device"] or ("cuda" if torch.cuda.is_available() else "cpu"))
    predict = checkpoint_predictor(
        variant, weights, audio_encoder=audio_encoder, audio_weights=audio_weights, device=device
    )
    description = {
        "variant": variant.to_dict(),
        "weights": str(weights),
        "audio_encoder": audio_encoder,
        "backend": {"backend": "torch", "version": torch.__version__, "device": str(device), "precision": "fp32"},
    }
    with composite() if options["composite"] else nullcontext():
        yield predict, description
