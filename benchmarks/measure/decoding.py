"""Cost of decoding, resizing and resampling beside the network: `python -m avsbg.benchmarks.measure.decoding`.

Both are timed in turn, with the processor's time beside the clock's. What `avsbg run` does at the same time is done one
after the other here, so that each has the machine for itself; for the same reason the machine rests before each call,
as in the other benchmarks: the network's threads spin for a while after it has answered.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from avsbg.benchmarks.machine.environment import OtherLoad, describe_environment
from avsbg.benchmarks.measure.sampling import PAUSE, interleave
from avsbg.benchmarks.results.rows import EnvironmentRow, Sha256

RESULTS = Path(__file__).parents[1] / "results" / "front_end.jsonl"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MachineRow(_Record):
    """The first line: where, and with which network, the others were measured."""

    kind: Literal["machine"] = "machine"
    environment: EnvironmentRow
    other_load: float = Field(description="the share of all cores that other processes used meanwhile")
    bundle: str
    manifest_sha256: Sha256
    backend: str


class Spent(_Record):
    """Raw samples of one thing, seconds."""

    clock: list[float]
    processor: list[float] = Field(description="of all threads together")


class VideoRow(_Record):
    """A video's first clips."""

    kind: Literal["video"] = "video"
    video: str = Field(description="file name")
    sha256: Sha256
    width: int
    height: int
    frame_rate: float | None
    clips: int = Field(ge=1)
    front_end: Spent = Field(description="from the file to the network's inputs, all clips")
    network: Spent = Field(description="the same clips through the network")

    @property
    def shares(self) -> tuple[float, float]:
        """The front end's time over the network's, median of the samples' ratios: by the clock, by the processor."""
        pairs = ((self.front_end.clock, self.network.clock), (self.front_end.processor, self.network.processor))
        clock, processor = (statistics.median(a / b for a, b in zip(*pair, strict=True)) for pair in pairs)
        return clock, processor


Row = MachineRow | VideoRow


def measure(bundle_path: Path, videos: Sequence[Path], backend: str, samples: int) -> list[Row]:
    """Time the front end and the network on each video, in turn.

    Raises:
        AvsbgError: a video or the bundle cannot be used.
    """
    from avsbg.runtime import backends
    from avsbg.runtime.bundle import Bundle, sha256
    from avsbg.runtime.media.container import probe
    from avsbg.runtime.media.samples import clip_inputs, read_clips

    bundle, target, load = Bundle.open(bundle_path), backends.BackendSpec.parse(backend), OtherLoad()
    rows: list[Row] = []
    with backends.create(target.backend, bundle, **target.options()) as network:
        for path in videos:
            video = probe(path)

            def read(path: Path = path) -> list[dict[str, object]]:
                video = probe(path)
                walk = read_clips(video, bundle.manifest, silent=not video.has_audio)
                return [clip_inputs(samples, bundle.manifest, network.contract) for samples in walk]  # type: ignore[misc]

            inputs = read()

            def infer(inputs: list[dict[str, object]] = inputs) -> None:
                for one in inputs:
                    network.run(one, ["probability"])  # type: ignore[arg-type]

            front, net = _timed([read, infer], samples)
            rows.append(
                VideoRow(
                    video=path.name,
                    sha256=sha256(path),
                    width=video.width,
                    height=video.height,
                    frame_rate=None if video.rate is None else float(video.rate),
                    clips=len(inputs),
                    front_end=front,
                    network=net,
                )
            )
    machine = MachineRow(
        environment=describe_environment(),
        other_load=load.share(),
        bundle=bundle.manifest.name,
        manifest_sha256=bundle.manifest_sha256,
        backend=backend,
    )
    return [machine, *rows]


def _timed(parts: Sequence[Callable[[], object]], samples: int) -> list[Spent]:
    """Time each part in turn, after a round that does not count."""
    processor: list[list[float]] = [[] for _ in parts]

    def watched(part: Callable[[], object], spent: list[float]) -> Callable[[], object]:
        def call() -> None:
            before = time.process_time()
            part()
            spent.append(time.process_time() - before)

        return call

    calls = {str(number): watched(part, processor[number]) for number, part in enumerate(parts)}
    clock = interleave(calls, warmup=1, samples=samples, pause=PAUSE)
    return [Spent(clock=clock[str(number)], processor=spent[-samples:]) for number, spent in enumerate(processor)]


def render(path: Path) -> str:
    """The committed rows as a Markdown table."""
    rows = [TypeAdapter(Row).validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    machine = next(row for row in rows if isinstance(row, MachineRow))
    lines = [
        "| video | front end, ms a clip | network, ms a clip | share of the network's time | of its processor time |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if isinstance(row, VideoRow):
            front, net = (1e3 * statistics.median(spent.clock) / row.clips for spent in (row.front_end, row.network))
            rate = "variable" if row.frame_rate is None else f"{row.frame_rate:g} fps"
            clock, processor = row.shares
            lines.append(
                f"| {row.video}, {row.width} x {row.height}, {rate} | {front:.0f} | {net:.0f} | {clock:.1%} | "
                f"{processor:.1%} |"
            )
    cores = machine.environment.cores.usable
    lines += [
        "",
        f"{machine.bundle} on {machine.backend}, {machine.environment.processor}, {cores} cores, "
        f"{machine.other_load:.0%} of them used by other processes.",
    ]
    return "\n".join(lines)


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle that takes a waveform or log-mel patches.")],
    videos: Annotated[list[Path], typer.Argument(help="Videos.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file of rows to write.")] = RESULTS,
    backend: Annotated[str, typer.Option(help="What executes the network.")] = "onnxruntime",
    samples: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 15,
) -> None:
    """Time a video's way into the network, and the network."""
    from avsbg.atomic import atomic_file

    rows = measure(bundle, videos, backend, samples)
    with atomic_file(output) as path:
        path.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    print(render(output))


if __name__ == "__main__":
    typer.run(main)
