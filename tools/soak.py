"""A long source at full speed through `avsbg run`, its memory watched: `python -m tools.soak`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import psutil
import typer

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.results.schema import Measurement, Metric, Ran, write_rows
from tools import Output, command

SOURCE = "lavfi:testsrc2=rate=10:size=160x120[out0];sine=frequency=440:sample_rate=44100,volume=8[out1]"


def soak(bundle: Path, seconds: float, backend: str) -> Measurement:
    """Run `avsbg run` on a generator and watch its memory; a `BenchmarkError` if it fails."""
    samples: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        program = [sys.executable, "-m", "avsbg", "run", str(bundle), SOURCE]
        program += ["-o", str(output), "--duration", str(seconds), "--masks", "video", "--rle", "--backend", backend]
        start = time.monotonic()
        with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                try:
                    samples.append(watched.memory_info().rss)
                except psutil.Error:  # it ended between the two
                    break
                time.sleep(1.0)
            _, errors = process.communicate()
            clock = time.monotonic() - start
        if process.returncode:
            raise BenchmarkError(f"the run failed with exit code {process.returncode}: {errors.strip()[-500:]}")
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return Measurement(
        kind="run-soak",
        case={"source": SOURCE, "mode": summary["backend"]["mode"]},
        metrics={
            "asked": Metric(unit="s", value=seconds),
            "masks": Metric(value=summary["seconds"]),
            "dropped": Metric(value=summary["dropped_seconds"]),
            "waiting": Metric(parts=summary["most_waiting"]),
            "duration": Metric(unit="s", value=round(clock, 2)),
            "resident": Metric(unit="B", samples=tuple(size for size in samples if size)),
        },
        ran=Ran(network=summary["bundle"]["name"]),
        environment=describe_environment(),
    )


def soak_text(rows: Sequence[Measurement]) -> str:
    """A long run of `avsbg run` and its memory as a sentence."""
    (row,) = rows
    resident, asked = row["resident"].samples, row["asked"].number
    # The most memory in the second tenth of the run, when all is loaded, and in the last tenth.
    tenth = max(1, len(resident) // 10)
    early, late = max(resident[tenth : 2 * tenth]), max(resident[-tenth:])
    return (
        f"A soak of {asked / 3600:g} h of video at full speed ({row.ran.network}, {row.case['mode']} mode, overlay, "
        f"lossless masks and run lengths): {row['masks'].number} masks for {asked:g} s, {row['dropped'].number} "
        f"dropped, in {row['duration'].number:.0f} s. The most memory in the second tenth of the run was "
        f"{early / 2**20:.0f} MiB, in the last tenth {late / 2**20:.0f} MiB."
    )


@command
def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle that takes a waveform or log-mel patches.")],
    output: Output = Path("benchmarks/results/soak.jsonl"),
    seconds: Annotated[float, typer.Option(min=60, help="Seconds of video.")] = 3600,
    backend: Annotated[str, typer.Option(help="What executes the network.")] = "onnxruntime",
) -> None:
    """Watch the memory of a long run."""
    rows = [soak(bundle, seconds, backend)]
    write_rows(output, rows)
    typer.echo(soak_text(rows))
