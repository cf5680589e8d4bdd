"""The graph that TensorRT parses where it is to take the plugin: made for it, with the same weights.

It holds no function bodies: parsers before TensorRT 10.7 look for a function of a node's name first, and never for a
plugin then (changelog of 10.7.0: "prioritizes using plugins over local functions"; JetPack 6 has 10.3). And where the
descriptors of several stages are feature maps that were transposed, cut into frames and copied, one node
`MeanCorrelations` takes the maps themselves: the plugin reads them channels-last, finds the pairs by place, and
computes all stages in one launch. That node exists in such files only, and as a plugin.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common

from avsbg.export.operators import DOMAIN, PLUGIN_ATTRIBUTES

GROUPED = "MeanCorrelations"
# The domain in which ONNX Runtime's TensorRT provider registers the plugins that it finds (its documentation,
# "TensorRT Plugins Support"). TensorRT's parser knows plugins by their operator alone, so one file serves both.
PLUGIN_DOMAIN = "trt.plugins"
# AVSBG_CUDA_MOST_TASKS of runtime/native/cuda/avsbg_cuda.h.
_MOST_STAGES = 4


@dataclass(frozen=True)
class _Stage:
    """A MeanCorrelation whose inputs are descriptors of feature maps."""

    node: ir.Node
    maps: tuple[ir.Value, ...]  # [maps, C, H, W]: one of all frames, or a's and b's
    frames: int  # in a clip; 0 where b has maps of its own

    @property
    def kind(self) -> tuple[object, ...]:
        """The values that the stages of one node share."""
        tf32 = self.node.attributes.get("tf32")
        return self.frames, {value.dtype for value in self.maps}, 0 if tf32 is None else tf32.as_int()


def write_plugin_graph(source: Path, target: Path) -> dict[str, tuple[str, ...]]:
    """Write the graph for the parser beside its source, whose external data it names.

    Returns:
        for each node of several stages, by its name, the names of the nodes of `source` that it stands for.
    """
    model = ir.load(source)
    model.functions.clear()
    groups: list[list[_Stage]] = []
    for stage in filter(None, map(_read_stage, model.graph)):
        group = groups[-1] if groups else []
        nodes = {one.node for one in group}
        # A stage whose maps follow from another's means cannot be computed with it.
        if not 0 < len(group) < _MOST_STAGES or group[0].kind != stage.kind or _depends(stage.maps, nodes):
            groups.append([])
        groups[-1].append(stage)
    named = {}
    for number, group in enumerate(groups):
        name = f"{GROUPED}_{number}"
        named[name] = tuple(str(stage.node.name) for stage in group)
        _join(model.graph, group, name)
    model.opset_imports[PLUGIN_DOMAIN] = model.opset_imports.pop(DOMAIN, 1)
    for node in model.graph:
        node.domain = PLUGIN_DOMAIN if node.domain == DOMAIN else node.domain
    model.graph.sort()
    ir.passes.common.RemoveUnusedNodesPass()(model)
    target.write_bytes(ir.to_proto(model).SerializeToString())
    return named


def count_single_stages(path: Path) -> int:
    """Count the stages in a written graph that are in no node of several, since the pattern was not found."""
    return sum(node.op_type == "MeanCorrelation" for node in ir.load(path).graph)


def _join(graph: ir.Graph, group: list[_Stage], name: str) -> None:
    """Replace the nodes of a group by one."""
    has_mean_b = any(value.uses() for stage in group for value in stage.node.outputs[1:])
    each = 2 if has_mean_b else 1
    attributes = {"stages": len(group), "frames": group[0].frames, "mean_b": int(has_mean_b), "tf32": group[0].kind[-1]}
    inputs = [value for stage in group for value in stage.maps]
    node = ir.node(
        GROUPED,
        inputs,
        attributes=attributes | PLUGIN_ATTRIBUTES,
        domain=DOMAIN,
        num_outputs=each * len(group),
        name=name,
    )
    graph.insert_before(group[0].node, node)
    for number, stage in enumerate(group):
        for side, value in enumerate(node.outputs[number * each : (number + 1) * each]):
            old = stage.node.outputs[side] if side < len(stage.node.outputs) else None
            value.name = f"{stage.node.name}/mean_{'ab'[side]}"
            if old is not None:
                value.type, value.shape = old.type, old.shape
                old.replace_all_uses_with(value)
        graph.remove(stage.node, safe=True)


def _depends(values: tuple[ir.Value, ...], nodes: set[ir.Node]) -> bool:
    """Whether any of the values follows from one of the nodes."""
    waiting, seen = list(values), set[ir.Node]()
    while waiting:
        producer = waiting.pop().producer()
        if producer is None or producer in seen:
            continue
        if producer in nodes:
            return True
        seen.add(producer)
        waiting += [value for value in producer.inputs if value is not None]
    return False


def _read_stage(node: ir.Node) -> _Stage | None:
    """The tensors that a node correlates, if it is a MeanCorrelation of feature maps."""
    if (node.domain, node.op_type) != (DOMAIN, "MeanCorrelation") or any(one.is_graph_output() for one in node.outputs):
        return None
    a, b = node.inputs
    assert a is not None and b is not None
    maps, partners = _find_maps(a), _find_maps(b)
    if maps is not None and partners is not None:
        return _Stage(node, (maps, partners), 0)
    return _read_clips(node, a, b)


def _read_clips(node: ir.Node, a: ir.Value, b: ir.Value) -> _Stage | None:
    """The stage whose `a` are all frames of the clips except the last, and whose `b` are all except the first."""
    pairs = [_find(value, "Reshape") for value in (a, b)]
    cut = [_find(_input(reshape), "Slice") for reshape in pairs]
    if cut[0] is None or cut[1] is None or cut[0].inputs[0] is not cut[1].inputs[0]:
        return None
    clips = _find(cut[0].inputs[0], "Reshape")
    shape = None if clips is None else _integers(clips.inputs[1])
    maps = _find_maps(_input(clips))
    size = _map_size(maps)
    if maps is None or size is None or shape is None:
        return None
    channels, positions = size
    descriptors = [positions, channels]
    is_clips = len(shape) == 4 and shape[0] == -1 and shape[1] >= 2 and shape[2:] == descriptors
    if not is_clips or any(_integers(one.inputs[1]) != [-1, *descriptors] for one in pairs if one is not None):
        return None
    frames = range(shape[1])
    for one, kept in zip(cut, (frames[:-1], frames[1:]), strict=True):
        bounds = [_integers(value) for value in one.inputs[1:]] if one is not None else []
        if len(bounds) != 4 or bounds[2:] != [[1], [1]]:  # axes, steps
            return None
        starts, ends = bounds[:2]
        if not (starts and ends) or frames[starts[0] : ends[0]] != kept:
            return None
    return _Stage(node, (maps,), len(frames))


def _find_maps(value: ir.Value | None) -> ir.Value | None:
    """The maps [maps, C, H, W] of which a value holds the descriptors [maps, H * W, C]."""
    transpose = _find(value, "Transpose")
    reshape = _find(_input(transpose), "Reshape")
    maps = _input(reshape)
    size = _map_size(maps)
    if transpose is None or reshape is None or size is None:
        return None
    is_flat = _integers(reshape.inputs[1]) == [-1, *size]
    order = transpose.attributes.get("perm")
    return maps if is_flat and order is not None and list(order.as_ints()) == [0, 2, 1] else None


def _map_size(maps: ir.Value | None) -> tuple[int, int] | None:
    """C and H * W of feature maps [maps, C, H, W], where they are fixed."""
    if maps is None or maps.shape is None or len(maps.shape) != 4:
        return None
    _, channels, height, width = maps.shape
    if not (isinstance(channels, int) and isinstance(height, int) and isinstance(width, int)):
        return None
    return channels, height * width


def _find(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node of a standard operator that computes a value."""
    producer = None if value is None else value.producer()
    return producer if producer is not None and (producer.domain, producer.op_type) == ("", operator) else None


def _input(node: ir.Node | None) -> ir.Value | None:
    return None if node is None else node.inputs[0]


def _integers(value: ir.Value | None) -> list[int] | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else [int(number) for number in tensor.numpy().flatten()]
