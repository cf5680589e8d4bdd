"""Locating an error in a graph: the first stage, and in it the first tensor, that differs from PyTorch's.

Two steps, since a large network has gigabytes of tensors. First the stages: a graph that is right tells which of its
tensors is which stage, by value, since PyTorch's intermediate stages are in the bundle's vectors; those tensors are
then looked at in the failing graph. After that the tensors between the last stages that are right and the first that is
wrong, in both graphs, by name and in the order of execution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avsbg.errors import AvsbgError
from avsbg.export.graph_tensors import GraphTensors, module_of, relative_difference, stage_difference, stage_names
from avsbg.export.sessions import split_by_size
from avsbg.runtime.bundle import Bundle, Vectors
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.verify.verify import select_vectors

Report = Callable[[str], None]

# Largest relative difference between a tensor of PyTorch's and the same one of a correct graph.
_SAME = 1e-3
# Bytes of tensors that are compared in one run.
_BYTES_PER_RUN = 256 * 2**20


class LocateError(AvsbgError):
    """There is nothing to compare with."""


@dataclass(frozen=True)
class TensorDifference:
    """A tensor of the failing graph against what it should be."""

    name: str
    node: str  # named after the module of the network
    operator: str
    stage: str | None  # None for a tensor between stages
    difference: float  # the largest, as a share of the largest value expected; infinite where not finite
    passed: bool


@dataclass(frozen=True)
class Location:
    """The place of an error."""

    graph: str
    reference: str | None  # the graph that it was compared with; None where none is right
    tolerance: float  # of each tensor, relative
    stages: tuple[TensorDifference, ...]  # those recognised, in the order of execution
    not_recognised: tuple[str, ...]  # stages fused away or of training only; not those that the export merged
    first_stage: str | None  # that is wrong; None where all are right
    first_tensor: TensorDifference | None  # that is wrong; None where it could not be narrowed down
    looked_at: int


def locate(
    bundle: Bundle,
    graph: str,
    *,
    clips: Sequence[int] = (),
    tolerance: float | None = None,
    report: Report = lambda _: None,
) -> Location:
    """Find where a graph of a bundle goes wrong, in ONNX Runtime on the CPU, with the first vectors for `clips`.

    The tolerance of each tensor is relative, by default what the graph's precision allows.

    Raises:
        LocateError: the vectors hold no intermediate stages.
        BundleError: no such graph, or no such vectors.
    """
    record = bundle.graph(graph)
    tolerance = PRECISIONS[record.precision].tolerance if tolerance is None else tolerance
    vectors = next(iter(select_vectors(bundle, clips)))
    if not vectors.intermediates:
        raise LocateError(f"the vectors of {bundle.path} hold no intermediate stages.", "Export the bundle again.")
    failing = GraphTensors(bundle, graph, vectors)
    report("looking for a graph that is right")
    reference = _find_reference(bundle, graph, vectors)
    report("recognising the stages")
    # Without a graph that is right, the failing one is its own: its stages are recognised as far as they are right.
    names = _recognise(reference or failing, vectors)
    # A stage that a merge starts from within is computed by none of the graphs.
    inside = {module_of(node) for merge in record.merges for node in merge.nodes[:-1]}
    wanted = [stage for stage in stage_names(vectors) if f"network.{stage}" not in inside]
    if reference is not None:
        stages = _compare_stages(failing, names, vectors, tolerance)
    else:
        stages = [TensorDifference(name, *failing.describe(name), stage, 0.0, True) for stage, name in names.items()]
    stages.sort(key=lambda stage: failing.producer[stage.name])
    bad = next((stage for stage in stages if not stage.passed), None)
    missing = tuple(stage for stage in wanted if stage not in names)
    first_stage = bad.stage if bad else (missing[0] if reference is None and missing else None)
    tensors: list[TensorDifference] = []
    if reference is not None:
        report("looking for the first tensor that differs")
        target = [bad.name] if bad else [output.name for output in failing.model.graph.output]
        good = {stage.name for stage in stages if stage.passed}
        tensors = _compare_tensors(failing, reference, failing.between(good, target), tolerance)
    first_tensor = next((tensor for tensor in tensors if not tensor.passed), None)
    looked_at, right = len(stages) + len(tensors), reference.name if reference else None
    return Location(graph, right, tolerance, tuple(stages), missing, first_stage, first_tensor, looked_at)


def _find_reference(bundle: Bundle, failing: str, vectors: Vectors) -> GraphTensors | None:
    """An fp32 graph of the bundle whose outputs are PyTorch's, plain ones first: all their tensors can be looked at."""
    for name, record in sorted(bundle.manifest.graphs.items(), key=lambda item: item[1].operator != "plain"):
        names = [{tensor.name for tensor in tensors} for tensors in (record.inputs, record.outputs)]
        fits = names[0] == set(vectors.inputs) and names[1] >= set(vectors.outputs)
        if record.precision != "fp32" or name == failing or not fits:
            continue
        model = GraphTensors(bundle, name, vectors)
        results = model.run(list(vectors.outputs))
        if all(relative_difference(results[output], wanted) <= _SAME for output, wanted in vectors.outputs.items()):
            return model
    return None


def _candidates(model: GraphTensors) -> list[str]:
    """Tensors that may be a stage: what one module hands to another, and small ones."""
    producers = {name: model.nodes[number] for name, number in model.producer.items()}
    scope = {name: module_of(node.name) for name, node in producers.items()}
    taken = ((name, module_of(node.name)) for node in model.nodes for name in node.input if name in scope)
    outer = {name for name, taker in taken if scope[name] != taker and scope[name].count(".") <= 5}
    kinds = ("Sigmoid", "Reshape", "Transpose", "Relu", "Concat", "Add", "Mul", "Div")
    small = {name for name, node in producers.items() if node.op_type in kinds and ".encoder." not in node.name}
    return model.floats(outer | small)


def _recognise(model: GraphTensors, vectors: Vectors) -> dict[str, str]:
    """The tensor of each stage, recognised by value; the first in the order of execution where several are equal."""
    names: dict[str, str] = {}
    wanted = stage_names(vectors)
    for batch in split_by_size(_candidates(model), model.size, _BYTES_PER_RUN):
        for name, value in model.run(batch).items():
            for stage in wanted:
                if stage not in names and stage_difference(value, stage, vectors) <= _SAME:
                    names[stage] = name
    return names


def _compare_stages(
    model: GraphTensors, names: Mapping[str, str], vectors: Vectors, tolerance: float
) -> list[TensorDifference]:
    present = {stage: name for stage, name in names.items() if name in model.producer}
    found = []
    for batch in split_by_size(model.floats(present.values()), model.size, _BYTES_PER_RUN):
        values = model.run(batch)
        for stage, name in present.items():
            if name in values:
                difference = stage_difference(values[name], stage, vectors)
                found.append(TensorDifference(name, *model.describe(name), stage, difference, difference <= tolerance))
    return found


def _compare_tensors(
    failing: GraphTensors, reference: GraphTensors, names: Sequence[str], tolerance: float
) -> list[TensorDifference]:
    """The tensors up to and with the first that differs."""
    shared = [name for name in names if name in set(reference.floats(names))]
    compared = []
    for batch in split_by_size(shared, failing.size, _BYTES_PER_RUN):
        ours, theirs = failing.run(batch), reference.run(batch)
        for name in batch:
            difference = relative_difference(ours[name], theirs[name])
            compared.append(TensorDifference(name, *failing.describe(name), None, difference, difference <= tolerance))
            if difference > tolerance:
                return compared
    return compared


def show(target: str, location: Location, *, engine: str | None = None) -> Any:
    """A table of the stages with a bar for each difference, and the verdict, for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("stage", "tensor", "difference", "", box=None, pad_edge=False)
    for stage in location.stages:
        # Decades above 1e-7, the last bit of fp32.
        decades = 12 if math.isinf(stage.difference) else max(0, round(math.log10(max(stage.difference, 1e-7)) + 7))
        bar = Text("█" * decades, style="green" if stage.passed else "bold red")
        table.add_row(stage.stage or "", stage.name, f"{stage.difference:.1e}", bar)
    return Group(table, *map(Text, _sentences(target, location, engine)))


def _sentences(target: str, location: Location, engine: str | None) -> list[str]:
    lines = []
    if location.reference is None:
        lines.append(
            "no graph of the bundle gives PyTorch's outputs, so there is nothing to compare tensors with; stages are "
            "recognised as far as they are right."
        )
    if location.first_tensor is not None:
        first = location.first_tensor
        where = f" (stage {location.first_stage})" if location.first_stage else ""
        lines.append(
            f"{target}: the first tensor that differs{where} is {first.name}, by {first.difference:.1e} of its largest "
            f"value; computed by {first.operator} {first.node}."
        )
    elif location.first_stage is not None:
        lines.append(f"{target}: the first stage that differs is {location.first_stage}.")
    elif engine is None:
        lines.append(f"{target}: no tensor of the graph {location.graph} differs by more than {location.tolerance:g}.")
    if engine is not None and location.first_tensor is None:
        lines.append(
            f"The graph {location.graph}, from which the engine was built, is right in ONNX Runtime: the difference "
            "arises in TensorRT. To compare layer by layer, on the device: polygraphy run GRAPH.onnx --trt --onnxrt "
            "--trt-outputs mark all --onnx-outputs mark all (with --plugins for the plugin library)."
        )
    if location.not_recognised:
        lines.append(f"Stages that no tensor was recognised as: {', '.join(location.not_recognised)}.")
    return lines
