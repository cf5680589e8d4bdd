"""Segmenting a video file: masks, an overlay video, a contact sheet and a summary, in a directory of their own."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg import __version__
from avsbg.atomic import atomic_directory
from avsbg.runtime.backends import Backend
from avsbg.runtime.bundle import sha256
from avsbg.runtime.clip import Window, check_inputs, graph_inputs, windows
from avsbg.runtime.errors import BackendError, MediaError
from avsbg.runtime.manifest import MANIFEST
from avsbg.runtime.media import SecondFrame, VideoInfo, probe
from avsbg.runtime.overlay import ContactSheet, write_overlay

Array = NDArray[Any]
# (stage, seconds of video done, seconds in all or None while unknown)
Progress = Callable[[str, int, int | None], None]

SUMMARY = "summary.json"


@dataclass
class _Record:
    """What the summary says about the seconds and windows so far, and the time spent per stage."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    windows: list[dict[str, Any]] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start


def segment_video(
    backend: Backend,
    path: Path,
    output: Path,
    *,
    threshold: float = 0.5,
    silent: bool = False,
    probabilities: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a bundle's network over a video and write what it finds to the directory `output`.

    Written are `masks/00000.png` and so on, one per second in the video's size, 255 where something sounds (each pixel
    has the decision of the nearest pixel of the network's map); `overlay.mp4`; `overlay.png`; `summary.json`; and, if
    asked for, `probabilities/00000.png`, the network's own map times 255.

    Args:
        backend: an open backend on a graph of a bundle.
        path: the video.
        output: the directory to make; it appears only when complete.
        threshold: a pixel sounds where its probability exceeds this.
        silent: give the network silence in place of the soundtrack.
        probabilities: also write the probabilities.
        replace: replace `output` if it is an earlier run's.
        progress: called as work goes on.

    Returns:
        The summary, as written to `summary.json`.

    Raises:
        MediaError: the video cannot be read, has no sound and not `silent`, or `output` exists.
        BackendError: the network failed, or returned NaN.
    """
    if not 0.0 <= threshold < 1.0:
        raise MediaError(f"the threshold must lie in [0, 1), not be {threshold}.")
    if output.exists() and not replace:
        raise MediaError(f"{output} exists already.", "Choose another directory, or replace it with --force.")
    if output.exists() and not (output / SUMMARY).is_file():
        raise MediaError(f"{output} exists and holds no earlier run, so it is not replaced.", "Choose another path.")
    check_inputs(backend.contract)
    video = probe(path)
    manifest = backend.bundle.manifest
    listens = any(tensor.name != "frames" for tensor in backend.contract.inputs)
    walk = windows(video, manifest.clip, manifest.preprocessing, silent=silent or not listens)
    report = progress or (lambda *_: None)
    record, sheet = _Record(), ContactSheet()
    with atomic_directory(output, replace=replace) as directory:
        (directory / "masks").mkdir()
        if probabilities:
            (directory / "probabilities").mkdir()
        report("segmenting", 0, _expected_seconds(video))
        for window, maps in _infer(backend, walk, record):
            with record.timed("write_masks"):
                for second, probability in zip(window.seconds, maps, strict=False):
                    mask = _mask(probability, threshold, video)
                    Image.fromarray(mask.astype(np.uint8) * 255).save(_numbered(directory / "masks", second.second))
                    if probabilities:
                        grey = np.rint(probability * 255).astype(np.uint8)
                        Image.fromarray(grey).save(_numbered(directory / "probabilities", second.second))
                    sheet.add(second.second, second.pixels, mask)
                    record.frames.append(_frame_record(second, mask, probability))
            report("segmenting", len(record.frames), _expected_seconds(video))
        seconds = len(record.frames)
        with record.timed("overlay"):
            write_overlay(
                video,
                directory / "overlay.mp4",
                seconds,
                lambda second: np.asarray(Image.open(_numbered(directory / "masks", second))) > 0,
                progress=lambda done: report("overlay", done, seconds),
            )
            sheet.save(directory / "overlay.png")
        summary = _summary(backend, video, record, threshold=threshold, silent=silent)
        (directory / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _infer(backend: Backend, walk: Iterator[Window], record: _Record) -> Iterator[tuple[Window, Array]]:
    """Each window with its probabilities `[T, H, W]`."""
    clip = backend.bundle.manifest.clip
    while True:
        with record.timed("decode"):
            window = next(walk, None)
            if window is None:
                return
            inputs = graph_inputs(window, clip, backend.contract)
        with record.timed("inference"):
            probability = backend.run(inputs, ["probability"])["probability"][0]
        start, there = window.seconds[0].second, len(window.seconds)
        if not np.isfinite(probability).all():
            raise BackendError(
                f"the network returned NaN or infinity for the seconds {start} to {start + there - 1}.",
                "Check the bundle with `avsbg verify`; a lower precision may overflow.",
            )
        record.windows.append({"start": start, "seconds": there, "repeated": clip.frames - there})
        yield window, probability


def _mask(probability: Array, threshold: float, video: VideoInfo) -> Array:
    """The network's decisions, bool, in the video's size."""
    decided = Image.fromarray((probability > threshold).astype(np.uint8))
    return np.asarray(decided.resize((video.width, video.height), Image.Resampling.NEAREST)) > 0


def _frame_record(second: SecondFrame, mask: Array, probability: Array) -> dict[str, Any]:
    return {
        "second": second.second,
        "time": round(float(second.time), 6),
        "mask": _numbered(Path("masks"), second.second).as_posix(),
        "mask_area": float(mask.mean()),
        "highest_probability": float(probability.max()),
    }


def _numbered(directory: Path, second: int) -> Path:
    return directory / f"{second:05d}.png"


def _expected_seconds(video: VideoInfo) -> int | None:
    return None if video.duration is None else max(1, int(video.duration + Fraction(1, 2)))


def _summary(backend: Backend, video: VideoInfo, record: _Record, *, threshold: float, silent: bool) -> dict[str, Any]:
    bundle = backend.bundle
    return {
        "bundle": {"name": bundle.manifest.name, "manifest_sha256": sha256(bundle.path / MANIFEST)},
        "video": {
            "file": video.path.name,
            "sha256": sha256(video.path),
            "width": video.width,
            "height": video.height,
            "frame_rate": "variable" if video.rate is None else float(video.rate),
            "has_sound": video.has_sound,
        },
        "settings": {"threshold": threshold, "silent": silent},
        "backend": backend.describe(),
        "versions": {
            "avsbg": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "av": av.__version__,
        },
        "seconds_spent": {stage: round(spent, 4) for stage, spent in record.timings.items()},
        "windows": record.windows,
        "frames": record.frames,
    }
