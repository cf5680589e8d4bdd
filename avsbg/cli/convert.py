"""`avsbg convert`: the graphs of a bundle in another precision, without TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbg.cli import app


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
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Clips that decide whether the gate holds, named as for --calibrate; by default the synthetic test "
            "vectors, in which a trained network may mark next to nothing.",
        ),
    ] = None,
    judge_clips: Annotated[int, typer.Option(metavar="N", help="The most clips to judge on.")] = 32,
    gate: Annotated[
        float | None, typer.Option(metavar="MIOU", help="What the masks' mean IoU with PyTorch's must reach.")
    ] = None,
) -> None:
    """Add the graphs in a precision to the bundle, and measure what it costs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table

    errors, console = Console(stderr=True), Console(highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("loading", total=None)
        from avsbg.export.precision.convert_bundle import Calibration, convert_bundle

        converted = convert_bundle(
            bundle,
            precision,
            calibration=None if calibrate is None else Calibration(calibrate, calibration_clips, seed),
            judge=None if judge is None else Calibration(judge, judge_clips, seed),
            gate=gate,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    if record := converted.quantisation:
        table = Table("layers", "products", "logit error", "mIoU", "left out", title="each group quantised alone")
        for name, group in record.groups.items():
            cost = f"{group.logit_error:.4f}"
            table.add_row(name, str(group.products), cost, f"{group.miou:.4f}", "yes" if group.left_out else "")
        console.print(table)
        source = record.calibration
        console.print(f"calibrated on {source.clips} clips ({source.source}); {len(record.left_out)} products left out")
        if record.judged_clips:
            console.print(f"judged on {record.judged_clips} clips: mIoU {record.miou:.4f}, {record.min_miou} demanded")
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
    for name, graph in converted.graphs.items():
        accuracy = graph.accuracy
        if accuracy is None:
            console.print(f"{name}: accuracy not measured")
            continue
        verdict = "" if accuracy.passed else f" [bold red]below the gate of {accuracy.min_miou}[/bold red]"
        clips = accuracy.judged_on
        whose = "PyTorch's" if clips is None else f"the float32 graph's on {clips.clips} clips ({clips.source})"
        console.print(
            f"{name}{' (emulated)' if accuracy.emulated else ''}: mIoU of the masks with {whose} "
            f"{accuracy.miou:.4f}{verdict}, {accuracy.flipped:.2%} of the "
            f"pixels flipped, logits differ by at most {accuracy.largest_difference:.2g}"
        )
