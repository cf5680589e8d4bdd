"""Time from the command to the first mask: `python -m tools.start_up BUNDLE... --video VIDEO`.

A round runs `avsbg run` once for each bundle and backend, and its stages one after the other in a process of their own,
in turn. The first round fills the caches (of files, and of what `auto` measured) and does not count. The first mask's
time is when its file was written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import OtherLoad, describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.report.labels import machine_title
from avsbg.benchmarks.report.tables import markdown_of
from avsbg.benchmarks.results.schema import Measurement, Metric, Run, write_rows
from avsbg.runtime.bundle import Bundle, sha256
from tools import Output, command

COMMAND = (sys.executable, "-m", "avsbg", "run")
STAGES = {
    "interpreter": "Python itself",
    "imports": "imports",
    "hashing": "hashes",
    "session": "session",
    "reading": "first clip read",
    "network": "first clip computed",
}


def measure(bundles: Sequence[Path], video: Path, backends: Sequence[str], samples: int) -> list[Measurement]:
    """Time the command and its stages, for each bundle on each backend in turn."""
    cases = [(Bundle.open(path), backend) for path in bundles for backend in backends]

    def time_round() -> list[dict[str, float]]:
        return [
            {"first_mask": _time_first_mask(bundle.path, video, backend), **_time_stages(bundle.path, video, backend)}
            for bundle, backend in cases
        ]

    time_round()
    load = OtherLoad()
    taken = zip(*(time_round() for _ in range(samples)), strict=True)  # by case, then by round
    run, environment, content = Run(others=load.share()), describe_environment(), sha256(video)
    return [
        Measurement(
            kind="start-up",
            label=f"{bundle.manifest.name} on {backend}",
            case={"video": video.name, "backend": backend},
            metrics={name: Metric(unit="s", samples=tuple(times[name] for times in rounds)) for name in rounds[0]},
            ran=describe_bundle(bundle, files=describe_bundle(bundle).files | {video.name: content}),
            run=run,
            environment=environment,
        )
        for (bundle, backend), rounds in zip(cases, taken, strict=True)
    ]


def _time_first_mask(bundle: Path, video: Path, backend: str) -> float:
    """Seconds from the command until the file of its first mask was complete."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        began = time.time()  # of the clock that files are stamped by
        _run(*COMMAND, str(bundle), str(video), "-o", str(output), "--backend", backend)
        return (output / "masks" / "00000.png").stat().st_mtime - began


def _time_stages(bundle: Path, video: Path, backend: str) -> dict[str, float]:
    script = str(Path(__file__).with_name("start_up_stages.py"))
    began = time.monotonic()
    stages: dict[str, float] = json.loads(_run(sys.executable, script, str(began), str(bundle), str(video), backend))
    return stages


def _run(*arguments: str) -> str:
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BenchmarkError(f"{' '.join(arguments)} failed: {result.stderr.strip()}.")
    return result.stdout


def start_up_table(rows: Sequence[Measurement]) -> str:
    """Seconds to the first mask and of each stage by itself, medians, as Markdown."""

    def cells(row: Measurement) -> list[str]:
        total = row["first_mask"].summary
        stages = [f"{row[name].summary.p50:.2f}" for name in STAGES]
        return [row.ran.network, f"`{row.case['backend']}`", f"{total.p50:.2f} / {total.p90:.2f}", *stages]

    titles = ("network", "backend", "first mask, s<br>p50 / p90", *STAGES.values())
    first = rows[0]
    rounds = len(first["first_mask"].samples)
    return f"{markdown_of(titles, map(cells, rows))}\n\n{first.case['video']}, {machine_title(first)}; {rounds} rounds."


@command
def main(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles that take a waveform or log-mel patches.")],
    video: Annotated[Path, typer.Option(help="A video, of 5 s in the committed rows.")],
    backend: Annotated[
        list[str] | None, typer.Option(help="Several times; by default onnxruntime and openvino.")
    ] = None,
    output: Output = Path("benchmarks/results/start_up.jsonl"),
    samples: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 10,
) -> None:
    """Time from the command to the first mask, and its stages."""
    rows = measure(bundles, video, backend or ("onnxruntime", "openvino"), samples)
    write_rows(output, rows)
    typer.echo(start_up_table(rows))
