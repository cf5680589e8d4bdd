"""Masks of a moving object at several rates, frame by frame: `python -m tools.mask_rates BUNDLE -o FILE`.

Scenes of sounding stamps whose sounding object moves are drawn at 25 frames a second, with their sound, and segmented
at each rate. The mask that the overlay shows with each frame is held against that frame's annotation.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import av
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import avsbg
from avsbg.atomic import atomic_file
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.report.tables import markdown_of, with_interval
from avsbg.benchmarks.results.schema import Measurement, Metric, Run, write_rows
from avsbg.benchmarks.results.statistics import mean_interval
from avsbg.model.front_end import SAMPLE_RATE
from avsbg.model.training.layout import FRAMES
from avsbg.model.training.sounding_stamps import Scene, draw_frame, make_scene
from avsbg.model.training.stamps_library import BACKGROUNDS, STAMPS, Library, load_library
from avsbg.runtime.media.places import Places, masks_a_second
from avsbg.runtime.segment.model import Model
from avsbg.runtime.segment.overlay import Timetable, tint
from avsbg.runtime.verify.verify import mask_iou
from tools import Output, command

Array = NDArray[Any]

RATES: tuple[int, ...] = (1, 2, 5, 10)
FRAME_RATE = Fraction(25)
# A scene counts where the sounding object crosses this share of the frame's side in the clip.
LEAST_WAY = 0.2
# The networks see the frame at this part of a second: there a drawn scene equals the data set's frame.
OFFSET = 15 / 16
PICTURED, PICTURED_RATES = 6, (1, 10)  # frames and rates of the comparison


def moving_scenes(library: Library, size: int, seed: int) -> Iterator[Scene]:
    """Scenes of the test split whose sounding object moves, without an end."""
    for index in count():
        scene = make_scene(library, "s4", "test", size, (seed, 2, index))
        (actor,) = (actor for actor in scene.actors if actor.end)
        if np.abs(np.diff(actor.corners, axis=0)).sum(axis=0).max() >= LEAST_WAY * size:
            yield scene


def draw_video(scene: Scene, path: Path) -> tuple[Array, Array]:
    """Write a scene as a lossless video; its frames uint8 `[N, S, S, 3]` and annotations bool `[N, S, S]`."""
    times = [index / FRAME_RATE for index in range(math.ceil(FRAMES * FRAME_RATE))]
    drawn = [draw_frame(scene.background, scene.actors, float(time) - OFFSET) for time in times]
    frames, masks = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
    with av.open(str(path), "w") as target:
        video: Any = target.add_stream("libx264rgb", rate=FRAME_RATE, options={"qp": "0", "preset": "ultrafast"})
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        sound: Any = target.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        block = av.AudioFrame.from_ndarray(scene.sound[None], format="s16", layout="mono")
        block.sample_rate = SAMPLE_RATE
        target.mux(sound.encode(block))
        for frame in frames:
            target.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        for stream in (video, sound):
            target.mux(stream.encode(None))
    return frames, masks


def shown_masks(model: Model, video: Path, rate: int, frames: int) -> Array:
    """The mask that the overlay shows with each frame, bool `[N, S, S]`."""
    masks = [frame.mask for frame in model.segment(video, rate=rate)]
    clip, offset = model.bundle.manifest.clip, model.bundle.manifest.preprocessing.frame_offset
    masks_per_second = masks_a_second(rate, FRAME_RATE)
    places = None if masks_per_second == 1 else Places(masks_per_second, clip.frames, offset, FRAME_RATE)
    timetable = Timetable(places)
    shown = []
    for index in range(frames):
        pieces = timetable.pieces(index / FRAME_RATE, (index + 1) / FRAME_RATE)
        shown.append(masks[min(pieces[0][1], len(masks) - 1)])
    return np.stack(shown)


def mask_rate_table(rows: Sequence[Measurement]) -> str:
    """The rows as Markdown, each rate against one mask a second, over the same scenes."""
    first = rows[0]["iou"].samples
    lines = []
    for row in rows:
        samples = row["iou"].samples
        gain = mean_interval([one - other for one, other in zip(samples, first, strict=True)])
        gained = "" if row is rows[0] else with_interval(gain, "+.3f")
        lines.append((str(row.case["rate"]), with_interval(mean_interval(samples)), gained))
    case, environment = rows[0].case, rows[0].environment
    table = markdown_of(("masks a second", "IoU with the frame's annotation", "more than at one, same scenes"), lines)
    commit = "unknown" if environment is None else environment.commit or "unknown"
    return (
        f"{table}\n\n{case['scenes']} scenes of {FRAMES} s at {case['frame_rate']:g} frames a second, "
        f"{case['size']} pixels wide, whose sounding object crosses at least a fifth of the frame; mean over all "
        "frames of a scene, then over the scenes with the 95% bootstrap interval. "
        f"{rows[0].ran.network}, commit {commit[:12]}."
    )


def label_of(rate: int) -> str:
    """A rate in words."""
    return f"{rate} mask{'' if rate == 1 else 's'} a second"


def picture_rates(path: Path, frames: Array, annotation: Array, shown: Mapping[int, Array]) -> None:
    """Write frames of one scene side by side: the annotation, then the mask of each rate."""
    chosen = np.linspace(len(frames) * 0.25, len(frames) - 1, PICTURED).round().astype(int)
    rows = {"annotation": annotation, **{label_of(rate): shown[rate] for rate in PICTURED_RATES}}
    size, margin = frames.shape[1], 18
    page = Image.new("RGB", (PICTURED * size, len(rows) * (size + margin)), "white")
    for row, (label, masks) in enumerate(rows.items()):
        top = row * (size + margin)
        ImageDraw.Draw(page).text((4, top + 3), label, fill="black")
        for column, index in enumerate(chosen):
            page.paste(Image.fromarray(tint(frames[index], masks[index])), (column * size, top + margin))
            ImageDraw.Draw(page).text((column * size + 4, top + margin + 2), f"{index / 25:.2f} s", fill="white")
    with atomic_file(path) as temporary:
        page.quantize(256, dither=Image.Dither.NONE).save(temporary, format="PNG", optimize=True)


@command
def main(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, typer.Argument(help="Of a network that was trained on sounding stamps.")],
    output: Output,
    scenes: Annotated[int, typer.Option(min=2, help="How many.")] = 12,
    size: Annotated[int, typer.Option(help="Of the video's frames, pixels.")] = 192,
    seed: Annotated[int, typer.Option(help="Of the scenes.")] = 3,
    stamps: Annotated[Path, typer.Option(help="Of the package tuxpaint-stamps-default.")] = STAMPS,
    backgrounds: Annotated[Path, typer.Option(help="Of the packages of backgrounds.")] = BACKGROUNDS,
    backend: Annotated[str, typer.Option(help="What executes the bundle.")] = "onnxruntime",
    picture: Annotated[Path | None, typer.Option(help="A PNG of the first scene at every rate.")] = None,
) -> None:
    """Score the masks of moving objects at every rate; rows and a table."""
    started = datetime.now(timezone.utc)
    library = load_library(stamps, backgrounds, held_out="scenes", seed=0)
    scores: dict[int, list[float]] = {rate: [] for rate in RATES}
    with avsbg.load(bundle, backend) as model, TemporaryDirectory() as folder:
        video = Path(folder) / "scene.mkv"
        for number, scene in enumerate(islice(moving_scenes(library, size, seed), scenes)):
            typer.echo(f"scene {number + 1} of {scenes}", err=True)
            frames, annotation = draw_video(scene, video)
            shown = {rate: shown_masks(model, video, rate, len(frames)) for rate in RATES}
            for rate, masks in shown.items():
                scores[rate].append(float(mask_iou(masks, annotation).mean()))
            if picture is not None and number == 0:
                picture_rates(picture, frames, annotation, shown)
        described = describe_bundle(model.bundle, backend=model.clip_backend.describe())
    case: dict[str, Any] = {"frame_rate": float(FRAME_RATE), "scenes": scenes, "size": size, "seed": seed}
    sources = hashlib.sha256(json.dumps(library.sources, sort_keys=True).encode()).hexdigest()
    case |= {"data": {"generator": "sounding stamps", "sources_sha256": sources}}
    rows = [
        Measurement(
            kind="mask-rate",
            label=label_of(rate),
            case={"rate": rate, **case},
            metrics={"iou": Metric(samples=tuple(samples))},
            ran=described,
            run=Run(started=started, command=("python", "-m", "tools.mask_rates", *sys.argv[1:])),
            environment=describe_environment(),
        )
        for rate, samples in scores.items()
    ]
    write_rows(output, rows)
    typer.echo(mask_rate_table(rows))
