"""One video of a collection at a time: fetched, segmented in a process of its own, and put where outputs go.

What is done is known by its key and not done again. What fails is told with its reason: an error of the video itself at
once, and any other, such as a crash or a file that cannot be fetched, after a second try.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from avsbg.errors import AvsbgError, first_line
from avsbg.progress import Progress
from avsbg.runtime.cluster.collection import CollectionItem, is_address
from avsbg.runtime.errors import FetchError, MediaError, OutputError
from avsbg.runtime.processes import IsolatedWorker
from avsbg.runtime.segment.batch import BatchItem, BatchResult, VideoWorker, open_video_worker
from avsbg.runtime.segment.pipeline import FRAMES, Options
from avsbg.runtime.segment.run import SUMMARY
from avsbg.runtime.segment.segmenter import Segmenter

ATTEMPTS = 2
OpenSegmenter = Callable[[], AbstractContextManager[Segmenter]]


@dataclass(frozen=True)
class Job:
    """The work on every video of a collection; it can be pickled."""

    open_segmenter: OpenSegmenter
    options: Options
    output: str  # a folder, or an address that fsspec writes to
    replace: bool = False  # do again what is there


@dataclass(frozen=True)
class CollectionResult:
    """The outcome of a video: a row of the results."""

    source: str
    output: str
    state: str  # `done`, `finished before` or `failed`
    error: str | None = None
    attempts: int = 0
    seconds: float = 0.0  # spent on it
    video_seconds: int | None = None  # of the video
    key: str | None = None  # of its content, the bundle and the options
    host: str = ""
    process: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The row."""
        return asdict(self)


class CollectionWorker:
    """Segments videos of a collection. Use it as a context manager; the network is opened in the process of its own."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stack = ExitStack()
        self._work: IsolatedWorker[tuple[str, str], BatchResult] | None = None

    def __enter__(self) -> CollectionWorker:
        self._work = self._stack.enter_context(IsolatedWorker(partial(_open_work, self._job)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, item: CollectionItem) -> CollectionResult:
        """Segment a video; what is wrong with it becomes its result.

        Raises:
            OutputError: nothing more can be written.
        """
        assert self._work is not None
        output, began = join_address(self._job.output, item.name), time.monotonic()
        told: dict[str, Any] = {"host": socket.gethostname(), "process": os.getpid()}
        for attempt in range(1, ATTEMPTS + 1):
            told |= {"attempts": attempt}
            try:
                result = self._work((item.source, output))
            except OutputError:
                raise
            except Exception as error:
                reason = str(error) if isinstance(error, AvsbgError) else f"{type(error).__name__}: {first_line(error)}"
                if isinstance(error, MediaError) and not isinstance(error, FetchError):
                    break
            else:
                summary = result.summary or {}
                told |= {"key": summary.get("video", {}).get("key"), "video_seconds": summary.get("seconds")}
                return CollectionResult(item.source, output, result.state, seconds=_since(began), **told)
        return CollectionResult(item.source, output, "failed", reason, seconds=_since(began), **told)


def join_address(output: str, name: str) -> str:
    """The place of a video's output."""
    return f"{output.rstrip('/')}/{name}" if is_address(output) else str(Path(output) / name)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


@contextmanager
def _open_work(job: Job, progress: Progress) -> Iterator[Callable[[tuple[str, str]], BatchResult]]:
    """Open the network, in the process of its own; yield what segments a source to an output."""
    with open_video_worker(job.open_segmenter, job.options, job.replace, progress) as worker:
        yield lambda pair: _segment(worker, *pair, replace=job.replace)


def _segment(worker: VideoWorker, source: str, output: str, *, replace: bool) -> BatchResult:
    with ExitStack() as stack:
        if is_address(output):
            _find_place(output)  # an output in use is refused here, and not when the work is done
        path = Path(source)
        if is_address(source):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="avsbg.")))
            path = folder / (PurePosixPath(source.partition("?")[0]).name or "video")
            _fetch(source, path)
        if not is_address(output):
            return worker(BatchItem(path, Path(output)))
        target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="avsbg."))) / "output"
        if not replace:
            _fetch_summary(output, target)
        result = worker(BatchItem(path, target))
        if result.state == "done":
            _put(target, output)
        return result


def _fetch(source: str, path: Path) -> None:
    import fsspec

    try:
        with fsspec.open(source, "rb") as stream, path.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 2**20)
    except FileNotFoundError as error:
        raise MediaError(f"there is no video at {source}.") from error
    except Exception as error:  # each file system has errors of its own
        raise FetchError(f"{source} cannot be fetched: {first_line(error)}.") from error


def _fetch_summary(output: str, target: Path) -> None:
    """Fetch the summary of an earlier run, by which the worker knows whether it was this one."""
    import fsspec

    try:
        with fsspec.open(f"{output}/{SUMMARY}", "rb") as stream:
            text = stream.read()
    except FileNotFoundError:
        return
    except Exception as error:  # each file system has errors of its own
        raise FetchError(f"{output}/{SUMMARY} cannot be fetched: {first_line(error)}.") from error
    target.mkdir()
    (target / SUMMARY).write_bytes(text)


def _find_place(output: str) -> tuple[Any, str, bool]:
    """The file system of an output at an address, its path there, and whether it holds an earlier run.

    Raises:
        MediaError: it holds anything else.
        OutputError: it cannot be looked at.
    """
    import fsspec

    try:
        files, place = fsspec.core.url_to_fs(output)
        if not files.exists(place):
            return files, place, False
        # An object store may hold a file of the same name as a folder: removing one would remove the other.
        if not files.isfile(place) and any(files.exists(f"{place}/{name}") for name in (SUMMARY, FRAMES)):
            return files, place, True
    except Exception as error:  # each file system has errors of its own
        raise OutputError(f"the output {output} cannot be looked at: {first_line(error)}.") from error
    raise MediaError(f"{output} exists and holds no earlier run, so it is not replaced.", "Choose another -o.")


def _put(target: Path, output: str) -> None:
    """Copy an output to an address, where an earlier run stays until the new one is there under a temporary name.

    Its summary, which says that it is complete, comes last, and `frames.jsonl` first, by which a copy that was broken
    off is known as a run that may be replaced.
    """
    files, place, has_earlier = _find_place(output)
    folder, _, name = place.rpartition("/")
    beside = f"{folder}/.{name}.partial"
    paths = sorted(
        (path for path in target.rglob("*") if path.is_file()),
        key=lambda path: (path == target / SUMMARY, path != target / FRAMES, path),
    )
    names = [path.relative_to(target).as_posix() for path in paths]

    def fill(copy: Callable[[str, str], object], source: str, to: str) -> None:
        for name in names:
            files.makedirs(f"{to}/{name}".rpartition("/")[0], exist_ok=True)
            copy(f"{source}/{name}", f"{to}/{name}")

    try:
        if files.exists(beside):  # of a run that was broken off
            _empty(files, beside)
        fill(files.put_file, str(target), beside if has_earlier else place)
        if has_earlier:
            _empty(files, place)
            # File by file: a directory that is not there means something else to each file system.
            fill(partial(_move, files), beside, place)
            if files.exists(beside):  # where directories exist without files
                _empty(files, beside)
                files.rmdir(beside)
    except Exception as error:  # each file system has errors of its own
        raise OutputError(f"the output {output} cannot be written: {first_line(error)}.") from error


def _empty(files: Any, place: str) -> None:
    """Remove what is in a folder, path by path: fsspec's `rm` takes `*`, `?` and `[` of a name for a pattern."""
    for path, info in sorted(files.find(place, withdirs=True, detail=True).items(), reverse=True):
        if info["type"] != "directory":
            files.rm_file(path)
        elif path != place and files.exists(path):  # in an object store it has gone with its files
            files.rmdir(path)


def _move(files: Any, path: str, to: str) -> None:
    """Move a file; by a copy where the file system has no `mv` of its own, as fsspec's takes a name for a pattern."""
    from fsspec import AbstractFileSystem

    if type(files).mv is AbstractFileSystem.mv:
        files.cp_file(path, to)
        files.rm_file(path)
    else:
        files.mv(path, to)
