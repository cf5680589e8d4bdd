"""`avsbg batch`: large collections of videos, on this machine or over a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from avsbg.cli import RUN, app
from avsbg.cli.options import (
    Backend,
    BundlePath,
    Device,
    Hwaccel,
    Implementation,
    Masks,
    Mode,
    NoOverlay,
    NoSound,
    Overwrite,
    Precision,
    RunLengths,
    Threads,
    Threshold,
)


@app.command(rich_help_panel=RUN)
def batch(  # noqa: PLR0917  (each is an option by name)
    bundle: BundlePath,
    sources: Annotated[
        list[str],
        Argument(
            metavar="SOURCE",
            help="Videos, addresses of videos (https://, s3://), folders, lists (.txt), tables (.csv, .parquet).",
        ),
    ],
    output: Annotated[str, Option("-o", "--output", metavar="DIR", help="A folder, or an address (s3://...).")],
    engine: Annotated[
        Literal["local", "ray"], Option(help="local: this machine. ray: a cluster, with Ray Data.")
    ] = "local",
    address: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="Address of a running Ray cluster. By default one is started on this machine."),
    ] = None,
    workers: Annotated[
        int | None, Option(min=1, metavar="N", help="The most workers. By default as many as fit.")
    ] = None,
    cpus: Annotated[float, Option(min=0, metavar="N", help="Processor cores for each worker.")] = 1.0,
    gpus: Annotated[float, Option(min=0, metavar="N", help="GPUs for each worker; 0.5 lets two share one.")] = 0.0,
    column: Annotated[
        str, Option(metavar="NAME", help="The column of a table that holds paths and addresses.")
    ] = "video",
    backend: Backend = "auto",
    implementation: Implementation = None,
    precision: Precision = None,
    threshold: Threshold = 0.5,
    no_sound: NoSound = False,
    masks: Masks = "png",
    rle: RunLengths = False,
    no_overlay: NoOverlay = False,
    mode: Mode = None,
    hwaccel: Hwaccel = None,
    device: Device = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Segment a large collection of videos; results.parquet has a row for each.

    Each video has a directory in DIR, as `avsbg run --rate 1` writes it. Complete ones are skipped. A video that cannot
    be fetched, or crashes the process that works on it, is tried once more; a broken one is not. The results table has
    the reason.
    """
    from functools import partial

    from avsbg.api import open_segmenter
    from avsbg.cli.backends import join_names, show_messages
    from avsbg.cli.interruption import interruptible
    from avsbg.cli.output import plain_console
    from avsbg.progress import ProgressBars
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.cluster.collection import check_addresses, is_address, list_collection
    from avsbg.runtime.cluster.engines import RESULTS, ClusterOptions, collect, run_local, run_ray
    from avsbg.runtime.cluster.worker import CollectionResult, Job, join_address
    from avsbg.runtime.errors import MediaError, OutputError, WorkerError
    from avsbg.runtime.segment.pipeline import Options

    if engine == "local" and address is not None:
        raise WorkerError(f"--address {address} is for --engine ray.")
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        hint = "Install it with `pip install 'avsbg[cluster]'`."
        raise OutputError(f"the results are a Parquet table, and pyarrow cannot be imported: {error}.", hint) from error
    Bundle.open(bundle)  # or an error before any worker is begun
    place, items = output if is_address(output) else str(Path(output).resolve()), list_collection(sources, column)
    check_addresses([place, *(item.source for item in items)])
    spec, stream = join_names(backend, implementation, precision), None if mode is None else mode == "stream"
    # Workers share a machine: by default each takes the threads that it was given processors for.
    threads = threads or (max(1, int(cpus)) if engine == "ray" else None)
    show_messages()
    network = partial(open_segmenter, bundle.resolve(), spec, stream=stream, device=device, threads=threads)
    options = Options(threshold, no_sound, masks, rle, False, not no_overlay, hwaccel=hwaccel)
    job = Job(network, options, place, overwrite)
    with interruptible(), ProgressBars() as bars:
        done = 0

        def report(result: CollectionResult) -> None:
            nonlocal done
            done += 1
            bars("videos", done, len(items))
            if result.error is not None:
                bars.console.print("[bold red]error:[/] ", end="")
                bars.console.print(f"{result.source}: {result.error}", markup=False)

        bars("videos", 0, len(items))
        if engine == "ray":
            results = run_ray(job, items, ClusterOptions(address, workers, cpus, gpus))
        else:
            results = run_local(job, items)
        found = collect(results, place, report)
    states = {state: sum(one.state == state for one in found) for state in ("done", "finished before", "failed")}
    told = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    plain_console(markup=False).print(f"{len(found)} videos: {told}; {join_address(place, RESULTS)}")
    if states["failed"]:
        hint = f"The reasons are in {join_address(place, RESULTS)}; the same command does those alone again."
        raise MediaError(f"{states['failed']} of {len(found)} videos failed.", hint)
