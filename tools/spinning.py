"""Cost of a stream's two graphs in ONNX Runtime by how long its threads spin: `python -m tools.spinning BUNDLE`.

A round runs the clip of T frames once, and T frames through `encode` and `decode` with each setting, in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from avsbg.benchmarks.machine.environment import OtherLoad, describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.measure.sampling import PAUSE, interleave
from avsbg.benchmarks.measure.streaming import synthetic_clip
from avsbg.benchmarks.report.labels import machine_title
from avsbg.benchmarks.report.tables import Columns, markdown, number, with_interval
from avsbg.benchmarks.results.schema import Measurement, Metric, Run, write_rows
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.native_library import native_library
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.streaming.frame_pair import frame_inputs
from tools import Output, command

CLIP = "clip mode"
# Entries of ONNX Runtime's session configuration.
SETTINGS: dict[str, dict[str, str]] = {
    "ONNX Runtime's defaults": {},
    "stop at the end of a call": {"session.force_spinning_stop": "1"},
    "stop, 200 us between operators": {
        "session.force_spinning_stop": "1",
        "session.intra_op.spin_duration_us": "200",
    },
    "stop, 50 us between operators": {"session.force_spinning_stop": "1", "session.intra_op.spin_duration_us": "50"},
    "no spinning": {"session.intra_op.allow_spinning": "0"},
}


def measure(path: Path, samples: int) -> list[Measurement]:
    """Time a frame of a stream with each of `SETTINGS`, and one of a clip, in turn."""
    bundle, load = Bundle.open(path), OtherLoad()
    frames, inputs = bundle.manifest.clip.frames, synthetic_clip(bundle)
    steps = [frame_inputs(inputs, index, shared_sound=bundle.manifest.clip.shared_sound) for index in range(frames)]
    clip = _session(bundle, "clip", SETTINGS["stop at the end of a call"])
    calls: dict[str, Callable[[], object]] = {CLIP: partial(clip.run, ["probability"], inputs)}
    for name, setting in SETTINGS.items():
        encode, decode = (_session(bundle, graph, setting) for graph in ("encode", "decode"))
        calls[name] = partial(_stream, encode, decode, steps)
    processor: dict[str, list[float]] = {name: [] for name in calls}

    def timed(name: str) -> None:
        before = time.process_time()
        calls[name]()
        processor[name].append((time.process_time() - before) / frames)

    spent = interleave({name: partial(timed, name) for name in calls}, warmup=2, samples=samples, pause=PAUSE)
    others, environment = load.share(), describe_environment()
    return [
        Measurement(
            kind="spinning",
            label=name,
            case={"setting": name, "entries": SETTINGS.get(name, {}), "frames": frames},
            metrics={
                "latency": Metric(unit="s", samples=tuple(one / frames for one in seconds)),
                "processor": Metric(unit="s", samples=tuple(processor[name][-samples:])),
                "ratio": Metric.of(paired_ratio(seconds, spent[CLIP])),
                "processor_ratio": Metric.of(paired_ratio(processor[name][-samples:], processor[CLIP][-samples:])),
            },
            ran=describe_bundle(bundle),
            run=Run(others=others),
            environment=environment,
        )
        for name, seconds in spent.items()
    ]


def _session(bundle: Bundle, graph: str, entries: dict[str, str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.register_custom_ops_library(str(native_library("onnxruntime").path))
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    file = str(bundle.file(bundle.graph(graph).file))
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _stream(encode: Any, decode: Any, steps: Sequence[dict[str, Any]]) -> None:
    names = [output.name for output in encode.get_outputs()]
    taken = [one.name for one in decode.get_inputs()]
    before: dict[str, Any] = {}
    for inputs in steps:
        new = dict(zip(names, encode.run(names, inputs), strict=True))
        partner = {name.replace("fused.", "partner."): array for name, array in (before or new).items()}
        decode.run(["probability"], {name: (new | partner)[name] for name in taken})
        before = new


def spinning_table(rows: Sequence[Measurement]) -> str:
    """Time and processor time of a frame by setting, as ratios to a frame of a clip, as Markdown."""
    columns: Columns[Measurement] = [
        ("threads", lambda row: row.label),
        ("ms a frame", lambda row: number(f"{1e3 * row['latency'].summary.p50:.0f}")),
        ("time, clip mode: 1", lambda row: with_interval(row["ratio"])),
        ("processor time, ms", lambda row: number(f"{1e3 * row['processor'].summary.p50:.0f}")),
        ("processor time, clip mode: 1", lambda row: with_interval(row["processor_ratio"])),
    ]
    first = rows[0]
    rounds = len(first["latency"].samples)
    return f"{markdown(rows, columns)}\n\n{first.ran.network}, {machine_title(first)}; {rounds} rounds."


@command
def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle that was exported with --stream.")],
    output: Output = Path("benchmarks/results/spinning.jsonl"),
    samples: Annotated[int, typer.Option(min=2, help="Rounds.")] = 15,
) -> None:
    """Time a frame of a stream by how long ONNX Runtime's threads spin."""
    rows = measure(bundle, samples)
    write_rows(output, rows)
    typer.echo(spinning_table(rows))
