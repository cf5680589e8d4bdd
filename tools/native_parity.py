"""avsbg-run against `avsbg run` on any media: `python -m tools.native_parity BUNDLE FOLDER... [-- OPTION...]`.

Each file is segmented by both with the same options, and their outputs are compared: the same files, `summary.json`
field for field, times to the microsecond, and masks to a share of their pixels.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from avsbg.runtime.media.sources import VIDEO_SUFFIXES
from tools import command

# Fields of the summary that tell runs of one program apart, or programs, and not what was found.
OWN_FIELDS = ("versions", "seconds_spent", "most_waiting")
# Pixels that may differ between two versions of FFmpeg.
SHARE = 0.001
# Of a frame; what is decided by pixels that may differ.
AREA = 0.005
REFUSED = "refused by both"


def compare_outputs(ours: Path, theirs: Path, *, share: float = SHARE) -> list[str]:
    """The differences between the output directories of the two programs; none where they agree.

    Args:
        ours, theirs: the output of avsbg-run, and of `avsbg run`.
        share: of a mask's pixels that may differ.
    """
    return [*_compare_summaries(ours, theirs), *_compare_lines(ours, theirs), *_compare_files(ours, theirs, share)]


def _compare_summaries(ours: Path, theirs: Path) -> Iterator[str]:
    found, expected = (json.loads((path / "summary.json").read_text(encoding="utf-8")) for path in (ours, theirs))
    for summary in (found, expected):
        for name in OWN_FIELDS:
            summary.pop(name)
        summary["video"].pop("key")  # of one program's own outputs
    area, their_area = found.pop("mean_mask_area"), expected.pop("mean_mask_area")
    if abs(area - their_area) > AREA:
        yield f"mean_mask_area is {area}, not {their_area}"
    yield from _compare_values("", found, expected)


def _compare_values(name: str, found: Any, expected: Any) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            yield from _compare_values(f"{name}.{key}".lstrip("."), found.get(key), expected.get(key))
    elif found != expected:
        yield f"{name} is {found!r}, not {expected!r}"


def _compare_lines(ours: Path, theirs: Path) -> Iterator[str]:
    lines = [
        [json.loads(line) for line in (path / "frames.jsonl").read_text(encoding="utf-8").splitlines()]
        for path in (ours, theirs)
    ]
    times = [[(line["second"], line["time"], sorted(line)) for line in of_one] for of_one in lines]
    if times[0] != times[1]:
        yield f"frames.jsonl has the seconds and times {times[0]}, not {times[1]}"


def _compare_files(ours: Path, theirs: Path, share: float) -> Iterator[str]:
    files = [{str(one.relative_to(path)) for one in path.rglob("*")} for path in (ours, theirs)]
    if files[0] != files[1]:
        yield f"more files: {sorted(files[0] - files[1])}, fewer: {sorted(files[1] - files[0])}"
    for name in sorted(files[0] & files[1]):
        if name.startswith("masks/"):
            found, expected = (np.asarray(Image.open(path / name)) for path in (ours, theirs))
            yield from _compare_masks(name, found, expected, share)
        elif name == "masks.mkv":
            frames = [_decode(path / name) for path in (ours, theirs)]
            if (times := [list(one) for one in frames])[0] != times[1]:
                yield f"{name} has the times {times[0]}, not {times[1]}"
            for time in frames[0].keys() & frames[1].keys():
                yield from _compare_masks(f"{name} at {time} s", frames[0][time], frames[1][time], share)


def _decode(path: Path) -> dict[float, NDArray[Any]]:
    with av.open(str(path)) as container:
        return {frame.time or 0.0: frame.to_ndarray(format="gray") for frame in container.decode(video=0)}


def _compare_masks(name: str, ours: NDArray[Any], theirs: NDArray[Any], share: float) -> Iterator[str]:
    if ours.shape != theirs.shape:
        yield f"{name} has the shape {ours.shape}, not {theirs.shape}"
    elif (different := float(np.mean(ours != theirs))) > share:
        yield f"{name}: {different:.2%} of the pixels differ"


def onnxruntime_library() -> Path:
    """The library of Python's ONNX Runtime, found without importing it."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "capi"
    return next(path for path in sorted(folder.glob("libonnxruntime.so*")))


def compare_video(bundle: Path, video: Path, program: Path, options: Sequence[str]) -> tuple[str, list[str]]:
    """Segment a video with both programs; returns what came of it in a word or two, and the differences."""
    python = [sys.executable, "-m", "avsbg", "run"]
    with tempfile.TemporaryDirectory() as folder:
        outputs, errors = [Path(folder) / "ours", Path(folder) / "theirs"], []
        for output, words in zip(outputs, ([str(program)], python), strict=True):
            run = [*words, str(bundle), str(video), "-o", str(output), *options]
            if words != python:
                run += ["--runtime-library", str(onnxruntime_library())]
            done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=600)
            errors.append(done.stderr.strip() if done.returncode else "")
        if all(errors):
            return REFUSED, []
        if any(errors):
            refusing = "avsbg-run" if errors[0] else "avsbg run"
            return "refused by one", [f"{refusing} alone: {errors[0] or errors[1]}"]
        summary = json.loads((outputs[0] / "summary.json").read_text(encoding="utf-8"))
        return f"{summary['masks']} masks", compare_outputs(*outputs)


@command
def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    sources: Annotated[list[str], typer.Argument(help="Videos and folders; after --, options of both programs.")],
    program: Annotated[Path, typer.Option(help="The program to compare.")] = Path("runtime/lib/avsbg-run"),
) -> None:
    """Compare the two programs, file by file; fails where they differ."""
    media = [source for source in sources if Path(source).exists()]
    options = ["--backend", "onnxruntime", "--rate", "1", *(source for source in sources if source not in media)]
    videos = [
        path
        for source in map(Path, media)
        for path in (sorted(source.rglob("*")) if source.is_dir() else [source])
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]
    compared = different = 0
    for video in videos:
        outcome, differences = compare_video(bundle, video, program, options)
        typer.echo(f"{video.name}: {outcome}, {'; '.join(differences) or 'the same'}")
        compared += outcome != REFUSED
        different += bool(differences)
    refused = len(videos) - compared
    typer.echo(f"{compared - different} of {compared} videos are the same, {refused} are refused by both")
    if different or not compared:
        raise typer.Exit(1)
