"""Cost of a mask by how many phases are computed in one call: `python -m tools.phase_batches BUNDLE`.

Phases are the streams of a source that are shifted against each other, `avsbg run --rate`. A round computes a step of a
stream (encode a frame, decode a pair) and a clip with each number of phases, on each backend, in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from avsbg.benchmarks.machine.environment import OtherLoad, describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.measure.sampling import PAUSE, interleave
from avsbg.benchmarks.measure.streaming import synthetic_clip
from avsbg.benchmarks.report.tables import Columns, markdown, number, with_interval
from avsbg.benchmarks.results.schema import Measurement, Metric, Run, write_rows
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.runtime.backends import BackendSpec, create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.streaming.frame_pair import (
    OUTPUTS,
    Array,
    StreamedClip,
    create_streamed_clip,
    decode_pair,
    encode_frame,
    frame_inputs,
    release,
)
from tools import Output, command

PHASES = (1, 2, 5, 10)
Case = tuple[str, str, int]  # the backend, `stream` or `clip`, and the phases of a call


def measure(path: Path, backends: Sequence[str], phases: Sequence[int], samples: int) -> list[Measurement]:
    """Time a step of streams and a clip with so many phases in a call, in turn."""
    bundle, load = Bundle.open(path), OtherLoad()
    clip, calls = synthetic_clip(bundle), dict[Case, Callable[[], object]]()
    frame = frame_inputs(clip, 0, shared_sound=bundle.manifest.clip.shared_sound)
    with ExitStack() as stack:
        for name in backends:
            spec = BackendSpec.parse(name)
            stream = stack.enter_context(create_streamed_clip(bundle, spec))
            whole = stack.enter_context(create(spec.backend, bundle, **spec.options()))
            for count in phases:
                calls[name, "stream", count] = partial(_step, stream, _repeat(frame, count))
                calls[name, "clip", count] = partial(whole.run, _repeat(clip, count), OUTPUTS)
        names = {str(case): case for case in calls}
        spent = interleave({key: calls[case] for key, case in names.items()}, warmup=2, samples=samples, pause=PAUSE)
    run, environment = Run(others=load.share()), describe_environment()
    # Of a mask each.
    times = {
        case: [
            seconds / case[2] / (1 if case[1] == "stream" else bundle.manifest.clip.frames) for seconds in spent[key]
        ]
        for key, case in names.items()
    }
    return [
        Measurement(
            kind="phase-batches",
            label=f"{mode} on {name}, phases in a call: {count}",
            case={"backend": name, "mode": mode, "phases": count},
            metrics={
                "latency": Metric(unit="s", samples=tuple(times[name, mode, count])),
                "ratio": Metric.of(paired_ratio(times[name, mode, count], times[name, mode, phases[0]])),
            },
            ran=describe_bundle(bundle),
            run=run,
            environment=environment,
        )
        for name, mode, count in times
    ]


def _repeat(inputs: dict[str, Array], count: int) -> dict[str, Array]:
    return {name: np.repeat(array, count, axis=0) for name, array in inputs.items()}


def _step(stream: StreamedClip, inputs: dict[str, Array]) -> None:
    features = encode_frame(stream.encode, inputs)
    decode_pair(stream.decode, features, features, OUTPUTS)
    release(features)


def phase_table(rows: Sequence[Measurement]) -> str:
    """The time of a mask by the phases in a call, as ratios to one phase in a call, as Markdown."""
    columns: Columns[Measurement] = [
        ("mode", lambda row: row.case["mode"]),
        ("backend", lambda row: f"`{row.case['backend']}`"),
        ("phases in a call", lambda row: number(row.case["phases"])),
        ("ms a mask", lambda row: number(f"{1e3 * row['latency'].summary.p50:.1f}")),
        ("time, one phase in a call: 1", lambda row: with_interval(row["ratio"])),
    ]
    first = rows[0]
    assert first.environment is not None
    return (
        f"{markdown(rows, columns)}\n\n"
        f"{first.ran.network}, {first.environment.processor}, {len(first.environment.cores)} cores, "
        f"{first.run.others or 0:.0%} of them used by other processes; {len(first['latency'].samples)} rounds."
    )


@command
def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle that was exported with --stream.")],
    backend: Annotated[
        list[str] | None, typer.Option(help="Several times; by default onnxruntime and openvino.")
    ] = None,
    phases: Annotated[list[int] | None, typer.Option(min=1, help="Several times; by default 1, 2, 5 and 10.")] = None,
    output: Output = Path("benchmarks/results/phase_batches.jsonl"),
    samples: Annotated[int, typer.Option(min=2, help="Rounds.")] = 12,
) -> None:
    """Time a mask by how many phases are computed in one call."""
    rows = measure(bundle, backend or ("onnxruntime", "openvino"), phases or PHASES, samples)
    write_rows(output, rows)
    typer.echo(phase_table(rows))
