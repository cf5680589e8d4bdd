"""Many videos in one go: what is finished is not done again, and one bad file does not end the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from avsbg.atomic import atomic_file
from avsbg.errors import AvsbgError
from avsbg.runtime.bundle import sha256
from avsbg.runtime.errors import MediaError, OutputError
from avsbg.runtime.segment.pipeline import Options, Progress
from avsbg.runtime.segment.run import SUMMARY, segment_video
from avsbg.runtime.segment.segmenter import Segmenter

REPORT = "batch.json"
# Of a folder, what else lies in it is left alone; a file that is named is taken whatever its name.
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv".split()  # noqa: SIM905
)

State = Literal["done", "finished before", "failed", "not done"]


@dataclass(frozen=True)
class Clip:
    """A video of a batch and the directory that its output goes to."""

    path: Path
    output: Path


@dataclass
class BatchResult:
    """What became of a video."""

    clip: Clip
    state: State = "not done"
    error: str | None = None
    summary: dict[str, Any] | None = None


def find_clips(sources: Sequence[Path], output: Path) -> list[Clip]:
    """The videos among `sources`, files and folders, in order.

    A single file's output is `output` itself. Otherwise it is a directory in it with the file's name, for a file of a
    folder its path from there.

    Raises:
        MediaError: a source does not exist, a folder holds no video, or two videos would share an output.
    """
    if len(sources) == 1 and not sources[0].is_dir():
        return [Clip(sources[0], output)]
    clips: dict[Path, Clip] = {}
    for source in sources:
        if source.is_dir():
            found = [(path, path.relative_to(source)) for path in _videos_in(source)]
            if not found:
                raise MediaError(
                    f"the folder {source} holds no video.", f"Looked for: {', '.join(sorted(VIDEO_SUFFIXES))}."
                )
        else:
            found = [(source, Path(source.name))]
        for path, name in found:
            clip = Clip(path, output / name)
            if (other := clips.setdefault(clip.output, clip)) is not clip:
                raise MediaError(
                    f"{other.path} and {path} would both be written to {clip.output}.",
                    "Run them with different -o directories, or give the folder that holds both.",
                )
    return list(clips.values())


def _videos_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())


def run_key(content: str, segmenter: Segmenter, options: Options) -> str:
    """What tells a run from any other: SHA-256 of the video's, the bundle's manifest's, and the options."""
    identity = {"video": content, "bundle": segmenter.bundle.manifest_sha256, "options": asdict(options)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def run_batch(
    segmenter: Segmenter,
    clips: Sequence[Clip],
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
        segmenter: the network.
        clips: the videos.
        options: what is made of each.
        redo: replace whatever is there.
        progress: called as work goes on, from several threads.
        report: called with each outcome.

    Returns:
        An outcome for each clip.

    Raises:
        OutputError: nothing more can be written, e.g. since the disk is full.
    """
    outcomes = [BatchResult(clip) for clip in clips]
    for outcome in outcomes:
        try:
            _run_one(segmenter, outcome, options, redo=redo, progress=progress)
        except OutputError as error:
            outcome.state, outcome.error = "failed", str(error)
            raise
        except AvsbgError as error:
            outcome.state, outcome.error = "failed", str(error)
        finally:
            if report is not None and outcome.state != "not done":
                report(outcome)
    return outcomes


def _run_one(
    segmenter: Segmenter, outcome: BatchResult, options: Options, *, redo: bool, progress: Progress | None
) -> None:
    clip = outcome.clip
    if not clip.path.is_file():
        raise MediaError(f"there is no video at {clip.path}.")
    key = run_key(sha256(clip.path), segmenter, options)
    earlier = _earlier(clip.output)
    if earlier is not None and not redo:
        if earlier.get("video", {}).get("key") == key:
            outcome.state, outcome.summary = "finished before", earlier
            return
        raise MediaError(
            f"{clip.output} exists already and is of another video, another bundle or other options.",
            "Choose another directory, or replace it with --force.",
        )
    outcome.summary = segment_video(
        segmenter, clip.path, clip.output, options, replace=redo, key=key, progress=progress
    )
    outcome.state = "done"


def _earlier(output: Path) -> dict[str, Any] | None:
    """The summary of an earlier run; None without one that can be read."""
    try:
        summary = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) and isinstance(summary.get("video"), dict) else {}


def write_report(output: Path, clips: Sequence[Clip], outcomes: Sequence[BatchResult]) -> None:
    """Write `batch.json`: what became of each video; those without an outcome were not begun, or not finished."""
    known = {outcome.clip: outcome for outcome in outcomes}
    document = [
        {"video": str(clip.path), "output": str(clip.output), "state": outcome.state, "error": outcome.error}
        for clip in clips
        for outcome in [known.get(clip, BatchResult(clip))]
    ]
    with atomic_file(output / REPORT) as path:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
