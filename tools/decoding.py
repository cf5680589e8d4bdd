"""Cost of decoding, resizing and resampling beside the network: `python -m tools.decoding`.

Both are timed in turn, and the decoding of the frames by itself, with the processor's time beside the clock's. What
`avsbg run` does at the same time is done one after the other here, so that each has the machine for itself; for the
same reason the machine rests before each call, as in the other benchmarks: the network's threads spin for a while after
it has answered.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from avsbg.benchmarks.machine.environment import OtherLoad, describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.measure.sampling import PAUSE, interleave
from avsbg.benchmarks.report.labels import machine_title
from avsbg.benchmarks.report.tables import Columns, markdown
from avsbg.benchmarks.results.schema import Measurement, Metric, Run, write_rows
from avsbg.runtime import backends
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.media.container import probe
from avsbg.runtime.media.samples import clip_inputs, read_clips
from avsbg.runtime.media.video import choose_frames
from tools import Output, command


def measure(bundle_path: Path, videos: Sequence[Path], backend: str, samples: int) -> list[Measurement]:
    """Time the front end and the network on a backend, for each video, in turn."""
    bundle, target, load = Bundle.open(bundle_path), backends.BackendSpec.parse(backend), OtherLoad()
    timed: list[tuple[Path, dict[str, Any], dict[str, Metric]]] = []
    with backends.create(target.backend, bundle, **target.options()) as network:

        def read(path: Path) -> list[dict[str, Any]]:
            video = probe(path)
            walk = read_clips(video, bundle.manifest, silent=not video.has_audio)
            return [clip_inputs(clip, bundle.manifest, network.contract) for clip in walk]

        def decode(path: Path) -> None:
            clip = bundle.manifest.clip
            offset = bundle.manifest.preprocessing.frame_offset
            for _ in choose_frames(probe(path), clip_seconds=clip.frames, offset=offset):
                pass

        def infer(inputs: list[dict[str, Any]]) -> None:
            for one in inputs:
                network.run(one, ["probability"])

        for path in videos:
            video, inputs = probe(path), read(path)
            rate = None if video.rate is None else float(video.rate)
            case = {"video": path.name, "width": video.width, "height": video.height, "frame_rate": rate}
            parts: dict[str, Callable[[], object]] = {
                "front_end": partial(read, path),
                "decoding": partial(decode, path),
                "network": partial(infer, inputs),
            }
            metrics = _time(parts, samples, len(inputs))
            timed.append((path, case | {"clips": len(inputs), "target": backend}, metrics))
    environment, run, ran = describe_environment(), Run(others=load.share()), describe_bundle(bundle)
    return [
        Measurement(
            kind="front-end",
            label=path.name,
            case=case,
            metrics=metrics,
            ran=describe_bundle(bundle, files=ran.files | {path.name: sha256(path)}),
            run=run,
            environment=environment,
        )
        for path, case, metrics in timed
    ]


def _time(parts: Mapping[str, Callable[[], object]], samples: int, clips: int) -> dict[str, Metric]:
    """Seconds a clip of each part, by the clock and of the processor, in turn, after a round that does not count."""
    processor: dict[str, list[float]] = {name: [] for name in parts}

    def call(name: str) -> None:
        before = time.process_time()
        parts[name]()
        processor[name].append(time.process_time() - before)

    clock = interleave({name: partial(call, name) for name in parts}, warmup=1, samples=samples, pause=PAUSE)
    times = clock | {f"{name}_processor": spent[-samples:] for name, spent in processor.items()}
    return {name: Metric(unit="s", samples=tuple(one / clips for one in spent)) for name, spent in times.items()}


def front_end_table(rows: Sequence[Measurement]) -> str:
    """The time to decode, resize and resample a video beside the network's, as Markdown."""

    def video(row: Measurement) -> str:
        rate = row.case["frame_rate"]
        shown = "variable" if rate is None else f"{rate:g} fps"
        return f"{row.case['video']}, {row.case['width']} x {row.case['height']}, {shown}"

    def share(row: Measurement, part: str, whole: str) -> str:
        pairs = zip(row[part].samples, row[whole].samples, strict=True)
        return f"{statistics.median(one / other for one, other in pairs):.1%}"

    columns: Columns[Measurement] = [
        ("video", video),
        ("backend", lambda row: f"`{row.case['target']}`"),
        ("front end, ms a clip", lambda row: f"{1e3 * row['front_end'].summary.p50:.0f}"),
        ("of it decoding", lambda row: share(row, "decoding", "front_end")),
        ("network, ms a clip", lambda row: f"{1e3 * row['network'].summary.p50:.0f}"),
        ("share of the network's time", lambda row: share(row, "front_end", "network")),
        ("of its processor time", lambda row: share(row, "front_end_processor", "network_processor")),
    ]
    return f"{markdown(rows, columns)}\n\n{rows[0].ran.network}, {machine_title(rows[0])}."


@command
def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle that takes a waveform or log-mel patches.")],
    videos: Annotated[list[Path], typer.Argument(help="Videos.")],
    output: Output = Path("benchmarks/results/front_end.jsonl"),
    backend: Annotated[list[str] | None, typer.Option(help="Several times; by default onnxruntime.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 15,
) -> None:
    """Time a video's way into the network, and the network."""
    rows = [row for name in backend or ("onnxruntime",) for row in measure(bundle, videos, name, samples)]
    write_rows(output, rows)
    typer.echo(front_end_table(rows))
