"""`avsbg inspect`: a bundle's manifest, for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbg.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterable

    from avsbg.runtime.manifest import TensorRecord, WeightsRecord


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle, a directory that `avsbg export` made.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Check a bundle's files against its manifest and show what it holds."""
    from rich.console import Console
    from rich.table import Table

    from avsbg.runtime.bundle import Bundle

    manifest = Bundle.open(bundle).manifest
    if as_json:
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
        "parameters": f"{manifest.parameters.inference:,} in the graph, {manifest.parameters.published:,} published",
        "FLOPs per clip": "not counted" if manifest.flops is None else f"{manifest.flops:,}",
        "test vectors": ", ".join(f"{record.clips} clips" for record in manifest.vectors) or "none",
        "made": f"{manifest.created:%Y-%m-%d %H:%M} UTC with "
        + ", ".join(f"{tool} {version}" for tool, version in manifest.versions.items()),
        "files": f"{len(manifest.files)} files, {megabytes:.1f} MB, all unchanged",
    }
    console = Console(highlight=False, soft_wrap=True)
    overview = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        overview.add_row(f"[bold]{name}[/bold]", value)
    graphs = Table("graph", "file", "operator", "opset", "nodes", "inputs", "outputs")
    for name, graph in manifest.graphs.items():
        custom = {operator: count for operator, count in graph.operators.items() if "::" in operator}
        operators = ", ".join(f"{count} {operator}" for operator, count in custom.items())
        graphs.add_row(
            name,
            graph.file,
            f"{graph.operator}\n{operators}" if operators else graph.operator,
            str(graph.opset),
            str(graph.node_count),
            _describe_tensors(graph.inputs),
            _describe_tensors(graph.outputs),
        )
    console.print(overview)
    console.print(graphs)


def _describe_weights(weights: WeightsRecord) -> str:
    if weights.seed is not None:
        return f"random, seed {weights.seed}"
    return ", ".join(f"{record.role}: {record.name} ({record.sha256[:12]})" for record in weights.checkpoints)


def _describe_tensors(tensors: Iterable[TensorRecord]) -> str:
    return "\n".join(
        f"{tensor.name} {tensor.dtype} \\[{', '.join(str(dimension) for dimension in tensor.shape)}]"
        for tensor in tensors
    )
