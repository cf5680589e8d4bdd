"""Throughput of `avsbg batch`, on this machine and over a Ray cluster, against one process on the same cores.

Each is the whole command as a user gives it, run in turn over the same videos; the cluster runs before, as it would.
The load of other programs is not known: the cluster's workers are no children of this process.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import default_threads, describe_command, describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.measure.sampling import interleave
from avsbg.benchmarks.results.schema import Measurement, Metric, Run
from avsbg.benchmarks.results.stability import find_problems
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.progress import Progress
from avsbg.runtime.bundle import Bundle

ONE_PROCESS, LOCAL, RAY = "one process", "local", "ray"
# Seconds that a command may take, and that the machine rests before each.
_PATIENCE, _PAUSE = 3600, 1.0
# A cluster of one node with so many processors: prints its address, and ends with its standard input.
_CLUSTER = """
import sys
from ray.cluster_utils import Cluster
head = {"num_cpus": int(sys.argv[1]), "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def measure_collection(
    path: Path, video: Path, progress: Progress, *, python: Path, backend: str, count: int, samples: int
) -> list[Measurement]:
    """Time the same videos in one process, by `avsbg batch` here, and by it over Ray; a row each.

    Args:
        path: the bundle.
        video: copied under a name of its own for each video of the collection.
        progress: called as rounds end.
        python: the interpreter of an environment with avsbg and its extra `cluster`.
        backend: as `avsbg run` takes it.
        count: videos.
        samples: rounds that are kept; one before them is not.

    Raises:
        BenchmarkError: there is no such interpreter, a command failed, or it wrote fewer results than videos.
    """
    if not python.is_file():
        raise BenchmarkError(f"there is no interpreter {python}.", "Make it with `make environments`, or see --python.")
    cores = default_threads()
    with tempfile.TemporaryDirectory(prefix="avsbg-collection.") as folder, _cluster(python, cores) as address:
        root = Path(folder)
        (root / "videos").mkdir()
        for number in range(count):
            shutil.copyfile(video, root / "videos" / f"{number:04}{video.suffix}")
        common = [path.resolve(), root / "videos", "--backend", backend]
        commands: dict[str, list[object]] = {
            ONE_PROCESS: ["run", *common, "--rate", "1", "--threads", cores],
            LOCAL: ["batch", *common, "--engine", "local", "--threads", cores],
            RAY: ["batch", *common, "--engine", "ray", "--address", address, "--workers", cores, "--threads", 1],
        }
        calls = {name: partial(_run, python, command, root / name, count) for name, command in commands.items()}
        environment = describe_environment()

        def after_round(done: int) -> None:
            progress("rounds", done, samples + 1)

        spent = interleave(calls, warmup=1, samples=samples, pause=_PAUSE, after_round=after_round)
        summaries = {name: _read_summaries(root / name) for name in calls}
        written = {name: _measure_size(root / name) for name in calls}
    described = describe_bundle(Bundle.open(path), backend=summaries[ONE_PROCESS][0]["backend"])
    rows = []
    for name, seconds in spent.items():
        workers = cores if name == RAY else 1
        case = {"engine": name, "videos": count, "workers": workers, "threads": cores // workers}
        case |= {"video_bytes": count * video.stat().st_size, "output_bytes": written[name]}
        video_seconds = sum(one["seconds"] for one in summaries[name])
        steps = {
            step: Metric(unit="s", value=round(sum(one["seconds_spent"][step] for one in summaries[name]), 3))
            for step in ("inference", "decode", "overlay")
        }
        metrics = {"duration": Metric(unit="s", samples=tuple(seconds)), **steps}
        metrics["ratio"] = Metric.of(paired_ratio(spent[ONE_PROCESS], seconds))
        rows.append(
            Measurement(
                kind="collection-speed",
                label=name,
                case={**case, "video_seconds": video_seconds},
                metrics=metrics,
                problems=find_problems(seconds, others=0.0),
                ran=described,
                run=Run(command=describe_command(), settings={"reference": ONE_PROCESS, "pause": _PAUSE}),
                environment=environment,
            )
        )
    return rows


@contextmanager
def _cluster(python: Path, cores: int) -> Iterator[str]:
    """A Ray cluster on this machine; yields its address."""
    command = [str(python), "-c", _CLUSTER, str(cores)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None and process.stdin is not None
        address = process.stdout.readline().strip()
        if not address:
            log.seek(0)
            raise BenchmarkError(f"no Ray cluster began: {log.read().decode(errors='replace').strip()[-500:]}")
        try:
            yield address
        finally:
            process.stdin.close()


def _run(python: Path, arguments: Sequence[object], output: Path, count: int) -> None:
    """Run a command of avsbg into a folder, in place of what an earlier round wrote there."""
    shutil.rmtree(output, ignore_errors=True)
    command = [str(python), "-m", "avsbg", *map(str, arguments), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    if done.returncode:
        raise BenchmarkError(f"`avsbg {arguments[0]}` failed: {done.stderr.strip()[-500:]}")
    if (found := len(_read_summaries(output))) != count:
        raise BenchmarkError(f"`avsbg {arguments[0]}` wrote {found} results of {count} videos.")


def _read_summaries(output: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(output.glob("*/summary.json"))]


def _measure_size(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
