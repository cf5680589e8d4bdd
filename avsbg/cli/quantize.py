"""`avsbg quantize`: the graphs of a bundle in another precision, without TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from avsbg.cli import MAKE, app
from avsbg.cli.output import describe_accuracy, plain_console
from avsbg.progress import phase_bar

if TYPE_CHECKING:
    from rich.console import Console

    from avsbg.runtime.bundle.quantisation_record import QuantisationRecord


@app.command(rich_help_panel=MAKE)
def quantize(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, Argument(help="The bundle that `avsbg export` made; the graphs go there.")],
    precision: Annotated[str, Option(metavar="NAME", help="fp16, bf16, int8 or fp8.")],
    rest: Annotated[
        str | None,
        Option(
            metavar="TYPE", help="For int8 and fp8: the type of all that is not quantized, fp16 or fp32 (the default)."
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        Option(
            metavar="FOLDER",
            help="For int8 and fp8, the clips to calibrate on: a folder of videos; data in AVSBench's layout "
            "(FOLDER:s4:val names task and split); or `vectors`, the bundle's synthetic test vectors. By default the "
            "earlier calibration.",
        ),
    ] = None,
    calibration_clips: Annotated[int, Option(metavar="N", help="The most clips to calibrate on.")] = 16,
    seed: Annotated[int, Option(metavar="N", help="Seed of the choice of clips.")] = 0,
    accuracy: Annotated[
        str | None,
        Option(
            metavar="FOLDER",
            help="Clips to measure the accuracy on, named as for --calibrate. By default the synthetic test vectors, "
            "in which a trained network may mark next to nothing.",
        ),
    ] = None,
    accuracy_clips: Annotated[int, Option(metavar="N", help="The most clips to measure the accuracy on.")] = 32,
    min_miou: Annotated[
        float | None,
        Option(
            metavar="MIOU",
            help="The accuracy threshold: the least mean IoU with PyTorch's masks. By default the precision's own.",
        ),
    ] = None,
) -> None:
    """Add the bundle's graphs in another precision, and measure what that costs in accuracy."""
    with phase_bar() as (_, progress):
        from avsbg.export.precision.calibrate import ClipSource
        from avsbg.export.precision.graphs import convert_bundle

        converted = convert_bundle(
            bundle,
            precision,
            calibration=None if calibrate is None else ClipSource(calibrate, calibration_clips, seed),
            rest=rest,
            accuracy_clips=None if accuracy is None else ClipSource(accuracy, accuracy_clips, seed),
            min_miou=min_miou,
            progress=progress,
        )
    console = plain_console()
    if converted.quantisation is not None:
        _show_calibration(console, converted.quantisation)
    for name, graph in converted.graphs.items():
        if (accuracy_record := graph.accuracy) is None:
            console.print(f"{name}: accuracy not measured")
            continue
        clips, emulated = accuracy_record.measured_on, " (emulated)" if accuracy_record.emulated else ""
        whose = "PyTorch's" if clips is None else f"the float32 graph's on {clips.clips} clips ({clips.source})"
        console.print(f"{name}{emulated}: mIoU of the masks with {whose} {describe_accuracy(accuracy_record)}")


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
        left_out = f"{trial.groups} of {len(record.groups)} groups left out ({trial.products} products)"
        console.print(f"  {left_out}: {trial.miou:.4f}, {verdict}")
    reasons: dict[str, list[str]] = {}
    for product, reason in record.not_quantised.items():
        reasons.setdefault(reason, []).append(product)
    for reason, products in reasons.items():
        console.print(f"not quantised, {reason}: {len(products)} products, e.g. {products[0]}")
    if source.source == "vectors":
        console.print("[yellow]the test vectors are synthetic: calibrate on real clips before you deploy[/yellow]")
