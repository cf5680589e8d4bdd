"""Operators' time in a stream's two graphs and in the clip's graph: `python -m tools.stream_profile BUNDLE`.

ONNX Runtime's profiler slows runs of one frame down more than a clip, so that the whole times are those of
`avsbg bench stream`; this shows which operators a batch of one makes slower.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from avsbg.benchmarks.machine.environment import OtherLoad, default_threads, describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.measure.profile import profile_onnxruntime
from avsbg.benchmarks.report.labels import machine_title
from avsbg.benchmarks.report.tables import Columns, markdown, number
from avsbg.benchmarks.results.schema import Measurement, Metric, Run, write_rows
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.streaming.frame_pair import check_streams
from tools import Output, command

GRAPHS = ("clip", "encode", "decode")
_SHOWN = 8  # operators with a line of their own


def measure(path: Path) -> Measurement:
    """Profile the three graphs of a bundle on one clip and one frame; seconds by operator, per frame.

    Raises as `check_streams` and `OnnxRuntimeBackend`.
    """
    bundle, load = Bundle.open(path), OtherLoad()
    check_streams(bundle)
    frames, threads, metrics = bundle.manifest.clip.frames, default_threads(), {}
    described = {}
    for graph in GRAPHS:
        options = {"threads": threads, "operator": "native" if bundle.graph(graph).operator == "custom" else None}
        described[graph], runs = profile_onnxruntime(bundle, graph, options, 1)
        layers = sorted(runs, key=lambda run: sum(layer.seconds for layer in run))[len(runs) // 2]
        parts: defaultdict[str, float] = defaultdict(float)
        for layer in layers:
            parts[layer.kind] += layer.seconds / (frames if graph == "clip" else 1)
        metrics[graph] = Metric(unit="s", value=sum(parts.values()), parts=dict(parts))
    weights = {file for graph in GRAPHS[1:] for file in bundle.graph(graph).external_data}
    size = sum(bundle.file(file).stat().st_size for file in weights)
    return Measurement(
        kind="stream-profile",
        label=bundle.manifest.name,
        case={"frames": frames, "threads": threads, "weight_bytes": size},
        metrics=metrics,
        ran=describe_bundle(bundle, backend=described),
        run=Run(others=load.share()),
        environment=describe_environment(),
    )


def profile_table(rows: Sequence[Measurement]) -> str:
    """Milliseconds per frame by operator, those that a stream makes slower by most first, as Markdown."""
    return "\n\n".join(map(_table, rows))


def _table(row: Measurement) -> str:
    clip, encode, decode = (row[graph].parts for graph in GRAPHS)
    stream = {kind: encode.get(kind, 0.0) + decode.get(kind, 0.0) for kind in encode | decode}
    added = {kind: stream.get(kind, 0.0) - clip.get(kind, 0.0) for kind in stream | clip}
    order = sorted(added, key=lambda kind: -added[kind])
    lines = [(f"`{kind}`", clip.get(kind, 0.0), stream.get(kind, 0.0)) for kind in order[:_SHOWN]]
    rest = order[_SHOWN:]
    lines.append(("all others", sum(clip.get(kind, 0.0) for kind in rest), sum(stream.get(kind, 0.0) for kind in rest)))
    lines.append(("**together**", sum(clip.values()), sum(stream.values())))
    columns: Columns[tuple[str, float, float]] = [
        ("operator", lambda line: line[0]),
        ("clip, ms a frame", lambda line: number(f"{1e3 * line[1]:.1f}")),
        ("stream, ms a frame", lambda line: number(f"{1e3 * line[2]:.1f}")),
        ("more in the stream", lambda line: number(f"{1e3 * (line[2] - line[1]):+.1f}")),
    ]
    return (
        f"{row.ran.network}, whose graphs of a stream read {row.case['weight_bytes'] / 1e6:.0f} MB of weights for each "
        f"frame, the clip's graph once for {row.case['frames']} frames:\n\n{markdown(lines, columns)}\n\n"
        f"{machine_title(row)}; {row.case['threads']} threads."
    )


@command
def main(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles that were exported with --stream.")],
    output: Output = Path("benchmarks/results/stream_profile.jsonl"),
) -> None:
    """Profile a stream's graphs beside the clip's, operator by operator."""
    rows = [measure(bundle) for bundle in bundles]
    write_rows(output, rows)
    typer.echo(profile_table(rows))
