"""Many videos in one go: what is finished is not done again, and one bad file does not end the rest."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avsbg.atomic import atomic_file, remove_abandoned
from avsbg.errors import AvsbgError, first_line
from avsbg.progress import Progress
from avsbg.runtime.bundle import sha256
from avsbg.runtime.errors import FetchError, MediaError, OutputError, WorkerError
from avsbg.runtime.media.sources import VIDEO_SUFFIXES, list_videos
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.run import SUMMARY, segment_video, settings
from avsbg.runtime.segment.segmenter import Segmenter

REPORT = "batch.json"
# The report of so many videos is written after each, that of more after as many: it grows with their number.
OFTEN = 500

State = Literal["done", "finished before", "failed", "not done"]


@dataclass(frozen=True)
class BatchItem:
    """A video of a batch and the directory that its output goes to."""

    path: Path
    output: Path


@dataclass
class BatchResult:
    """The outcome of a video."""

    item: BatchItem
    state: State = "not done"
    error: str | None = None
    summary: dict[str, Any] | None = None


def find_videos(sources: Sequence[Path], output: Path) -> list[BatchItem]:
    """The videos among `sources`, files and folders, in order.

    A single file's output is `output` itself. Otherwise it is a directory in it with the file's name, for a file of a
    folder its path from there.

    Raises:
        MediaError: a source does not exist, a folder holds no video, or two videos would share an output.
    """
    if len(sources) == 1 and not sources[0].is_dir():
        return [BatchItem(sources[0], output)]
    items: dict[Path, BatchItem] = {}
    for source in sources:
        if source.is_dir():
            found = [(path, path.relative_to(source)) for path in list_videos(source, but=output)]
            if not found:
                hint = f"Looked for: {', '.join(sorted(VIDEO_SUFFIXES))}."
                raise MediaError(f"the folder {source} holds no video.", hint)
        else:
            found = [(source, Path(source.name))]
        for path, name in found:
            item = BatchItem(path, output / name)
            if (other := items.setdefault(item.output, item)) is not item:
                hint = "Run them with different -o directories, or give the folder that holds both."
                raise MediaError(f"{other.path} and {path} would both be written to {item.output}.", hint)
    return list(items.values())


def run_batch(
    work: Callable[[BatchItem], BatchResult],
    items: Sequence[BatchItem],
    *,
    directory: Path | None = None,
    report: Callable[[BatchResult], None] | None = None,
) -> list[BatchResult]:
    """Segment videos one after the other.

    What is wrong with one is noted, whatever it is, and the next one is taken.

    Args:
        work: segments a video: `VideoWorker`, or one of those in a process of its own.
        items: the videos.
        directory: the place for `batch.json`, which is kept up to date: also after a crash it says how far this came.
        report: called with each result.

    Raises:
        OutputError: nothing more can be written, e.g. since the disk is full.
    """
    results = [BatchResult(item) for item in items]
    for number, result in enumerate(results, start=1):
        fatal: OutputError | None = None
        try:
            done = work(result.item)
            result.state, result.error, result.summary = done.state, done.error, done.summary
        except Exception as error:
            result.state, result.error = "failed", _reason(result.item.path, error)
            fatal = error if isinstance(error, OutputError) else None
            remove_abandoned(result.item.output)  # by a process that crashed
        if report is not None:
            report(result)
        if directory is not None and (fatal or number < OFTEN or number % OFTEN == 0 or number == len(results)):
            # On a full disk, its report's failure is not the one to tell.
            with suppress(OutputError) if fatal else nullcontext():
                write_report(directory, results)
        if fatal:
            raise fatal
    return results


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, WorkerError):
        advice = " The file is probably damaged, and not to be trusted." if "crashed" in str(error) else ""
        return f"{path} was not done: {error}{advice}"
    if isinstance(error, AvsbgError):
        return str(error)
    return f"{path} failed for a reason that avsbg does not know: {type(error).__name__}: {first_line(error)}"


class VideoWorker:
    """Segments a video of a batch.

    It is passed over if its output is there, made of the same content by the same bundle with the same options.

    Args:
        segmenter, options: the network, and the outputs for each video.
        redo: replace whatever is there.
        progress: called as work goes on, from several threads.
    """

    def __init__(
        self, segmenter: Segmenter, options: Options, *, redo: bool = False, progress: Progress | None = None
    ) -> None:
        self._segmenter, self._options, self._redo, self._progress = segmenter, options, redo, progress

    def __call__(self, item: BatchItem) -> BatchResult:
        """Segment a video; errors as of `segment_video`."""
        path, output = item.path, item.output
        remove_abandoned(output)
        if not path.is_file():
            raise MediaError(f"there is no video at {path}.")
        earlier = _earlier(output)
        stop = threading.Event()
        with ExitStack() as stack:
            # Nobody waits for the hash of a video that is not done yet, or never will be, however large it is.
            pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="avsbg-hash"))
            stack.callback(stop.set)
            identity = pool.submit(self._identify, path, stop)
            if earlier is not None and not self._redo:
                if earlier.get("video", {}).get("key") == identity.result()["key"]:
                    return BatchResult(item, "finished before", summary=earlier)
                problem = f"{output} exists already and is of another video, another bundle or other options."
                raise MediaError(problem, "Choose another directory, or replace it with --overwrite.")
            summary = segment_video(
                self._segmenter, path, output, self._options,
                replace=self._redo, identify=identity.result, progress=self._progress,
            )  # fmt: skip
        return BatchResult(item, "done", summary=summary)

    def _identify(self, path: Path, stop: threading.Event) -> dict[str, str]:
        """The hash of a video's content, and the key of all that tells a run on it from any other."""
        try:
            content = sha256(path, stop)
        except OSError as error:
            raise FetchError(f"{path} cannot be read: {error.strerror}.") from error
        manifest, settled = self._segmenter.bundle.manifest_sha256, settings(self._segmenter, self._options)
        identity = {"video": content, "bundle": manifest, "options": settled}
        return {"sha256": content, "key": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()}


@contextmanager
def open_video_worker(
    open_segmenter: Callable[[], AbstractContextManager[Segmenter]], options: Options, redo: bool, progress: Progress
) -> Iterator[VideoWorker]:
    """Open a network and yield its `VideoWorker`; for a process of its own."""
    with open_segmenter() as segmenter:
        yield VideoWorker(segmenter, options, redo=redo, progress=progress)


def _earlier(output: Path) -> dict[str, Any] | None:
    """The summary of an earlier run; None without one that can be read."""
    try:
        summary = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) and isinstance(summary.get("video"), dict) else {}


def write_report(output: Path, results: Sequence[BatchResult]) -> None:
    """Write `batch.json`, the outcome of each video; those that are not done were not begun, or not finished."""
    document = [
        {"video": str(one.item.path), "output": str(one.item.output), "state": one.state, "error": one.error}
        for one in results
    ]
    try:
        with atomic_file(output / REPORT) as path:
            path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output / REPORT} cannot be written: {error.strerror}.", "Make room, or see -o.") from error
