"""Activation memory of a graph by part of the network: `python -m tools.activation_memory BUNDLE ...`.

An engine's builder reports its activation memory as one number. What it is made of can be told from the graph: walked
in its order, each tensor lives from the node that computes it to the last one that reads it, and the largest sum of
living tensors is what an executor needs that runs one node after the other and fuses nothing. A builder that fuses
needs less, one that runs branches at once needs more, and kernels need room of their own; so this says what the
network's share is and where it arises, and is no measurement of an engine.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import onnx
import typer

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.profile import assign_parts
from avsbg.benchmarks.report.tables import Columns, markdown
from avsbg.benchmarks.results.schema import Measurement, Metric, Ran, write_rows
from avsbg.export.operators import register_schemas
from avsbg.runtime.bundle import Bundle
from tools import command

# They change what a tensor is called or shaped as, and move nothing.
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
# They may write over an operand of the same size that nothing reads afterwards.
_IN_PLACE = {
    *("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sqrt", "Reciprocal", "Neg", "Abs", "Exp", "Log", "Erf", "Tanh"),
    *("Relu", "Sigmoid", "Clip", "Gelu", "Softmax", "BatchNormalization", "LayerNormalization"),
}


def find_peak(graph: onnx.GraphProto, clips: int) -> tuple[int, dict[str, int]]:
    """Find the node at which most memory is in use, and the bytes of the tensors that live then, the largest first.

    The shapes in `graph` are inferred but for the number of clips; a `BenchmarkError` if a tensor's is not known.
    """
    sizes, nodes = _sizes(graph, clips), list(graph.node)
    last = {name: index for index, node in enumerate(nodes) for name in node.input}
    # The caller holds what goes in and comes out; weights and constants are not computed.
    held = {"", *(value.name for value in (*graph.input, *graph.output, *graph.initializer))}
    owner: dict[str, str] = {}  # tensor -> the tensor whose memory it uses
    until: dict[str, int] = {}  # owner -> index of the last node that reads any tensor in its memory

    def find_reusable(node: onnx.NodeProto, output: str, index: int) -> str | None:
        if node.op_type in _VIEWS:
            return owner.get(node.input[0])
        owners = [owner[name] for name in node.input if name in owner] if node.op_type in _IN_PLACE else []
        return next((own for own in owners if until[own] == index and sizes.get(own) == sizes.get(output)), None)

    best, peak, alive = 0, dict[str, int](), dict[str, int]()
    for index, node in enumerate(nodes):
        for name in [] if node.op_type == "Constant" else [name for name in node.output if name not in held]:
            reused = find_reusable(node, name, index)
            own = owner[name] = reused or name
            until[own] = max(until.get(own, 0), last.get(name, index))
            if reused is None and name not in sizes:
                raise BenchmarkError(f"the shape of the tensor {name} is not known.", "Export the bundle again.")
            if reused is None:
                alive[name] = sizes[name]
        if sum(alive.values()) > sum(peak.values()):
            best, peak = index, dict(alive)
        alive = {name: size for name, size in alive.items() if until[name] > index}
    return best, dict(sorted(peak.items(), key=lambda item: -item[1]))


def _sizes(graph: onnx.GraphProto, clips: int) -> dict[str, int]:
    """Bytes of each tensor whose shape is known; a dimension without a size is the number of clips."""
    found = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
        if tensor.HasField("shape"):
            found[value.name] = width * math.prod(dim.dim_value or clips for dim in tensor.shape.dim)
    return found


def live_row(path: Path, graph: str, clips: int) -> Measurement:
    """The row of one graph of a bundle; raises as `find_peak`."""
    register_schemas()
    bundle = Bundle.open(path)
    record = bundle.graph(graph)
    model = onnx.load(str(bundle.file(record.file)), load_external_data=False)
    # With the number of clips as a number, shapes that are computed from it are known too.
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = clips
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    index, peak = find_peak(inferred, clips)
    parts = assign_parts([node.name for node in inferred.node])
    maker = {name: part for node, part in zip(inferred.node, parts, strict=True) for name in node.output}
    sizes: dict[str, int | float] = {f"{maker[name]}/{name}": size for name, size in peak.items()}
    return Measurement(
        kind="activation-memory",
        case={"graph": graph, "clips": clips, "node": inferred.node[index].name, "part": parts[index]},
        metrics={"live": Metric(unit="B", value=sum(peak.values()), parts=sizes)},
        ran=Ran(network=bundle.manifest.name, files={graph: bundle.manifest.files[record.file].sha256}),
    )


def activation_table(rows: Sequence[Measurement], engines: Sequence[Measurement]) -> str:
    """Activation memory of graphs as Markdown, beside what the builder reported for the same graph.

    An engine stands beside a graph of the same network, name and number of clips, whether or not it was built from this
    very export; where several do, the one that takes the least memory. MB are 10^6 bytes.
    """

    def parts(row: Measurement) -> str:
        return ", ".join(f"{part} {size / 1e6:.0f}" for part, size in part_sizes(row).items() if size >= 5e5)

    def graph(row: Measurement) -> tuple[str, str, int]:
        return row.ran.network, row.case["graph"], row.case["clips"]

    def built(row: Measurement) -> str:
        sizes = [engine.value("activation_memory") for engine in engines if graph(engine) == graph(row)]
        known = [size for size in sizes if size is not None]
        return f"{min(known) / 1e6:.0f}" if known else "not built"

    columns: Columns[Measurement] = [
        ("network", lambda row: row.ran.network),
        ("graph", lambda row: f"`{row.case['graph']}`"),
        ("clips", lambda row: row.case["clips"]),
        ("live tensors MB", lambda row: f"{row['live'].number / 1e6:.0f}"),
        ("in which parts", parts),
        ("at", lambda row: f"{row.case['part']}, `{row.case['node']}`"),
        ("builder MB", built),
    ]
    return markdown(rows, columns)


def part_sizes(row: Measurement) -> dict[str, float]:
    """Bytes of the live tensors by part of the network, the largest first."""
    found: Counter[str] = Counter()
    for tensor, size in row["live"].parts.items():
        found[tensor.partition("/")[0]] += int(size)
    return dict(found.most_common())


@command
def main(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles.")],
    graph: Annotated[list[str] | None, typer.Option(help="Of each bundle, several times; by default `clip`.")] = None,
    clips: Annotated[list[int] | None, typer.Option(min=1, help="Several times; by default 1.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file of rows to write.")] = None,
) -> None:
    """List the tensors of a graph that live at once."""
    rows = [live_row(path, name, count) for path in bundles for count in clips or [1] for name in graph or ["clip"]]
    for row in rows:
        case, tensors = row.case, list(row["live"].parts.items())
        live = f"{row['live'].number / 1e6:.1f} MB live at {case['node']} ({case['part']})"
        typer.echo(f"{row.ran.network}, {case['graph']}, {case['clips']} clips: {live}")
        for tensor, size in tensors[:8]:
            part, _, name = tensor.partition("/")
            typer.echo(f"  {size / 1e6:8.1f} MB  {part:12} {name}")
        if rest := tensors[8:]:
            typer.echo(f"  {sum(size for _, size in rest) / 1e6:8.1f} MB  in {len(rest)} others")
    if output is not None:
        write_rows(output, rows)
