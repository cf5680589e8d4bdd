"""Benchmarks beside those of `avsbg`: `python -m avsbg.benchmarks COMMAND`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from avsbg.errors import AvsbgError

app = typer.Typer(no_args_is_help=True, help="Benchmarks beside `avsbg bench` and `avsbg bench stream`.")

Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The file of rows to write.")]
Threads = Annotated[int, typer.Option(min=1, help="Of every backend.")]


@app.command()
def counts(
    update: Annotated[bool, typer.Option("--update", help="Make what is counted now the committed counts.")] = False,
    callgrind: Annotated[
        bool, typer.Option("--callgrind/--no-callgrind", help="Count the CPU operator's instructions (needs valgrind).")
    ] = True,
    file: Annotated[Path | None, typer.Option(help="The file of counts, in place of the committed one.")] = None,
) -> None:
    """Compare operations, nodes, bytes and instructions with the committed counts."""
    from avsbg.benchmarks.static.counts import COUNTS, check_counts

    check_counts(file or COUNTS, update=update, callgrind=callgrind)


@app.command()
def operator(  # noqa: PLR0917  (each is an option by name)
    output: Output = Path("benchmarks/results/operator_cpu.jsonl"),
    side: Annotated[list[int] | None, typer.Option(help="Map size, repeatable; by default the four stages'.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Thread count, repeatable; by default 1 and 2.")] = None,
    samples: Annotated[int, typer.Option(min=2, help="Samples of each way to compute it.")] = 30,
    pause: Annotated[float, typer.Option(min=0, help="Seconds of rest before each call.")] = 0.1,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, in a process for each way.")] = True,
) -> None:
    """Time the correlation operator against other ways to compute it, on the CPU."""
    import os

    from avsbg.benchmarks.measure.operator import SIDES, measure_operator
    from avsbg.benchmarks.report.operator import operator_text
    from avsbg.benchmarks.results.schema import write_rows
    from avsbg.progress import ProgressBars

    if cores := [name for name in ("OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS") if os.environ.get(name)]:
        typer.echo(f"{', '.join(cores)} is set: sgemm may not run this processor's fastest kernel.", err=True)
    with ProgressBars(quiet=True) as progress:
        rows = measure_operator(side or SIDES, threads or (1, 2), progress, samples=samples, pause=pause, memory=memory)
    write_rows(output, rows)
    typer.echo(operator_text(rows))


@app.command()
def precision(  # noqa: PLR0917  (each is an option by name)
    bundles: Annotated[list[Path], typer.Argument(help="Bundles; they are not changed.")],
    output: Output,
    append: Annotated[bool, typer.Option("--append", help="Keep rows that are not renewed.")] = False,
    precision: Annotated[list[str] | None, typer.Option(help="May be repeated. By default all.")] = None,
    rest: Annotated[
        str | None, typer.Option(help="Measure int8 and fp8 alone, with this type of what is not quantised: fp16.")
    ] = None,
    calibrate: Annotated[
        str, typer.Option(metavar="FOLDER", help="For int8 and fp8 where a bundle has none: as `avsbg quantize`.")
    ] = "vectors",
    dataset: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Also a data set: the folder of AVSBench, or in its layout.")
    ] = None,
    task: Annotated[Literal["s4", "ms3"], typer.Option(help="Of the data set.")] = "ms3",
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Of the data set.")] = "test",
    threads: Threads = 1,
) -> None:
    """Measure what each precision costs in accuracy."""
    from avsbg.benchmarks.measure.precision import measure_precisions
    from avsbg.benchmarks.report.precision import precision_table
    from avsbg.model.training.data import AvsBenchDataset
    from avsbg.progress import ProgressBars

    with ProgressBars() as progress:
        rows = measure_precisions(
            bundles,
            output,
            progress,
            precisions=precision or (),
            rest=None if rest == "fp32" else rest,
            calibrate=calibrate,
            dataset=None if dataset is None else AvsBenchDataset(dataset, task, split),
            threads=threads,
            append=append,
        )
    typer.echo(precision_table(rows))


Bundles = Annotated[Path, typer.Option(metavar="DIR", help="The folder of the networks' bundles.")]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="Repeatable; by default all.")]


@app.command()
def networks(  # noqa: PLR0917  (each is an option by name)
    output: Output = Path("out/networks/rows.jsonl"),
    bundles: Bundles = Path("out/networks"),
    only: Only = None,
    samples: Annotated[int, typer.Option(min=2, help="Rounds that are kept, at the least.")] = 8,
    interval: Annotated[
        float, typer.Option(metavar="SHARE", help="Go on until each ratio's interval is no wider, in shares of it.")
    ] = 0.05,
    budget: Annotated[float, typer.Option(metavar="SECONDS", help="How long these rounds may take.")] = 300.0,
    warmup: Annotated[int, typer.Option(min=1, help="Rounds that are dropped first.")] = 2,
    threads: Annotated[int | None, typer.Option(min=1, help="By default the physical cores.")] = None,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure peak memory.")] = True,
    frames: Annotated[int, typer.Option(min=1, help="Of a clip.")] = 5,
    size: Annotated[int, typer.Option(metavar="N", help="Height and width of the frames.")] = 224,
) -> None:
    """Measure every network of the registry in turn, in one run; export those whose bundles are not there.

    The rows take the place of those of an earlier run in the file; rows of engines stay.
    """
    from avsbg.benchmarks.machine.environment import default_threads
    from avsbg.benchmarks.measure.networks import measure_networks, write_latency_rows
    from avsbg.benchmarks.measure.sampling import Settings
    from avsbg.benchmarks.report.speed import cost_table, latency_table
    from avsbg.benchmarks.report.tables import results_console, to_console
    from avsbg.progress import ProgressBars

    settings = Settings(warmup, samples, seconds=0.0, interval=interval, budget=budget, memory=memory)
    shape = {"frames": frames, "size": size}
    with ProgressBars(quiet=True) as progress:
        threads = threads or default_threads()
        rows = measure_networks(bundles, settings, progress, threads=threads, only=only or (), **shape)
    write_latency_rows(output, rows)
    for table in (latency_table(rows), cost_table(rows)):
        results_console().print(to_console(table))
    typer.echo(f"{output}: {len(rows)} rows")


@app.command()
def network_engines(
    output: Output = Path("out/networks/rows.jsonl"),
    bundles: Bundles = Path("out/networks"),
    only: Only = None,
    precision: Annotated[str, typer.Option(help="Of the products.")] = "fp32",
    compute_capability: Annotated[int, typer.Option(metavar="N", help="To build for, 86 for 8.6.")] = 86,
) -> None:
    """Build each network that `networks` exported with TensorRT for RTX, without a GPU; rows join those of the file."""
    from avsbg.benchmarks.measure.networks import add_engine_rows, list_systems
    from avsbg.benchmarks.static.engines import build_engines
    from avsbg.progress import ProgressBars

    systems = list_systems(only or ())  # also the reference of ratios, which an engine has no use for
    paths = [bundles / system.name for system in systems if not only or system.name in only]
    with ProgressBars() as progress:
        rows = build_engines(paths, precision, compute_capability, progress)
    add_engine_rows(output, rows)
    for row in rows:
        typer.echo(f"{row.ran.network}: {'; '.join(row.problems) or row.label}")


@app.command()
def collection(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, typer.Argument(help="A bundle that takes sound as a waveform.")],
    video: Annotated[Path, typer.Argument(help="A video, of which the collection has copies.")],
    output: Output = Path("benchmarks/results/collection_speed.jsonl"),
    python: Annotated[
        Path, typer.Option(metavar="FILE", help="The interpreter of an environment with avsbg[cpu,cluster].")
    ] = Path(".environments/services/bin/python"),
    backend: Annotated[str, typer.Option(metavar="NAME", help="As `avsbg run` takes it.")] = "onnxruntime",
    count: Annotated[int, typer.Option(min=2, help="Videos.")] = 16,
    samples: Annotated[int, typer.Option(min=2, help="Rounds that are kept.")] = 10,
) -> None:
    """Time a collection by `avsbg batch`, here and over Ray, against one process on the same cores."""
    from avsbg.benchmarks.measure.collection import measure_collection
    from avsbg.benchmarks.report.collection import cost_table, throughput_table
    from avsbg.benchmarks.results.schema import write_rows
    from avsbg.progress import ProgressBars

    with ProgressBars(quiet=True) as progress:
        rows = measure_collection(bundle, video, progress, python=python, backend=backend, count=count, samples=samples)
    write_rows(output, rows)
    typer.echo(f"{throughput_table(rows)}\n\n{cost_table(rows)}")


if __name__ == "__main__":
    try:
        app()
    except AvsbgError as error:
        sys.exit(f"error: {error}")
