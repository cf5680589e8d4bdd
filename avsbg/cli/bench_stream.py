"""`avsbg bench stream`: a stream at fixed rates and at full speed, against clip mode, and over a long time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from avsbg.cli.backends import join_names
from avsbg.cli.bench import bench
from avsbg.cli.options import BACKEND_HELP, PANEL, Device, Implementation, Overwrite, Precision, Threads
from avsbg.cli.output import plain_console


@bench.command("stream")
def stream(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, Argument(help="A bundle that `avsbg export --stream` made.")],
    rows_file: Annotated[Path, Option("--rows", metavar="FILE", help="The file to write, JSON Lines.")],
    backend: Annotated[str, Option(metavar="NAME", help=f"{BACKEND_HELP}.", rich_help_panel=PANEL)] = "onnxruntime",
    implementation: Implementation = None,
    precision: Precision = None,
    fps: Annotated[
        list[str] | None,
        Option(metavar="N|max", help="Frames per second. May be repeated; by default 1, 10, 30 and max."),
    ] = None,
    duration: Annotated[
        float, Option(metavar="SECONDS", min=0.1, help="How long to measure each rate of frames.")
    ] = 30.0,
    samples: Annotated[int, Option(metavar="N", min=2, help="Pairs of samples of clip mode and stream.")] = 30,
    device: Device = None,
    threads: Threads = None,
    soak: Annotated[
        int | None,
        Option(min=8, metavar="FRAMES", help="Measure only the memory while this many frames pass at full speed."),
    ] = None,
    append: Annotated[bool, Option("--append", help="Add the rows to those in FILE.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Measure a stream: latency, jitter, missed frames, load and memory; and compare it with clip mode, in pairs.

    Latency is the time from the arrival of the frame that completes a mask to the mask. One frame may wait for the
    network; a newer one replaces it, and the replaced frame is missed.
    """
    from avsbg.benchmarks.errors import BenchmarkError
    from avsbg.benchmarks.machine.environment import default_threads
    from avsbg.benchmarks.measure.streaming import StreamBench
    from avsbg.benchmarks.report.streaming import describe_stream
    from avsbg.benchmarks.results.schema import Measurement, read_rows, write_rows
    from avsbg.runtime.bundle import Bundle

    if rows_file.exists() and not (append or overwrite):
        raise BenchmarkError(f"{rows_file} exists already.", "Add to it with --append, or replace it with --overwrite.")
    rates = [_rate(text) for text in fps or ["1", "10", "30", "max"]]
    rows = read_rows(rows_file) if append and rows_file.exists() else []
    console = plain_console()
    name = join_names(backend, implementation, precision)
    with StreamBench(Bundle.open(bundle), name, threads or default_threads(), device) as measurement:
        new: list[Measurement] = []
        if soak is not None:
            new.append(measurement.soak(soak, lambda line: console.print(line, style="dim")))
        else:
            for one in rates:
                console.print(f"frames at {'full speed' if one is None else f'{one:g} a second'}", style="dim")
                new.append(measurement.pace(one, duration))
            console.print("clip mode and streaming in turn", style="dim")
            new += [measurement.pairs(samples), measurement.difference()]
    write_rows(rows_file, [*rows, *new])
    for row in new:
        console.print(describe_stream(row))
    console.print(f"{rows_file}: {len(rows) + len(new)} rows")


def _rate(text: str) -> float | None:
    from avsbg.benchmarks.errors import BenchmarkError

    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1000:
        raise BenchmarkError(f"--fps is a number of frames per second or max, not {text!r}.", "For instance 10.")
    return value
