"""Cost of a mask by how many phases are computed in one call: `python -m tools.phase_batches BUNDLE`.

Phases are the streams of a source that are shifted against each other, `avsbg run --rate`. A round computes steps of
streams (encode a frame, decode a pair) and clips with each number of phases, on each backend, in turn. In a turn each
makes as many calls one after the other as have the same number of masks: the first finds its weights and its memory
cold, since another one came before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from avsbg.benchmarks.machine.environment import OtherLoad, describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.measure.sampling import PAUSE, count_processor_time, interleave
from avsbg.benchmarks.measure.streaming import synthetic_clip
from avsbg.benchmarks.report.labels import machine_title
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


def measure(path: Path, backends: Sequence[str], phases: Sequence[int], samples: int) -> list[Measurement]:
    """Time a step of streams and a clip with so many phases in a call, in turn, by the clock and by the processor."""
    bundle, load = Bundle.open(path), OtherLoad()
    clip, frames = synthetic_clip(bundle), bundle.manifest.clip.frames
    frame = frame_inputs(clip, 0, shared_sound=bundle.manifest.clip.shared_sound)
    calls: dict[str, Callable[[], object]] = {}
    cases: dict[str, dict[str, Any]] = {}  # by label
    processor: dict[str, list[float]] = {}

    def add(backend: str, mode: str, count: int, call: Callable[[], object]) -> None:
        label = f"{mode} on {backend}, phases in a call: {count}"
        cases[label] = {"backend": backend, "mode": mode, "phases": count, "calls": max(1, max(phases) // count)}

        def make_calls() -> None:
            for _ in range(cases[label]["calls"]):
                call()

        calls[label] = count_processor_time(make_calls, processor.setdefault(label, []))

    with ExitStack() as stack:
        for name in backends:
            spec = BackendSpec.parse(name)
            stream = stack.enter_context(create_streamed_clip(bundle, spec))
            whole = stack.enter_context(create(spec.backend, bundle, **spec.options()))
            for count in phases:
                add(name, "stream", count, partial(_step, stream, _repeat(frame, count)))
                add(name, "clip", count, partial(whole.run, _repeat(clip, count), OUTPUTS))
        clock = interleave(calls, warmup=2, samples=samples, pause=PAUSE)
    run, environment = Run(others=load.share()), describe_environment()

    def per_mask(label: str, spent: dict[str, list[float]]) -> list[float]:
        case = cases[label]
        masks = case["calls"] * case["phases"] * (frames if case["mode"] == "clip" else 1)
        return [seconds / masks for seconds in spent[label][-samples:]]

    def one_phase(label: str) -> str:
        wanted = {**cases[label], "phases": phases[0], "calls": max(1, max(phases) // phases[0])}
        return next(other for other, case in cases.items() if case == wanted)

    return [
        Measurement(
            kind="phase-batches",
            label=label,
            case=case,
            metrics={
                "latency": Metric(unit="s", samples=tuple(per_mask(label, clock))),
                "processor": Metric(unit="s", samples=tuple(per_mask(label, processor))),
                "ratio": Metric.of(paired_ratio(per_mask(label, clock), per_mask(one_phase(label), clock))),
                "processor_ratio": Metric.of(
                    paired_ratio(per_mask(label, processor), per_mask(one_phase(label), processor))
                ),
            },
            ran=describe_bundle(bundle),
            run=run,
            environment=environment,
        )
        for label, case in cases.items()
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
        ("processor time, ms", lambda row: number(f"{1e3 * row['processor'].summary.p50:.1f}")),
        ("processor time, one phase: 1", lambda row: with_interval(row["processor_ratio"])),
    ]
    first = rows[0]
    rounds = len(first["latency"].samples)
    return f"{markdown(rows, columns)}\n\n{first.ran.network}, {machine_title(first)}; {rounds} rounds."


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
