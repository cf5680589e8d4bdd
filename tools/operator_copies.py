"""The copies around the correlation operator in an engine, with a node for each stage and with one for all.

    avsbg export avs-bg --encoder pvt_v2_b0 --audio embedding --seed 1 -o BUNDLE
    python -m tools.operator_copies BUNDLE -o benchmarks/results/operator_copies.jsonl

TensorRT for RTX builds the clip graph of a bundle, for one clip, from two files: the bundle's own without function
bodies, as TensorRT was given it before, and the one that `avsbg build` gives it. Its builder's table of layers says
which tensors the operator reads, and who else reads them. Needs no GPU.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import onnx
import typer

from avsbg.benchmarks.report.tables import markdown_of
from avsbg.benchmarks.results.schema import Measurement, Metric, Ran, write_rows
from avsbg.export.engine.api import import_tensorrt
from avsbg.export.engine.builder import parse_onnx
from avsbg.export.engine.layers import LOG_LINE, NODE
from avsbg.export.plugin_graph import write_plugin_graph
from avsbg.export.precision.graphs import add_graph
from avsbg.runtime.backends.tensorrt.engine import load_plugin
from avsbg.runtime.backends.tensorrt.logger import message_log
from avsbg.runtime.bundle import Bundle, update_bundle
from tools import Output, command

FORMS = {"stages": "a node for each stage", "all": "one node for all stages"}
CAPABILITY = 89
# Launches of one call: the kernel, and the one that combines its partial sums. tests/native/cuda/test_cuda_results.py
# counts them on the emulation.
_LAUNCHES = 2
_BYTES = {"Float": 4, "Half": 2, "BFloat16": 2}
_TENSOR = re.compile(r"Name: ([^,]+), Dimensions: \[([\d,]*)\].*?Datatype: (\w+)")
# Kernels that compute nothing, by the operations in their names.
_MOVES = re.compile(r"__myl_(Move|Tran|Resh|Slic|Cast|Conc)+_")


@dataclass(frozen=True)
class _Layer:
    name: str
    kind: str
    inputs: dict[str, int]  # bytes of each tensor
    outputs: dict[str, int]
    nodes: tuple[str, ...]


def count_copies(lines: Iterable[str]) -> dict[str, int]:
    """Count, in a builder's table of layers: calls of the operator, and the bytes that are written for it alone.

    Those are the tensors that it reads and no other layer does, and what layers that only move values write on the way
    to it. A map that the network needs as well is none.
    """
    layers = [_read_layer(match.groupdict()) for line in lines if (match := LOG_LINE.match(line))]
    calls = [layer for layer in layers if layer.kind == "custom_layer"]
    readers = Counter(name for layer in layers if layer not in calls for name in layer.inputs)
    producers = {name: layer for layer in layers for name in layer.outputs}
    copies: dict[str, int] = {}
    waiting = [(name, size) for call in calls for name, size in call.inputs.items()]
    while waiting:
        name, size = waiting.pop()
        producer = producers.get(name)
        moves = producer is not None and _MOVES.match(producer.name) is not None
        if name in copies or not (moves or readers[name] == 0):
            continue
        copies[name] = size
        if producer is not None and moves:
            waiting += producer.inputs.items()
    return {"calls": len(calls), "copies": len(copies), "copied": sum(copies.values())}


def _read_layer(fields: dict[str, str]) -> _Layer:
    def tensors(text: str) -> dict[str, int]:
        return {
            name: math.prod(int(size) for size in shape.split(",") if size) * _BYTES.get(kind, 1)
            for name, shape, kind in _TENSOR.findall(text)
        }

    inputs, outputs = tensors(fields["inputs"]), tensors(fields["outputs"])
    return _Layer(fields["name"], fields["kind"], inputs, outputs, tuple(NODE.findall(fields["nodes"])))


def build_table(file: Path) -> list[str]:
    """The lines of the builder's table of layers of an ONNX file with fixed sizes."""
    api = import_tensorrt("tensorrt-rtx")
    trt, log = api.module, message_log(api.module)
    builder = trt.Builder(log)
    load_plugin(builder.get_plugin_registry())
    network = builder.create_network(api.network_flags())
    parse_onnx(trt, network, file)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{CAPABILITY}"), 0)
    with log.collect() as messages:
        assert builder.build_serialized_network(network, config) is not None
    return [line for message in messages for line in message.text.splitlines() if line.startswith("Name: ")]


def write_form(source: Path, form: str, target: Path, maps: int = 1) -> None:
    """Write the graph that TensorRT is given beside its source, its inputs for so many clips or maps."""
    if form == "all":
        write_plugin_graph(source, target)
    model = onnx.load(str(target if form == "all" else source), load_external_data=False)
    del model.functions[:], model.graph.value_info[:]
    for tensor in model.graph.input:
        tensor.type.tensor_type.shape.dim[0].dim_value = maps  # takes the place of its name
    target.write_bytes(model.SerializeToString())


def copy_rows(path: Path) -> list[Measurement]:
    """One row for each form of the clip graph in fp16."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle.open(Path(shutil.copytree(path, Path(folder) / "bundle")))
        with update_bundle(bundle) as update:
            graph = add_graph(update, "clip", "fp16")
        bundle = Bundle.open(bundle.path)
        clip = bundle.manifest.clip.model_dump(mode="json")
        for form, title in FORMS.items():
            file = bundle.path / f"{form}.onnx"
            write_form(bundle.file(bundle.graph(graph).file), form, file)
            counts = count_copies(build_table(file))
            api = import_tensorrt("tensorrt-rtx")
            rows.append(
                Measurement(
                    kind="operator-copies",
                    label=title,
                    case={"graph": graph, "form": form, "clips": 1, "clip": clip, "compute_capability": CAPABILITY},
                    metrics={
                        "launches": Metric(value=_LAUNCHES * counts["calls"]),
                        "copies": Metric(value=counts["copies"]),
                        "copied": Metric(unit="B", value=counts["copied"]),
                    },
                    ran=Ran(network=bundle.manifest.name, backend={api.backend: api.version}, requested="fp16"),
                )
            )
    return rows


def copy_table(rows: Sequence[Measurement]) -> str:
    """Launches of the operator and copies for it, by form, as Markdown; MB are 10^6 bytes."""

    def number(row: Measurement, metric: str) -> float:
        return float(row.value(metric) or 0)

    lines: list[tuple[Any, ...]] = [
        ("launches of a clip", *(f"{number(row, 'launches'):.0f}" for row in rows)),
        ("maps written for the operator alone", *(f"{number(row, 'copies'):.0f}" for row in rows)),
        ("MB written, and read again, by that", *(f"{number(row, 'copied') / 1e6:.1f}" for row in rows)),
    ]
    return markdown_of(("AVS-BG, one clip of five frames, fp16", *(row.label for row in rows)), lines)


@command
def main(bundle: Annotated[Path, typer.Argument(help="A bundle of AVS-BG.")], output: Output) -> None:
    """Write the counts of both forms as rows, and print them as a table."""
    rows = copy_rows(bundle)
    write_rows(output, rows)
    typer.echo(copy_table(rows))
