"""`avsbg eval`: mIoU and F-score of a checkpoint, of a training run, or of any backend of a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from avsbg.cli import TRAIN, app
from avsbg.cli.backends import join_names, show_messages
from avsbg.cli.options import (
    BACKEND_HELP,
    DATA_HELP,
    PANEL,
    Composite,
    Device,
    Implementation,
    Mode,
    Precision,
    SplitName,
    Threads,
    Trust,
)
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
    data: Annotated[
        Path, Option(metavar="FOLDER", help=f"{DATA_HELP[:-1]}; for avss, the folder that holds metadata.csv.")
    ],
    task: Annotated[
        Literal["s4", "ms3", "avss"], Option(help="s4: one sounding object; ms3: several; avss: objects of 71 classes.")
    ],
    split: Annotated[SplitName, Option(help="The split to score.")] = "test",
    backend: Annotated[
        str | None,
        Option(metavar="NAME", help=f"For a bundle: {BACKEND_HELP}. By default onnxruntime.", rich_help_panel=PANEL),
    ] = None,
    implementation: Implementation = None,
    precision: Precision = None,
    variant: Annotated[
        str | None, Option(metavar="NAME", help="For a checkpoint, its network: avs-bg, avsbench-resnet50, ...")
    ] = None,
    encoder: Annotated[
        str | None, Option(metavar="NAME", help="For a checkpoint, its encoder, if it is not the variant's own.")
    ] = None,
    classes: Annotated[
        int | None, Option(metavar="N", help="For a checkpoint of several classes, e.g. the 71 of AVSS.")
    ] = None,
    vggish: Annotated[Path | None, Option(metavar="FILE", help="VGGish's weights, for a checkpoint.")] = None,
    batch: Annotated[int, Option(metavar="N", min=1, help="Clips scored together for the per-batch figures.")] = 4,
    threads: Threads = None,
    device: Device = None,
    composite: Composite = False,
    trust: Trust = False,
    mode: Mode = None,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Also write the scores, with those of each clip, as JSON.")
    ] = None,
    picture: Annotated[
        Path | None, Option(metavar="FILE", help="Also draw clips, with the mask tinted and the annotation outlined.")
    ] = None,
    picture_clips: Annotated[
        int, Option(min=1, metavar="N", help="The number of clips in the picture, spread over the split.")
    ] = 8,
) -> None:
    """Score masks against a split of AVSBench, or of data in its layout.

    Two averages are printed. Per clip: each clip is scored by itself, as AVS-BG's published scores. Per batch: several
    clips are scored together and share the F-score's best threshold, as AVSBench's script does with four. With avss,
    each class has IoU and F-score over the frames in which it occurs.
    """
    from avsbg.model.training.contact_sheet import write_contact_sheet
    from avsbg.model.training.data import AvsBenchDataset
    from avsbg.model.training.evaluation import evaluate as score_split

    if implementation or precision:
        backend = join_names(backend or "onnxruntime", implementation, precision)
    options = {"backend": backend, "variant": variant, "encoder": encoder, "vggish": vggish, "threads": threads}
    options |= {"trust": trust or None, "mode": mode, "device": device, "composite": composite or None}
    options |= {"classes": classes}
    if task == "avss":
        _refuse({"picture": picture}, ("picture",), "the classes of avss")
        _evaluate_classes(model, data, split, options, json_file)
        return
    dataset = AvsBenchDataset(data, task, split)
    with _predictor(model, options) as (predict, description), count_progress("scoring", len(dataset)) as advance:
        scores = score_split(dataset, predict, batch=batch, advance=advance)
        if picture is not None:
            write_contact_sheet(picture, dataset, picture_clips, lambda sample: predict(sample).cpu().numpy() > 0.0)
    where = {"task": task, "split": split, "clips": len(dataset), "sound": dataset.sound}
    print(f"{task} {split}, {len(dataset)} clips, sound from {dataset.sound}")
    averages = {"per clip": scores.per_clip, f"per batch of {scores.batch} clips": scores.per_batch}
    rows = ((name, f"{average.miou:.4f}", f"{average.f_score:.4f}") for name, average in averages.items())
    print_table(("average", "mIoU", "F-score"), rows)
    if json_file is not None:
        write_json(json_file, {"data": where, "model": description, **asdict(scores)})


def _evaluate_classes(model: Path, data: Path, split: SplitName, options: dict[str, Any], to: Path | None) -> None:
    """Score the classes of AVSS; print them as a table, and write them as JSON where that is asked for."""
    from avsbg.model.avss import LABELS
    from avsbg.model.training.avss_data import SIZE, AvssDataset
    from avsbg.model.training.evaluation import evaluate_classes
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.bundle.manifest import MANIFEST

    is_bundle = (model / MANIFEST).is_file()
    size = Bundle.open(model).manifest.clip.model_dump(include={"height", "width"}) if is_bundle else {}
    dataset = AvssDataset(data, split, **size)
    with _predictor(model, options) as (predict, description), count_progress("scoring", len(dataset)) as advance:
        found = evaluate_classes(dataset, predict, advance=advance)
    scores = found.published
    classes = [
        {"name": name, "iou": float(iou), "f_score": float(f_score), "frames": int(frames)}
        for name, iou, f_score, frames in zip(LABELS, scores.iou, scores.f_score, scores.frames, strict=True)
    ]
    shape = f"{dataset.height} x {dataset.width}"
    print(f"avss {split}, {len(dataset)} clips at {shape}; the released script scores at {SIZE} x {SIZE}")
    if dataset.unknown:
        print(f"{dataset.unknown} annotated pixels have the colour of no class, and count as background")
    rows = [(str(row["name"]), f"{row['iou']:.4f}", f"{row['f_score']:.4f}", str(row["frames"])) for row in classes]
    print_table(("class", "IoU", "F-score", "frames"), rows)
    averages = {"as the released script, with frames that clips lack": scores.mean, "of frames": found.present.mean}
    means = [(name, f"{mean.miou:.4f}", f"{mean.f_score:.4f}") for name, mean in averages.items()]
    print_table(("mean over the classes", "mIoU", "F-score"), means)
    if to is not None:
        where = {"task": "avss", "split": split, "clips": len(dataset), "height": dataset.height}
        where |= {"width": dataset.width, "unknown_pixels": dataset.unknown}
        means_of = {"published": asdict(scores.mean), "present": asdict(found.present.mean)}
        clips = [{"name": name, "score": asdict(clip.occurring)} for name, clip in found.clips]
        write_json(to, {"data": where, "model": description, **means_of, "classes": classes, "clips": clips})


@contextmanager
def _predictor(model: Path, options: dict[str, Any]) -> Iterator[tuple[Predict, dict[str, Any]]]:
    """Open the predictor and describe it; `options` that the kind of `model` does not take are errors."""
    from avsbg.model import named_variant
    from avsbg.model.training.run_directory import is_run, read_trained

    if is_run(model):
        _refuse(options, ("backend", "variant", "encoder", "classes", "threads", "trust", "mode"), "a training run")
        run = read_trained(model)
        audio = run.audio_weights or options["vggish"]
        with _torch_predictor(run.recipe.variant, run.weights, run.recipe.audio_encoder, audio, options) as predictor:
            yield predictor
    elif model.is_file():
        _refuse(options, ("backend", "threads", "trust", "mode"), "a checkpoint")
        if options["variant"] is None:
            raise AvsbgError(f"the network of the checkpoint {model} is not known.", "Name it with --variant.")
        switches = {name: options[name] for name in ("encoder", "classes") if options[name] is not None}
        variant, audio = named_variant(options["variant"], **switches), options["vggish"]
        with _torch_predictor(variant, model, "vggish", audio, options) as predictor:
            yield predictor
    else:
        _refuse(options, ("variant", "encoder", "classes", "vggish", "composite"), "a bundle")
        from avsbg.api import load
        from avsbg.benchmarks.measure.accuracy import bundle_predictor

        show_messages()
        how = {"trust": bool(options["trust"]), "threads": options["threads"], "device": options["device"]}
        # Scoring is how one learns what a precision costs, so a missed threshold does not stop it.
        with load(model, options["backend"] or "onnxruntime", allow_failed_accuracy=True, **how) as loaded:
            backend = loaded.stream_backend if options["mode"] == "stream" else loaded.clip_backend
            yield bundle_predictor(backend), {"bundle": loaded.bundle.manifest.name, "backend": backend.describe()}


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
    on_kernels = device.type == "cuda" and variant.motion and variant.form == "efficient" and not options["composite"]
    ran = {"version": torch.__version__, "device": str(device), "operator": "native" if on_kernels else variant.form}
    description = {
        "variant": variant.to_dict(),
        "weights": str(weights),
        "audio_encoder": audio_encoder,
        "backend": {"backend": "torch", **ran, "precision": "fp32"},
    }
    with composite() if options["composite"] else nullcontext():
        yield predict, description
