"""Many videos in one go: what is finished is not done again, and one bad file does not end the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avsbg.atomic import atomic_file
from avsbg.errors import AvsbgError
from avsbg.progress import Progress
from avsbg.runtime.bundle import sha256
from avsbg.runtime.errors import MediaError, OutputError
from avsbg.runtime.media.sources import VIDEO_SUFFIXES
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.run import SUMMARY, segment_video, settings
from avsbg.runtime.segment.segmenter import Segmenter

REPORT = "batch.json"

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
            paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES]
            found = [(path, path.relative_to(source)) for path in paths if path.is_file()]
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
    segmenter: Segmenter,
    items: Sequence[BatchItem],
    options: Options,
    *,
    redo: bool = False,
    progress: Progress | None = None,
    report: Callable[[BatchResult], None] | None = None,
) -> list[BatchResult]:
    """Segment videos one after the other.

    A video whose output is there already, made of the same content by the same bundle with the same options, is passed
    over. What is wrong with one is noted, and the next one is taken.

    Args:
        segmenter, items, options: the network, the videos, and the outputs for each.
        redo: replace whatever is there.
        progress: called as work goes on, from several threads.
        report: called with each result.

    Raises:
        OutputError: nothing more can be written, e.g. since the disk is full.
    """
    results = [BatchResult(item) for item in items]
    for result in results:
        try:
            _run_one(segmenter, result, options, redo=redo, progress=progress)
        except AvsbgError as error:
            result.state, result.error = "failed", str(error)
            if isinstance(error, OutputError):
                raise
        finally:
            if report is not None and result.state != "not done":
                report(result)
    return results


def _run_one(
    segmenter: Segmenter, result: BatchResult, options: Options, *, redo: bool, progress: Progress | None
) -> None:
    path, output = result.item.path, result.item.output
    if not path.is_file():
        raise MediaError(f"there is no video at {path}.")
    content = sha256(path)
    # All that tells a run from any other.
    identity = {"video": content, "bundle": segmenter.bundle.manifest_sha256, "options": settings(segmenter, options)}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    earlier = _earlier(output)
    if earlier is not None and not redo:
        if earlier.get("video", {}).get("key") == key:
            result.state, result.summary = "finished before", earlier
            return
        problem = f"{output} exists already and is of another video, another bundle or other options."
        raise MediaError(problem, "Choose another directory, or replace it with --force.")
    result.summary = segment_video(
        segmenter, path, output, options, replace=redo, content=content, key=key, progress=progress
    )
    result.state = "done"


def _earlier(output: Path) -> dict[str, Any] | None:
    """The summary of an earlier run; None without one that can be read."""
    try:
        summary = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) and isinstance(summary.get("video"), dict) else {}


def write_report(output: Path, items: Sequence[BatchItem], results: Sequence[BatchResult]) -> None:
    """Write `batch.json`, the outcome of each video; those without a result were not begun, or not finished."""
    known = {result.item: result for result in results}
    document = [
        {"video": str(one.item.path), "output": str(one.item.output), "state": one.state, "error": one.error}
        for one in (known.get(item, BatchResult(item)) for item in items)
    ]
    with atomic_file(output / REPORT) as path:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
