"""`avsbg inspect`: a bundle's manifest, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Option

from avsbg.cli import CHECK, app
from avsbg.cli.options import BundlePath, Format

if TYPE_CHECKING:
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.bundle.manifest import GraphRecord, WeightsRecord


@app.command(rich_help_panel=CHECK)
def inspect(
    bundle: BundlePath,
    dla: Annotated[
        str | None,
        Option(
            metavar="GRAPH",
            help="Show instead which layers of this graph a Jetson's deep learning accelerator (DLA) can run.",
        ),
    ] = None,
    output_format: Format = "text",
) -> None:
    """Check a bundle's files against its manifest, and show its contents."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from avsbg.runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    if dla is not None:
        _show_dla(opened, dla, output_format)
        return
    manifest = opened.manifest
    if output_format == "json":
        print(manifest.model_dump_json(indent=2))
        return
    clip = manifest.clip
    switches = ", ".join(f"{name} {value}" for name, value in manifest.variant.items())
    megabytes = sum(record.bytes for record in manifest.files.values()) / 1e6
    facts = {
        "network": manifest.name,
        "variant": switches,
        "weights": _describe_weights(manifest.weights),
        "clip": f"{clip.frames} frames of {clip.height} x {clip.width}, one per second; sound as {clip.audio}",
        "parameters": f"{manifest.parameters.inference:,} for inference, {manifest.parameters.published:,} published",
        "test vectors": ", ".join(f"batch {record.clips}" for record in manifest.vectors) or "none",
        "made": f"{manifest.created:%Y-%m-%d %H:%M} UTC with "
        + ", ".join(f"{tool} {version}" for tool, version in manifest.versions.items()),
        "files": f"{len(manifest.files)} files, {megabytes:.1f} MB, all unchanged",
    }
    for name, graph in manifest.graphs.items():
        facts[f"graph {name}"] = _describe_graph(graph)
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(f"[bold]{name}[/bold]", escape(value))
    Console(highlight=False).print(table)


def _show_dla(bundle: Bundle, name: str, output_format: str) -> None:
    import json
    from dataclasses import asdict

    from avsbg.cli.output import plain_console
    from avsbg.export.engine.dla import MAX_LOADABLES, examine
    from avsbg.export.external_data import check_external_data

    check_external_data(bundle, bundle.graph(name))
    report = examine(bundle.file(bundle.graph(name).file))
    if output_format == "json":
        print(json.dumps({"graph": name, "loadables": report.loadables, **asdict(report)}, indent=2))
        return
    console = plain_console(markup=False)
    total, pieces = len(report.layers), f"{report.loadables} piece{'s' * (report.loadables != 1)}"
    console.print(f"{name}: {report.possible} of {total} layers could run on a DLA, in {pieces}.")
    if report.loadables > MAX_LOADABLES:
        console.print(
            f"A core of the DLA holds {MAX_LOADABLES} pieces at once: this graph belongs on the GPU as a whole."
        )
    elif report.possible < total:
        console.print("Between the pieces the GPU would compute, and each change copies: measure before you do so.")
    for (operator, reason), count in report.obstacles.items():
        console.print(f"{count:6} {operator}: {reason}")


def _describe_weights(weights: WeightsRecord) -> str:
    if weights.seed is not None:
        return f"random, seed {weights.seed}"
    return ", ".join(f"{record.role}: {record.name} ({record.sha256[:12]})" for record in weights.checkpoints)


def _describe_graph(graph: GraphRecord) -> str:
    custom = [f"{count} {operator}" for operator, count in graph.operators.items() if "::" in operator]
    nodes = f"{graph.node_count} nodes" + (f", of them {', '.join(custom)}" if custom else ", all standard operators")
    lines = [f"{graph.file}: {nodes}; opset {graph.opset}, IR {graph.ir_version}"]
    if graph.merges:
        before = sum(merge.operations_before for merge in graph.merges)
        after = sum(merge.operations_after for merge in graph.merges)
        lines.append(
            f"{len(graph.merges)} merges of neighbouring operations: {before / 1e9:.3g} GFLOP a frame are now "
            f"{after / 1e9:.3g}"
        )
    for direction, tensors in (("in ", graph.inputs), ("out", graph.outputs)):
        lines += [
            f"{direction} {tensor.name} {tensor.dtype} [{', '.join(str(dimension) for dimension in tensor.shape)}]"
            for tensor in tensors
        ]
    return "\n".join(lines)
