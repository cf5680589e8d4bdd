"""The C++ runtime's size, start-up and memory beside Python's: `python -m tools.native_runtime BUNDLE VIDEO`.

A round starts each program once for its help and once for a video of one clip, in turn, and opens the graph in ONNX
Runtime alone. The time to the first mask is from the start of the process until the first PNG is written. Start-up is
that time less what both have in common: the decoder, ONNX Runtime's session and the network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import OtherLoad, describe_environment
from avsbg.benchmarks.measure.cases import BenchmarkCase, describe_bundle
from avsbg.benchmarks.measure.memory import measure_memory
from avsbg.benchmarks.measure.workloads import Workload
from avsbg.benchmarks.report.labels import machine_title
from avsbg.benchmarks.report.tables import Columns, markdown, number, with_interval
from avsbg.benchmarks.results.schema import Measurement, Metric, Run, write_rows
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.native_library import native_library
from avsbg.runtime.bundle import Bundle, sha256
from tools import Output, command
from tools.native_parity import onnxruntime_library

PYTHON, NATIVE = "python", "c++"
BACKEND = "onnxruntime"
FILES = ("lib/libavsbg.so.1", "lib/libavsbg_backend_onnxruntime.so", "bin/avsbg-run")
# Seconds between two looks at a program.
LOOK = 0.002
# Prints the seconds that ONNX Runtime takes to open a graph with a library of operators.
OPEN_SESSION = """
import sys, time, onnxruntime
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(sys.argv[2])
start = time.perf_counter()
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(time.perf_counter() - start)
"""


class Sample(NamedTuple):
    """One run of a program."""

    first_mask: float  # seconds from the start of the process
    shared: float  # seconds in decoder and network
    peak: int  # bytes in memory


def measure(path: Path, video: Path, prefix: Path, samples: int) -> list[Measurement]:
    """Measure both programs in turn.

    Args:
        path: a bundle.
        video: no longer than its clips, so that the network runs once.
        prefix: where libavsbg and avsbg-run are installed.
        samples: rounds.

    Raises:
        BenchmarkError: a program failed, or the video is of several clips.
    """
    bundle, load = Bundle.open(path), OtherLoad()
    python = [sys.executable, "-m", "avsbg"]
    native = [str(prefix / "bin" / "avsbg-run")]
    runs = {
        PYTHON: [*python, "run", str(path), str(video)],
        NATIVE: [*native, str(path), str(video), "--runtime-library", str(onnxruntime_library())],
    }
    helps = {PYTHON: [*python, "run", "--help"], NATIVE: [*native, "--help"]}
    times: dict[str, list[float]] = {PYTHON: [], NATIVE: []}
    done: dict[str, list[Sample]] = {PYTHON: [], NATIVE: []}
    sessions: list[float] = []
    for number_of_round in range(samples + 1):
        for name in (PYTHON, NATIVE) if number_of_round % 2 else (NATIVE, PYTHON):
            start = time.perf_counter()
            subprocess.run(helps[name], stdout=subprocess.DEVNULL, check=True)
            spent, ran = time.perf_counter() - start, run_once(runs[name], bundle.manifest.clip.frames)
            if number_of_round:  # the first reads the programs and the bundle from the disk
                times[name].append(spent)
                done[name].append(ran)
        if number_of_round:
            sessions.append(open_session(bundle))
    memory = measure_memory(BenchmarkCase(BACKEND, bundle, BACKEND, {}), Workload(), runs=1)
    model = max(memory[f"{name}_memory"].number for name in ("peak", "load_peak")) - memory["imported_memory"].number
    others, environment = load.share(), describe_environment()
    described = describe_bundle(bundle)
    described = described.model_copy(update={"files": {**described.files, "video": sha256(video)}})

    def row(quantity: str, unit: Literal["s", "B"], values: dict[str, list[float]], **metrics: Metric) -> Measurement:
        return Measurement(
            kind="native-runtime",
            label=quantity,
            case={"quantity": quantity},
            metrics={
                "python": Metric(unit=unit, samples=tuple(values[PYTHON])),
                "native": Metric(unit=unit, samples=tuple(values[NATIVE])),
                "ratio": Metric.of(paired_ratio(values[NATIVE], values[PYTHON])),
                **metrics,
            },
            ran=described,
            run=Run(others=others),
            environment=environment,
        )

    return [
        row("help", "s", times),
        row(
            "start-up: first mask, less decoder, session and network",
            "s",
            {
                name: [one.first_mask - one.shared - session for one, session in zip(each, sessions, strict=True)]
                for name, each in done.items()
            },
            session=Metric(unit="s", samples=tuple(sessions)),
        ),
        row("first mask", "s", {name: [one.first_mask for one in each] for name, each in done.items()}),
        row(
            "peak memory beyond the model",
            "B",
            {name: [max(0.0, one.peak - model) for one in each] for name, each in done.items()},
            model=Metric(unit="B", value=model),
            size=Metric(unit="B", parts=dict(stripped_sizes(prefix))),
        ),
    ]


def run_once(words: Sequence[str], frames: int) -> Sample:
    """Segment a video of at most so many frames, one clip; a `BenchmarkError` if that fails or takes several clips."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "stderr").open("w+", encoding="utf-8") as errors:
        output = Path(folder) / "out"
        options = ["-o", str(output), "--no-overlay", "--rate", "1", "--backend", BACKEND]
        start, peak = time.time(), 0  # of the clock that files are stamped by
        with subprocess.Popen([*words, *options], stdout=subprocess.DEVNULL, stderr=errors) as process:
            while process.poll() is None:
                peak = max(peak, _peak(process.pid))
                time.sleep(LOOK)
        if process.returncode:
            errors.seek(0)
            raise BenchmarkError(f"{words[0]} failed: {errors.read().strip()[-500:]}")
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        if summary["masks"] > frames:
            raise BenchmarkError(f"the video has {summary['masks']} masks, and the network runs several times.")
        first = (output / "masks" / "00000.png").stat().st_mtime - start
        return Sample(first, sum(summary["seconds_spent"][step] for step in ("decode", "inference")), peak)


def open_session(bundle: Bundle) -> float:
    """Seconds that ONNX Runtime takes to open the clip's graph, in a process of its own."""
    files = [str(bundle.file(bundle.graph("clip").file)), str(native_library("onnxruntime").path)]
    done = subprocess.run([sys.executable, "-c", OPEN_SESSION, *files], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _peak(process: int) -> int:
    """The most memory of a process so far, bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def stripped_sizes(prefix: Path) -> dict[str, int]:
    """The size of each file of the C++ runtime without its symbols, bytes."""
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            copy = Path(shutil.copy(prefix / name, folder))
            subprocess.run(["strip", "--strip-unneeded", str(copy)], check=True)
            sizes[Path(name).name] = copy.stat().st_size
    return sizes


def runtime_table(rows: Sequence[Measurement]) -> str:
    """Start-up and memory of both runtimes, in pairs, as Markdown, and the sizes of the files."""

    def median(row: Measurement, name: str) -> str:
        metric = row[name]
        scale, form = (1e3, "{:.0f} ms") if metric.unit == "s" else (2**-20, "{:.0f} MiB")
        return form.format(scale * metric.summary.p50)

    columns: Columns[Measurement] = [
        ("", lambda row: row.label),
        ("Python", lambda row: number(median(row, "python"))),
        ("C++", lambda row: number(median(row, "native"))),
        ("C++, Python: 1", lambda row: with_interval(row["ratio"])),
    ]
    first, last = rows[0], rows[-1]
    sizes = ", ".join(f"`{name}` {size / 1024:.0f} KiB" for name, size in last["size"].parts.items())
    return (
        f"{markdown(rows, columns)}\n\n"
        f"{first.ran.network}, {machine_title(first)}; {len(first['python'].samples)} rounds. "
        f"The model, open in ONNX Runtime with a clip run, takes {last['model'].number / 2**20:.0f} MiB of either. "
        f"Stripped: {sizes}."
    )


@command
def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    video: Annotated[Path, typer.Argument(help="A video of one clip.")],
    prefix: Annotated[Path, typer.Option(help="Where libavsbg and avsbg-run are installed.")] = Path("build/sdk"),
    output: Output = Path("benchmarks/results/native_runtime.jsonl"),
    samples: Annotated[int, typer.Option(min=6, help="Rounds.")] = 12,
) -> None:
    """Measure start-up and memory of both runtimes, and the size of the C++ one."""
    rows = measure(bundle, video, prefix, samples)
    write_rows(output, rows)
    typer.echo(runtime_table(rows))
