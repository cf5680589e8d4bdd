"""Engines that work through a collection: this machine, or a cluster by Ray Data (https://docs.ray.io).

Rows are paths: each worker decodes its videos itself, so that nothing large passes between machines.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avsbg.atomic import atomic_file
from avsbg.errors import first_line
from avsbg.runtime.cluster.collection import CollectionItem, is_address
from avsbg.runtime.cluster.worker import CollectionResult, CollectionWorker, Job, join_address
from avsbg.runtime.errors import MediaError, OutputError, WorkerError

RESULTS = "results.parquet"
# Rows of one call of the cluster; each is a task of its own, up to so many.
_MOST_TASKS = 10_000
# Failures in a row, of each worker, to open the network before the whole collection ends with the reason.
_START_FAILURES = 2


@dataclass(frozen=True)
class ClusterOptions:
    """Resources of a cluster's workers."""

    address: str | None = None  # of a cluster that runs; None for this machine's
    workers: int | None = None  # at most; None for as many as fit
    cpus: float = 1.0  # of each
    gpus: float = 0.0  # of each; a part of one lets several share it


def run_local(job: Job, items: Sequence[CollectionItem]) -> Iterator[CollectionResult]:
    """Work through a collection in one process beside this one; yields the results in order."""
    with CollectionWorker(job) as worker:
        yield from map(worker, items)


def run_ray(job: Job, items: Sequence[CollectionItem], options: ClusterOptions) -> Iterator[CollectionResult]:
    """Work through a collection on a cluster; yields the results as they come.

    A worker that dies is replaced, and its video is begun once more; a video that ends a second worker has that as its
    reason.

    Raises:
        WorkerError: Ray cannot be imported, there is no cluster at the address, workers fail to start again and again,
            or the cluster is lost.
    """
    try:
        import ray
    except ImportError as error:
        hint = "Install it with `pip install 'avsbg[cluster]'`."
        raise WorkerError(f"Ray cannot be imported: {error}.", hint) from error
    with ExitStack() as stack:
        if not ray.is_initialized():
            try:
                _connect(options.address)
                ray.init(address=options.address or "local", include_dashboard=False, log_to_driver=False)
            except Exception as error:
                where = options.address or "this machine"
                problem = f"there is no Ray cluster at {where}: {first_line(error)}."
                raise WorkerError(problem, "Start one with `ray start --head`.") from error
            stack.callback(ray.shutdown)
        try:
            yield from _work_through(job, items, options)
        except ray.exceptions.RayError as error:
            if (failed := _find_start_error(error)) is not None:
                hint = "Each node needs avsbg, the bundle and the backend as this machine has them."
                raise WorkerError(f"workers of the cluster fail to start: {failed}", hint) from error
            hint = "See Ray's log; the same command goes on with what is not done."
            raise WorkerError(f"the cluster gave up: {first_line(error)}.", hint) from error


def _find_start_error(error: Exception) -> str | None:
    """The last that a worker said when it could not start; None if it is another error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines or "creation task" not in lines[0]:
        return None
    return lines[-1].partition("Error: ")[2] or lines[-1]


def _connect(address: str | None) -> None:
    """Connect to HOST:PORT and hang up: Ray itself would try for minutes; an OSError where nobody answers."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _work_through(job: Job, items: Sequence[CollectionItem], options: ClusterOptions) -> Iterator[CollectionResult]:
    import ray

    context = ray.data.DataContext.get_current()
    # A task that failed for good costs its own videos.
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    most = max(1, min(options.workers or _fitting(ray.cluster_resources(), options), len(items)))
    if hasattr(context, "max_consecutive_actor_init_deaths"):
        # By default the first worker whose network cannot be opened ends everything.
        context.max_consecutive_actor_init_deaths = _START_FAILURES * most
    rows = ray.data.from_items(
        [{"source": item.source, "name": item.name} for item in items],
        override_num_blocks=min(len(items), _MOST_TASKS),
    )
    results = rows.map_batches(
        RayWorker,
        fn_constructor_args=(job,),
        batch_size=1,
        # One video at a time for each: of two, one that kills the worker would take the other along. A pool of changing
        # size grows only where more are waiting at a worker.
        compute=ray.data.ActorPoolStrategy(size=most, max_tasks_in_flight_per_actor=1),
        num_cpus=options.cpus,
        num_gpus=options.gpus,
        max_restarts=-1,
        max_task_retries=1,
    )
    # By the output: a collection may have a source twice.
    waiting = {join_address(job.output, item.name): item for item in items}
    for row in results.iter_rows():
        result = CollectionResult(**row)
        if waiting.pop(result.output, None) is not None:
            yield result
    for output, item in waiting.items():
        reason = "no result came: its worker died twice, perhaps out of memory, or never started. See Ray's log."
        yield CollectionResult(item.source, output, "failed", reason, attempts=2)


def _fitting(resources: dict[str, float], options: ClusterOptions) -> int:
    """The number of workers that the cluster has room for."""
    fits = [resources.get("CPU", 0) / options.cpus] if options.cpus else []
    fits += [resources.get("GPU", 0) / options.gpus] if options.gpus else []
    return max(1, int(min(fits, default=1)))


class RayWorker:
    """An actor of the pool: it opens the network once, and segments the videos of one batch after the other."""

    def __init__(self, job: Job) -> None:
        self._output = job.output
        self._stack = ExitStack()
        self._worker = self._stack.enter_context(CollectionWorker(job))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Segment the videos of a batch: its columns `source` and `name` become those of results."""
        items = [CollectionItem(str(one), str(name)) for one, name in zip(batch["source"], batch["name"], strict=True)]
        rows = [asdict(self._segment(item)) for item in items]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _segment(self, item: CollectionItem) -> CollectionResult:
        try:
            return self._worker(item)
        except OutputError as error:  # of this machine's disk, perhaps: raised here, Ray would lose its reason
            output, host = join_address(self._output, item.name), socket.gethostname()
            return CollectionResult(
                item.source, output, "failed", str(error), attempts=1, host=host, process=os.getpid()
            )


def collect(
    results: Iterator[CollectionResult], output: str, report: Callable[[CollectionResult], None]
) -> list[CollectionResult]:
    """Report each result as it comes, and write all of them as a table.

    The table keeps what an earlier one says of other videos, and of those that were not reached where the work breaks
    off: their outputs lie there. The earlier one, or an empty one, is written before any work begins.

    Returns:
        the results, without those that the earlier table had.

    Raises:
        MediaError: there is a `results.parquet` that is no table of results, or cannot be read.
        OutputError: the table cannot be written.
    """
    try:
        before = read_results(output)
    except Exception as error:  # of the file system, of pyarrow, or for want of columns
        problem = f"{join_address(output, RESULTS)} cannot be read as an earlier table of results: {first_line(error)}."
        raise MediaError(problem, "Remove it, or choose another -o.") from error
    write_results(before, output)
    found: list[CollectionResult] = []

    def write() -> None:
        reached = {result.output for result in found}
        write_results([*(one for one in before if one.output not in reached), *found], output)

    try:
        for result in results:
            found.append(result)
            report(result)
    except BaseException:
        if found:
            # The error that broke off the work is the one to tell.
            with suppress(Exception):
                write()
        raise
    write()
    return found


def read_results(output: str) -> list[CollectionResult]:
    """Read the `results.parquet` of an earlier run; no results without one."""
    from pyarrow import parquet

    place = join_address(output, RESULTS)
    try:
        if is_address(output):
            import fsspec

            # In this thread alone: one of pyarrow's that drops a Python file while the interpreter ends, aborts it.
            with fsspec.open(place, "rb") as stream:
                table = parquet.ParquetFile(stream).read(use_threads=False)
        else:
            table = parquet.read_table(place)
    except FileNotFoundError:
        return []
    return [CollectionResult(**row) for row in table.to_pylist()]


def write_results(results: Sequence[CollectionResult], output: str) -> None:
    """Write `results.parquet`, a row for each video, sorted by the source."""
    import pyarrow
    from pyarrow import parquet

    types = {"attempts": "int32", "seconds": "float64", "video_seconds": "int64", "process": "int64"}
    fields = [(name, getattr(pyarrow, types.get(name, "string"))()) for name in CollectionResult.__dataclass_fields__]
    rows = sorted((asdict(result) for result in results), key=lambda row: str(row["source"]))
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields))
    place = join_address(output, RESULTS)
    try:
        if is_address(output):
            import fsspec

            files, path_there = fsspec.core.url_to_fs(place)
            files.makedirs(path_there.rpartition("/")[0], exist_ok=True)
            with files.open(path_there, "wb") as stream:
                parquet.write_table(table, stream)
        else:
            with atomic_file(Path(place)) as path:
                parquet.write_table(table, path)
    except Exception as error:  # each file system has errors of its own
        raise OutputError(f"{place} cannot be written: {first_line(error)}.", "Make room, or see -o.") from error
