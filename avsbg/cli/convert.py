"""`avsbg convert`: the graphs of a bundle in another precision, without TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbg.cli import app

if TYPE_CHECKING:
    from rich.console import Console

    from avsbg.runtime.bundle.engine_record import AccuracyRecord
    from avsbg.runtime.bundle.quantisation_record import QuantisationRecord


@app.command()
def convert(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, typer.Argument(help="The bundle that `avsbg export` made; the graphs go there.")],
    precision: Annotated[str, typer.Option(help="fp16, bf16, int8 or fp8.")],
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="For int8 and fp8: a folder of videos, or AVSBench's (FOLDER:s4:val for another split than train); or "
            "the word vectors for the bundle's synthetic test vectors. By default what was calibrated earlier.",
        ),
    ] = None,
    calibration_clips: Annotated[int, typer.Option(metavar="N", help="The most clips to calibrate on.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the choice among the folder's clips.")] = 0,
    accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Clips to measure the accuracy on, named as for --calibrate; by default the synthetic test vectors, "
            "in which a trained network may mark next to nothing.",
        ),
    ] = None,
    accuracy_clips: Annotated[int, typer.Option(metavar="N", help="The most clips to measure the accuracy on.")] = 32,
    min_miou: Annotated[
        float | None,
        typer.Option(
            metavar="MIOU", help="The accuracy threshold: what the masks' mean IoU with PyTorch's must reach."
        ),
    ] = None,
    judge: Annotated[str | None, typer.Option(hidden=True, help="As --accuracy.")] = None,
    judge_clips: Annotated[int | None, typer.Option(hidden=True, help="As --accuracy-clips.")] = None,
    gate: Annotated[float | None, typer.Option(hidden=True, help="As --min-miou.")] = None,
) -> None:
    """Add the graphs in a precision to the bundle, and measure what it costs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    errors, console = Console(stderr=True), Console(highlight=False, soft_wrap=True)
    # The old names of options work as the new ones.
    measured, count = judge if accuracy is None else accuracy, accuracy_clips if judge_clips is None else judge_clips
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("loading", total=None)
        from avsbg.export.precision.calibrate import ClipSource
        from avsbg.export.precision.graphs import convert_bundle

        converted = convert_bundle(
            bundle,
            precision,
            calibration=None if calibrate is None else ClipSource(calibrate, calibration_clips, seed),
            accuracy_clips=None if measured is None else ClipSource(measured, count, seed),
            min_miou=gate if min_miou is None else min_miou,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    if converted.quantisation is not None:
        _show_calibration(console, converted.quantisation)
    for name, graph in converted.graphs.items():
        _show_accuracy(console, name, graph.accuracy)


def _show_calibration(console: Console, record: QuantisationRecord) -> None:
    from rich.table import Table

    table = Table("layers", "products", "logit error", "mIoU", "left out", title="each group quantised alone")
    for name, group in record.groups.items():
        cost = f"{group.logit_error:.4f}"
        table.add_row(name, str(group.products), cost, f"{group.miou:.4f}", "yes" if group.left_out else "")
    console.print(table)
    source = record.calibration
    console.print(f"calibrated on {source.clips} clips ({source.source}); {len(record.left_out)} products left out")
    if record.measured_clips:
        console.print(f"measured on {record.measured_clips} clips: mIoU {record.miou:.4f}, {record.min_miou} demanded")
    for trial in record.trials:
        verdict = "passes" if trial.miou >= record.min_miou else "fails"
        console.print(
            f"  {trial.groups} of {len(record.groups)} groups left out ({trial.products} products): "
            f"{trial.miou:.4f}, {verdict}"
        )
    reasons: dict[str, list[str]] = {}
    for product, reason in record.not_quantised.items():
        reasons.setdefault(reason, []).append(product)
    for reason, products in reasons.items():
        console.print(f"not quantised, {reason}: {len(products)} products, e.g. {products[0]}")
    if source.source == "vectors":
        console.print("[yellow]the test vectors are synthetic: calibrate on real clips before you deploy[/yellow]")


def _show_accuracy(console: Console, name: str, record: AccuracyRecord | None) -> None:
    if record is None:
        console.print(f"{name}: accuracy not measured")
        return
    verdict = "" if record.passed else f" [bold red]below the threshold of {record.min_miou}[/bold red]"
    clips = record.measured_on
    whose = "PyTorch's" if clips is None else f"the float32 graph's on {clips.clips} clips ({clips.source})"
    console.print(
        f"{name}{' (emulated)' if record.emulated else ''}: mIoU of the masks with {whose} "
        f"{record.miou:.4f}{verdict}, {record.flipped:.2%} of the "
        f"pixels flipped, logits differ by at most {record.largest_difference:.2g}"
    )
