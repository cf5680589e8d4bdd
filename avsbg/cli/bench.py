"""`avsbg bench run`: networks and backends compared, in one process and in turn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Exit, Option, Typer

from avsbg.cli import MEASURE, VerbGroup, app
from avsbg.cli.backends import join_names
from avsbg.cli.options import Backends, Device, Implementation, Overwrite, Precision, Threads, Trust
from avsbg.cli.output import plain_console

if TYPE_CHECKING:
    from rich.console import Console

UNSTABLE = 3  # the exit code of a run in which a row may not be published

bench = Typer(
    cls=VerbGroup, no_args_is_help=True, help="Measure networks, backends and streams; compare and report the rows."
)
app.add_typer(bench, name="bench", rich_help_panel=MEASURE)


@bench.command()
def run(  # noqa: PLR0917  (each is an option by name)
    bundles: Annotated[list[Path], Argument(metavar="BUNDLE", help="Bundles made by `avsbg export`.")],
    backend: Backends = None,
    implementation: Implementation = None,
    precision: Precision = None,
    scope: Annotated[
        Literal["model", "end-to-end"],
        Option(help="model: clips and audio embeddings in memory. end-to-end: from a video file."),
    ] = "model",
    video: Annotated[Path | None, Option(metavar="FILE", help="The video for end-to-end.")] = None,
    batch: Annotated[int, Option(metavar="N", help="Clips per call (scope model).")] = 1,
    samples: Annotated[int, Option(metavar="N", help="At least this many samples for each row.")] = 30,
    min_time: Annotated[
        float, Option(metavar="SECONDS", help="Sample for at least this time, all rows together.")
    ] = 3.0,
    extra_rounds: Annotated[int, Option(metavar="N", help="Up to this many more rounds while a row is unstable.")] = 0,
    interval: Annotated[
        float | None,
        Option(metavar="SHARE", help="Go on until every ratio's interval is at most this share of it, e.g. 0.05."),
    ] = None,
    budget: Annotated[float, Option(metavar="SECONDS", help="The most time for the rounds of --interval.")] = 600.0,
    resume: Annotated[
        bool,
        Option("--resume", help="Add rounds to the results in DIR, if there are any."),
    ] = False,
    warmup: Annotated[int, Option(metavar="N", help="Warm-up rounds, which do not count.")] = 3,
    threads: Threads = None,
    device: Device = None,
    trust: Trust = False,
    reference: Annotated[
        str | None, Option(metavar="LABEL", help="The row that ratios refer to. By default the first.")
    ] = None,
    no_memory: Annotated[
        bool, Option("--no-memory", help="Do not measure peak memory, which needs another process for each row.")
    ] = False,
    profile: Annotated[
        bool, Option("--profile", help="Also time the parts of each network, after the samples (scope model).")
    ] = False,
    output: Annotated[
        Path | None,
        Option("-o", "--output", metavar="DIR", help="The directory to create. By default a new one under out/."),
    ] = None,
    overwrite: Overwrite = False,
    allow_unstable: Annotated[bool, Option("--allow-unstable", help="Exit with 0 even if a row is unstable.")] = False,
) -> None:
    """Compare networks and backends: parameters, operations, latency, memory.

    Each row is a bundle on a backend. All are loaded in one process and take turns, so that samples of one round form
    pairs. DIR receives the rows with every raw sample (rows.jsonl) and a picture of their distributions. `avsbg bench
    report` makes a page of them; `avsbg bench compare` compares two runs.

    The exit code is 3 if a row is unstable: too few samples, too much variation or drift, a machine busy with other
    work, or logits that are not PyTorch's.
    """
    from rich.console import Console

    from avsbg.benchmarks.machine.environment import default_threads
    from avsbg.benchmarks.measure.cases import list_cases
    from avsbg.benchmarks.measure.profile import profile_all
    from avsbg.benchmarks.measure.runner import compare
    from avsbg.benchmarks.measure.sampling import Settings
    from avsbg.benchmarks.measure.workloads import Workload
    from avsbg.benchmarks.report.directory import results_directory, write_results
    from avsbg.benchmarks.report.speed import cost_table, latency_table
    from avsbg.benchmarks.report.tables import results_console, to_console
    from avsbg.benchmarks.results.schema import ROWS, read_rows
    from avsbg.progress import ProgressBars

    # Refused before anything is measured.
    directory = results_directory(output, force=overwrite or resume)
    earlier = read_rows(directory, "latency") if resume and (directory / ROWS).is_file() else []
    workload = Workload(scope=scope, clips=batch, video=video)
    settings = Settings(
        warmup=warmup,
        samples=samples,
        seconds=min_time,
        patience=extra_rounds,
        interval=interval,
        budget=budget,
        reference=reference,
        memory=not no_memory,
    )
    threads = threads or default_threads()
    targets = [join_names(name, implementation, precision) for name in backend or ["onnxruntime"]]
    report = plain_console(stderr=True, markup=False).print
    chosen = list_cases(bundles, targets, threads=threads, clips=batch, device=device, trust=trust, report=report)
    with ProgressBars(quiet=True) as progress:
        rows = compare(chosen, workload, settings, progress, earlier=earlier)
        profiles = profile_all(chosen, workload, progress) if profile else []
    write_results(directory, rows, profiles, replace=overwrite or resume)
    console = results_console()
    console.print(to_console(latency_table(rows)))
    console.print(to_console(cost_table(rows)))
    written = "rows.jsonl, latency.png, latency.svg" + (", profile.jsonl" if profiles else "")
    console.print(f"{directory}: {written}. As a page: avsbg bench report {directory} -o REPORT", soft_wrap=True)
    _tell_setting(console)
    unstable = [row.label for row in rows if not row.is_stable]
    if unstable:
        Console(stderr=True).print(
            f"{len(unstable)} of {len(rows)} rows unstable, not a result: {', '.join(unstable)}.\n"
            "Measure again on a quiet machine, or with more --samples, --warmup or --extra-rounds.",
            style="bold red",
            highlight=False,
        )
        if not allow_unstable:
            raise Exit(UNSTABLE)


def _tell_setting(console: Console) -> None:
    """On a Jetson, say in which setting this was measured, and how to set the fast one."""
    from avsbg.runtime.device.jetson import read_jetson

    jetson = read_jetson()
    if jetson is not None:
        commands = "" if jetson.is_fast else f". The fast setting: {' && '.join(jetson.fast_commands())}"
        console.print(f"measured with {jetson.describe()}{commands}", soft_wrap=True)
