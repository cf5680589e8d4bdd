"""The tensors inside a bundle's graph: which node computes them, how large they are, and their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from avsbg.export.operators import register_schemas
from avsbg.export.sessions import Session
from avsbg.runtime.bundle import Bundle, Vectors

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


class GraphTensors:
    """A graph of a bundle whose tensors can be asked for by name, in ONNX Runtime on the CPU.

    `run` takes the inputs of `vectors`, and `size` is for as many clips; without any, for one. `nodes` are in the order
    of execution; `producer` has, by tensor, the index of the node that computes it. Without such a graph, a BundleError
    is raised.
    """

    def __init__(self, bundle: Bundle, name: str, vectors: Vectors | None = None) -> None:
        register_schemas()
        self.name = name
        self._folder = str(bundle.path)
        self.model = onnx.load(str(bundle.file(bundle.graph(name).file)), load_external_data=False)
        self.nodes = list(self.model.graph.node)
        self.producer = {output: number for number, node in enumerate(self.nodes) for output in node.output if output}
        self._inputs = {} if vectors is None else vectors.inputs
        self._sizes = self._infer(1 if vectors is None else vectors.record.clips)

    def _infer(self, clips: int) -> dict[str, int]:
        """Bytes of each floating-point tensor."""
        model = onnx.shape_inference.infer_shapes(self.model, data_prop=True)
        floats = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.FLOAT16: 2}
        sizes = {}
        for value in (*model.graph.value_info, *model.graph.output):
            tensor = value.type.tensor_type
            if tensor.elem_type in floats:
                # A dimension without a size is the number of clips, or a multiple of it: frames.
                shape = [dim.dim_value or clips for dim in tensor.shape.dim]
                sizes[value.name] = floats[tensor.elem_type] * math.prod(shape)
        return sizes

    def floats(self, names: Iterable[str]) -> list[str]:
        """Those that are floating-point tensors computed by a node, in the order of execution."""
        known = {name for name in names if name in self.producer and name in self._sizes}
        return sorted(known, key=self.producer.__getitem__)

    def size(self, name: str) -> int:
        """The size of a tensor, in bytes."""
        return self._sizes[name]

    def open(self, names: Sequence[str]) -> Run:
        """A session that returns the values of tensors, by name, for the graph's inputs."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        return partial(Session(model.SerializeToString(), weights_folder=self._folder).run, outputs=names)

    def run(self, names: Sequence[str]) -> dict[str, Array]:
        """The values of tensors for the vectors' inputs."""
        return self.open(names)(self._inputs)

    def describe(self, name: str) -> tuple[str, str]:
        """The node that computes a tensor, and its type."""
        node = self.nodes[self.producer[name]]
        return node.name, f"{node.domain}::{node.op_type}" if node.domain else node.op_type

    def between(self, good: set[str], target: Sequence[str]) -> list[str]:
        """The tensors that `target` is computed from, back to those known to be right, in the order of execution."""
        found: set[str] = set()
        waiting = list(target)
        while waiting:
            name = waiting.pop()
            if name in found or name in good or name not in self.producer:
                continue
            found.add(name)
            waiting += self.nodes[self.producer[name]].input
        return self.floats(found)


def module_of(node: str) -> str:
    """The module of the network that a node of this name belongs to, e.g. `network.fusion.1`."""
    return node.rpartition("/")[0].partition("/")[0]


def stage_names(vectors: Vectors) -> list[str]:
    """The intermediate stages that vectors hold, e.g. `fusion_gate.1`."""
    names = (name.removesuffix(".probe").removesuffix(".moments") for name in vectors.intermediates)
    return list(dict.fromkeys(names))


def relative_difference(found: Array, wanted: Array) -> float:
    """The largest difference, as a share of the largest value wanted; infinite where shapes differ or it is none."""
    if found.shape != wanted.shape:
        return math.inf
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-6)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = float(np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max(initial=0)) / scale
    return largest if math.isfinite(largest) else math.inf


def stage_difference(found: Array, stage: str, vectors: Vectors) -> float:
    """`relative_difference` of a tensor from a stage as PyTorch computed it, or from what the vectors hold of it."""
    whole = vectors.intermediates.get(stage)
    if whole is not None:
        return relative_difference(found.reshape(-1), whole.reshape(-1))
    wanted = vectors.intermediates[f"{stage}.probe"]
    if found.size < wanted.size:
        return math.inf
    mean, deviation, low, high = vectors.intermediates[f"{stage}.moments"]
    scale = max(abs(low), abs(high), 1e-6)
    with np.errstate(invalid="ignore", over="ignore"):
        value = found.astype(np.float64)
        moments = np.abs(np.array([value.mean(), value.std(), value.min(), value.max()]) - [mean, deviation, low, high])
    of_moments = float(moments.max()) / scale
    of_probe = relative_difference(probe(found, wanted.size), wanted)
    return max(of_probe, of_moments if math.isfinite(of_moments) else math.inf)


def probe(array: Array, count: int) -> Array:
    """The values that vectors hold of a large stage: so many, evenly spaced, in C order."""
    return array.reshape(-1)[np.linspace(0, array.size - 1, count).astype(np.int64)]
