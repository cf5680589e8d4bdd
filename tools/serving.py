"""Streams through a real Triton server, and a collection over two nodes of a cluster: `python -m tools.serving`.

Both start programs of the environments that `make environments` makes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.report.tables import markdown_of
from avsbg.benchmarks.results.schema import Measurement, Metric, Ran, replace_rows
from avsbg.runtime.bundle import Bundle
from tools import Output

ROWS = Path("benchmarks/results/serving.jsonl")
ROOT = Path(__file__).parents[1]
STREAMS = (1, 2, 4, 8)
_GRPC, _HTTP = 8731, 8730

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@contextmanager
def _server(bundle: Path, threads: int) -> Iterator[str]:
    """A server of a bundle; yields the address of its model of streams."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        made: list[str | Path] = [
            sys.executable,
            "-m",
            "avsbg",
            "serve",
            "triton",
            bundle,
            "-o",
            models,
            "--name",
            "served",
        ]
        subprocess.run(
            [*made, "--threads", str(threads), "--execute-with", "onnxruntime:native"], check=True, capture_output=True
        )
        command: list[str | Path] = [ROOT / "scripts/tritonserver.sh", ROOT / ".environments/triton", models]
        command += [f"--grpc-port={_GRPC}", f"--http-port={_HTTP}", "--allow-metrics=false", "--log-verbose=0"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            ready = ["curl", "-sf", "--retry", "120", "--retry-connrefused", "--retry-delay", "1", "--retry-all-errors"]
            subprocess.run([*ready, f"http://127.0.0.1:{_HTTP}/v2/health/ready"], check=True, capture_output=True)
            yield f"grpc://127.0.0.1:{_GRPC}/served-stream"
        finally:
            process.terminate()
            process.wait(60)


def measure_streams(path: Path, frames: int, threads: int) -> list[Measurement]:
    """Each number of streams at full speed; every stream sends its next frame when it has the answer to the last."""
    bundle, rows = Bundle.open(path), []
    with _server(path, threads) as address:
        for streams in STREAMS:
            environment = describe_environment()
            command: list[str | Path] = [ROOT / ".environments/triton/bin/python", "-m", "tools.serving_client"]
            done = subprocess.run(
                [*command, path, address, str(streams), str(frames)],
                capture_output=True,
                text=True,
                check=False,
                cwd=ROOT,
            )
            if done.returncode:
                raise BenchmarkError(f"the client failed: {done.stderr.strip()[-500:]}")
            told = json.loads(done.stdout)
            metrics = {
                "latency": Metric(unit="s", samples=tuple(one for part in told["latencies"] for one in part)),
                "masks": Metric(value=streams * frames),
                "duration": Metric(unit="s", value=told["seconds"]),
            }
            rows.append(
                Measurement(
                    kind="served-streams",
                    case={"streams": streams, "frames": frames, "backend": "python", "threads": threads},
                    metrics=metrics,
                    ran=Ran(network=bundle.manifest.name, backend={"backend": "onnxruntime", "operator": "native"}),
                    environment=environment,
                )
            )
    return rows


def measure_collection(bundle: Path, videos: Path) -> Measurement:
    """A folder of videos over two nodes, one of whose workers is killed, held against one process."""
    with tempfile.TemporaryDirectory() as folder:
        cluster, one, report = (Path(folder) / name for name in ("cluster", "one", "report"))
        python = ROOT / ".environments/services/bin/python"
        environment = describe_environment()
        script = ROOT / "tests/fixtures/ray_cluster.py"
        start = time.monotonic()
        done = subprocess.run(
            [python, script, bundle, videos, cluster, report], capture_output=True, text=True, check=False
        )
        spent = time.monotonic() - start
        if done.returncode:
            raise BenchmarkError(f"the cluster failed: {done.stderr.strip()[-500:]}")
        told: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        start = time.monotonic()
        program: list[str | Path] = [
            sys.executable,
            "-m",
            "avsbg",
            "run",
            bundle,
            videos,
            "-o",
            one,
            "--backend",
            "onnxruntime",
        ]
        subprocess.run([*program, "--threads", "1", "--rate", "1"], check=True, capture_output=True)
        alone = time.monotonic() - start
        names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
        held = [name for name in names if name.name not in ("summary.json", "batch.json")]
        differing = [name for name in held if (cluster / name).read_bytes() != (one / name).read_bytes()]
        metrics = {
            "done": Metric(value=told["states"].get("done", 0)),
            "most_results": Metric(value=told["most"]),
            "files": Metric(value=len(held)),
            "differing": Metric(value=len(differing)),
            "cluster": Metric(unit="s", value=round(spent, 2)),
            "one_process": Metric(unit="s", value=round(alone, 2)),
        }
        return Measurement(
            kind="collection",
            case={"videos": len(list(videos.iterdir())), "nodes": told["nodes"], "killed": len(told["killed"])},
            metrics=metrics,
            ran=Ran(network=Bundle.open(bundle).manifest.name),
            environment=environment,
        )


def serving_table(rows: Sequence[Measurement]) -> str:
    """Streams through Triton: masks per second, and percentiles of the time from a frame to its answer."""
    served = [row for row in rows if row.kind == "served-streams"]
    environment = served[0].environment
    assert environment is not None
    cells = []
    for row in served:
        p50, p99 = (f"{1e3 * np.percentile(row['latency'].samples, q):.0f}" for q in (50, 99))
        rate = row["masks"].number / row["duration"].number
        cells.append([str(row.case["streams"]), f"{rate:.2f}", p50, p99])
    return (
        f"{environment.processor}, {environment.physical_cores} cores; {served[0].ran.network}, Python backend on "
        f"`onnxruntime:native` with {served[0].case['threads']} threads; {served[0].case['frames']} frames of each "
        f"stream, the next when the last is answered, client and server on the same cores.{_busy(served)}\n\n"
        f"{markdown_of(['streams', 'masks/s', 'p50 ms', 'p99 ms'], cells)}"
    )


def collection_text(rows: Sequence[Measurement]) -> str:
    """A collection over two nodes as sentences."""
    row = next(row for row in rows if row.kind == "collection")
    number = {name: metric.value for name, metric in row.metrics.items()}
    return (
        f"{row.case['videos']} videos over {row.case['nodes']} Ray nodes of this machine ({row.ran.network}), "
        f"{row.case['killed']} worker killed in the middle: {number['done']} done, none with more than "
        f"{number['most_results']} result, {number['differing']} of {number['files']} files with other bytes than one "
        f"process writes. The cluster took {number['cluster']:.0f} s with its start, one process "
        f"{number['one_process']:.0f} s.{_busy([row])}"
    )


def _busy(rows: Sequence[Measurement]) -> str:
    """A sentence where other programs kept the machine busy, so that times are provisional."""
    environments = [row.environment for row in rows if row.environment is not None]
    most = max(one.load_average[0] for one in environments)
    cores = environments[0].logical_cores or 1
    return f" Times are provisional: up to {most:.1f} programs waited for {cores} cores before." if most > cores else ""


@app.command()
def streams(
    bundle: Annotated[Path, typer.Argument(help="A bundle with the graphs of a stream.")],
    output: Output = ROWS,
    frames: Annotated[int, typer.Option(min=10, help="Of each stream.")] = 60,
    threads: Annotated[int, typer.Option(min=1, help="Of the server's backend.")] = 2,
) -> None:
    """Measure 1, 2, 4 and 8 streams through Triton."""
    rows = measure_streams(bundle, frames, threads)
    replace_rows(output, rows, lambda row: row.kind)
    typer.echo(serving_table(rows))


@app.command()
def collection(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    video: Annotated[Path, typer.Argument(help="A video.")],
    output: Output = ROWS,
    count: Annotated[int, typer.Option(min=2, help="Copies of the video, each under a name of its own.")] = 200,
) -> None:
    """Segment copies of a video over two nodes of a cluster, and kill a worker."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            shutil.copy(video, Path(folder) / f"{number:04}{video.suffix}")
        row = measure_collection(bundle, Path(folder))
    replace_rows(output, [row], lambda row: row.kind)
    typer.echo(collection_text([row]))


if __name__ == "__main__":
    app()
