"""Activation memory of a graph by stage: `python -m avsbg.benchmarks.static.activation_memory BUNDLE ...`.

An engine's builder reports its activation memory as one number. What it is made of can be told from the graph: walked
in its order, each tensor lives from the node that computes it to the last one that reads it, and the largest sum of
living tensors is what an executor needs that runs one node after the other and fuses nothing. A builder that fuses
needs less, one that runs branches at once needs more, and kernels need room of their own; so this says what the
network's share is and where it arises, and is no measurement of an engine.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import onnx
import typer
from pydantic import BaseModel, ConfigDict, Field

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.profile import assign_parts
from avsbg.benchmarks.results.json_lines import read_lines, write_lines
from avsbg.benchmarks.results.rows import Sha256
from avsbg.errors import AvsbgError

RESULTS = Path(__file__).parents[1] / "results" / "live_tensors.jsonl"
COMMAND = "python -m avsbg.benchmarks.static.activation_memory"

# They change what a tensor is called or shaped as, and move nothing.
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
# They may write over an operand of the same size that nothing reads afterwards.
_IN_PLACE = {
    *("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sqrt", "Reciprocal", "Neg", "Abs", "Exp", "Log", "Erf", "Tanh"),
    *("Relu", "Sigmoid", "Clip", "Gelu", "Softmax", "BatchNormalization", "LayerNormalization"),
}


class LiveTensor(BaseModel):
    """A tensor, or several that share their memory, at the moment at which most memory is in use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="of the tensor as it was computed")
    stage: str = Field(description="of the network")
    bytes: int = Field(ge=0)


class LiveRow(BaseModel):
    """The largest set of tensors of a graph that live at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    graph: str
    clips: int = Field(ge=1)
    graph_sha256: Sha256
    node: str = Field(description="at which the peak is reached")
    stage: str = Field(description="of that node")
    bytes: int = Field(ge=0, description="of all that live then; the graph's inputs and outputs are their caller's")
    tensors: tuple[LiveTensor, ...] = Field(description="these, the largest first")

    @property
    def stages(self) -> dict[str, int]:
        """Bytes by stage, the largest first."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            found[tensor.stage] = found.get(tensor.stage, 0) + tensor.bytes
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def find_peak(graph: onnx.GraphProto, clips: int) -> tuple[int, dict[str, int]]:
    """The node at which most memory is in use, and what lives then.

    Args:
        graph: with the shapes of its tensors inferred, apart from the number of clips.
        clips: that number.

    Returns:
        the node's index, and bytes by tensor, the largest first.

    Raises:
        BenchmarkError: a tensor's shape is not known.
    """
    memory, nodes = _Memory(_sizes(graph, clips)), list(graph.node)
    last = {name: index for index, node in enumerate(nodes) for name in node.input}
    # The caller holds what goes in and comes out; weights and constants are not computed.
    held = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    best, peak, alive = 0, dict[str, int](), dict[str, int]()
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and name not in held and node.op_type != "Constant" and memory.place(node, name, index, last):
                alive[name] = memory.size(name)
        if sum(alive.values()) > sum(peak.values()):
            best, peak = index, dict(alive)
        alive = {name: size for name, size in alive.items() if memory.until[name] > index}
    return best, dict(sorted(peak.items(), key=lambda item: -item[1]))


class _Memory:
    """Whose memory each tensor uses.

    Attributes:
        until: owner of memory -> index of the last node that reads any tensor in it.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self._sizes = sizes
        self._owner: dict[str, str] = {}
        self.until: dict[str, int] = {}

    def size(self, name: str) -> int:
        """Bytes."""
        if name not in self._sizes:
            raise BenchmarkError(f"the shape of the tensor {name} is not known.", "Export the bundle again.")
        return self._sizes[name]

    def place(self, node: onnx.NodeProto, output: str, index: int, last: dict[str, int]) -> bool:
        """Give an output of a node memory; whether that is memory of its own."""
        reused = self._reused(node, output, index)
        owner = self._owner[output] = reused or output
        self.until[owner] = max(self.until.get(owner, 0), last.get(output, index))
        return reused is None

    def _reused(self, node: onnx.NodeProto, output: str, index: int) -> str | None:
        if node.op_type in _VIEWS:
            return self._owner.get(node.input[0])
        if node.op_type in _IN_PLACE:
            for owner in filter(None, map(self._owner.get, node.input)):
                if self.until[owner] == index and self._sizes.get(owner) == self._sizes.get(output):
                    return owner
        return None


def _sizes(graph: onnx.GraphProto, clips: int) -> dict[str, int]:
    """Bytes of each tensor whose shape is known; a dimension without a size is the number of clips."""
    found = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
        if tensor.HasField("shape"):
            found[value.name] = width * math.prod(dim.dim_value or clips for dim in tensor.shape.dim)
    return found


def live_row(path: Path, graph: str, clips: int) -> LiveRow:
    """The row of one graph of a bundle.

    Raises:
        BundleError: the bundle cannot be used, or has no such graph.
        BenchmarkError: as `find_peak`.
    """
    from avsbg.export.operators import register_schemas
    from avsbg.runtime.bundle import Bundle

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
    stages = assign_parts([node.name for node in inferred.node])
    maker = {name: stage for node, stage in zip(inferred.node, stages, strict=True) for name in node.output}
    return LiveRow(
        network=bundle.manifest.name,
        graph=graph,
        clips=clips,
        graph_sha256=bundle.manifest.files[record.file].sha256,
        node=inferred.node[index].name,
        stage=stages[index],
        bytes=sum(peak.values()),
        tensors=tuple(LiveTensor(name=name, stage=maker[name], bytes=size) for name, size in peak.items()),
    )


def render(rows_path: Path, engines_path: Path) -> str:
    """Committed rows as a Markdown table, beside what the builder reported for the same graph.

    An engine stands beside a graph of the same network, name and number of clips, whether or not it was built from this
    very export; where several do, the one that takes the least memory. MB are 10^6 bytes.
    """
    from avsbg.benchmarks.static.engines import read_engines

    engines = read_engines(engines_path)
    lines = [
        "| network | graph | clips | live tensors MB | in which stages | at | builder MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in read_lines(rows_path, LiveRow.model_validate_json, "live tensors", f"`{COMMAND}`"):
        stages = ", ".join(f"{stage} {size / 1e6:.0f}" for stage, size in row.stages.items() if size >= 5e5)
        built = [
            engine["memory"]["activation"]
            for engine in engines
            if (engine["network"], engine["graph"], engine["clips"]) == (row.network, row.graph, row.clips)
            and engine["memory"]["activation"] is not None
        ]
        lines.append(
            f"| {row.network} | `{row.graph}` | {row.clips} | {row.bytes / 1e6:.0f} | {stages} | "
            f"{row.stage}, `{row.node}` | {f'{min(built) / 1e6:.0f}' if built else 'not built'} |"
        )
    return "\n".join(lines)


def describe(row: LiveRow, largest: int = 8) -> Iterable[str]:
    """The row for people: the sum, and the largest tensors."""
    yield f"{row.network}, {row.graph}, {row.clips} clips: {row.bytes / 1e6:.1f} MB live at {row.node} ({row.stage})"
    for tensor in row.tensors[:largest]:
        yield f"  {tensor.bytes / 1e6:8.1f} MB  {tensor.stage:12} {tensor.name}"
    if rest := row.tensors[largest:]:
        yield f"  {sum(tensor.bytes for tensor in rest) / 1e6:8.1f} MB  in {len(rest)} others"


def main(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles.")],
    graph: Annotated[list[str] | None, typer.Option(help="Of each bundle, several times; by default `clip`.")] = None,
    clips: Annotated[list[int] | None, typer.Option(min=1, help="Several times; by default 1.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file of rows to write.")] = None,
) -> None:
    """Say which tensors of a graph live at once."""
    wanted: Sequence[tuple[Path, str, int]] = [
        (path, name, count) for path in bundles for count in clips or [1] for name in graph or ["clip"]
    ]
    rows = [live_row(*one) for one in wanted]
    for row in rows:
        typer.echo("\n".join(describe(row)))
    if output is not None:
        write_lines(output, rows)


if __name__ == "__main__":
    try:
        typer.run(main)
    except AvsbgError as error:
        sys.exit(f"error: {error}")
