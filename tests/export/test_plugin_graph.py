"""The graph that TensorRT parses with the plugin: which nodes it joins, and that it computes what the bundle's does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from avsbg.export.plugin_graph import _MOST_STAGES, PLUGIN_DOMAIN, write_plugin_graph
from fixtures import ROOT
from fixtures.operator_graphs import means

CHANNELS = 8


class MeanCorrelation(OpRun):
    op_domain = "avsbg"

    def _run(self, a: Any, b: Any, **_: Any) -> tuple[Any, ...]:
        return tuple(one.astype(np.float32) for one in means(a, b))


class MeanCorrelations(OpRun):
    """The plugin's node of several stages, by its contract (docs/plugin.md)."""

    op_domain = PLUGIN_DOMAIN

    def _run(self, *inputs: Any, stages: int, frames: int, mean_b: int, **_: Any) -> tuple[Any, ...]:
        each, outputs = 1 if frames else 2, []
        assert len(inputs) == each * stages
        for stage in range(stages):
            maps = [one.reshape(*one.shape[:2], -1).swapaxes(1, 2) for one in inputs[each * stage :][:each]]
            if frames:
                clips = maps[0].reshape(-1, frames, *maps[0].shape[1:])
                maps = [half.reshape(-1, *half.shape[2:]) for half in (clips[:, :-1], clips[:, 1:])]
            outputs += [one.astype(np.float32) for one in means(*maps)[: 2 if mean_b else 1]]
        return tuple(outputs)


# Of which a node that is not joined is a plugin too.
AS_PLUGIN = type("MeanCorrelation", (MeanCorrelation,), {"op_domain": PLUGIN_DOMAIN})
OPERATORS = [MeanCorrelation, MeanCorrelations, AS_PLUGIN]


def descriptors(name: str, source: str, positions: int) -> str:
    return f"""
  {name}_flat = Reshape <allowzero = 1> ({source}, to_flat_{positions})
  {name} = Transpose <perm = [0, 2, 1]> ({name}_flat)"""


def correlation(stage: int, a: str, b: str) -> str:
    """A MeanCorrelation and something that takes its means."""
    return f"""
  raw_a{stage}, raw_b{stage} = avsbg.MeanCorrelation <plugin_version = "1", plugin_namespace = ""> ({a}, {b})
  a{stage} = Neg(raw_a{stage})
  b{stage} = Neg(raw_b{stage})"""


def clip_stage(
    stage: int, source: str, positions: int, frames: int, kept: tuple[str, str], to_clips: str = "", to_pairs: str = ""
) -> str:
    """The graph that the exporter makes of `CorrelationAttention`: descriptors, clips, and two slices of them."""
    nodes = descriptors(f"rows{stage}", source, positions)
    nodes += f"\n  clips{stage} = Reshape <allowzero = 1> (rows{stage}, {to_clips or f'to_clips_{positions}'})"
    for half, (first, last) in zip("ab", (one.split(":") for one in kept), strict=True):
        nodes += f"""
  {half}_cut{stage} = Slice(clips{stage}, n{first}, n{last}, n1, n1)
  {half}_pairs{stage} = Reshape <allowzero = 1> ({half}_cut{stage}, {to_pairs or f"to_pairs_{positions}"})"""
    return nodes + correlation(stage, f"a_pairs{stage}", f"b_pairs{stage}")


def save_graph(path: Path, body: str, inputs: dict[str, tuple[int, int]], stages: int, frames: int) -> None:
    numbers = {"n0": [0], "n1": [1], "n2": [2], "nlast": [-1], "nend": [2**63 - 1]}
    # Of maps of 2 x 3 positions: clips whose rows hold other values, pairs of all rows of a clip.
    numbers |= {"mixed_clips": [-1, frames, CHANNELS, 6], "long_pairs": [-1, 12, CHANNELS]}
    for height, width in inputs.values():
        positions = height * width
        numbers[f"to_flat_{positions}"] = [-1, CHANNELS, positions]
        numbers[f"to_clips_{positions}"] = [-1, frames, positions, CHANNELS]
        numbers[f"to_pairs_{positions}"] = [-1, positions, CHANNELS]
    weights = ", ".join(f"int64[{len(v)}] {k} = {{{', '.join(map(str, v))}}}" for k, v in numbers.items())
    tensors = ", ".join(f"float[maps, {CHANNELS}, {h}, {w}] {name}" for name, (h, w) in inputs.items())
    outputs = ", ".join(
        f"float[p{side}{stage}, q{side}{stage}] {side}{stage}" for stage in range(stages) for side in "ab"
    )
    header = '<ir_version: 10, opset_import: ["" : 20, "avsbg" : 1]>'
    model = onnx.parser.parse_model(f"{header} g ({tensors}) => ({outputs}) <{weights}> {{{body}\n}}")
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
    path.write_bytes(model.SerializeToString())


def rewritten(folder: Path, inputs: dict[str, tuple[int, int]], maps: int) -> list[onnx.NodeProto]:
    """Rewrite `graph.onnx`, hold its results against the original's, and return its nodes of ours."""
    source, target = folder / "graph.onnx", folder / "graph.plugin.onnx"
    named = write_plugin_graph(source, target)
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal((maps, CHANNELS, *size), dtype=np.float32) for name, size in inputs.items()}
    results = [
        ReferenceEvaluator(onnx.load(str(path)), new_ops=OPERATORS).run(None, arrays) for path in (source, target)
    ]
    for before, after in zip(*results, strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6)
    ours = [node for node in onnx.load(str(target)).graph.node if node.domain == PLUGIN_DOMAIN]
    assert set(named) == {node.name for node in ours if node.op_type == "MeanCorrelations"}
    return ours


def test_the_stages_of_a_clip_become_one_node_without_copies(tmp_path: Path) -> None:
    inputs = {"x0": (4, 6), "x1": (2, 3)}
    body = "".join(
        clip_stage(stage, f"x{stage}", h * w, 3, ("0:last", "1:end")) for stage, (h, w) in enumerate(inputs.values())
    )
    save_graph(tmp_path / "graph.onnx", body, inputs, stages=2, frames=3)
    (node,) = rewritten(tmp_path, inputs, maps=6)
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    assert (attributes["stages"], attributes["frames"], attributes["mean_b"]) == (2, 3, 1)
    assert (attributes["plugin_version"], attributes["plugin_namespace"]) == (b"1", b"")
    left = {node.op_type for node in onnx.load(str(tmp_path / "graph.plugin.onnx")).graph.node}
    assert left == {"MeanCorrelations", "Neg"}


def test_partners_are_inputs_of_their_own(tmp_path: Path) -> None:
    inputs = {"x": (4, 6), "y": (2, 3)}
    body = descriptors("left", "x", 24) + descriptors("right", "y", 6) + correlation(0, "left", "right")
    save_graph(tmp_path / "graph.onnx", body, inputs, stages=1, frames=2)
    (node,) = rewritten(tmp_path, inputs, maps=2)
    assert list(node.input) == ["x", "y"]


def test_five_stages_are_two_nodes(tmp_path: Path) -> None:
    inputs = {"x": (2, 3)}
    body = "".join(
        descriptors(f"l{n}", "x", 6) + descriptors(f"r{n}", "x", 6) + correlation(n, f"l{n}", f"r{n}") for n in range(5)
    )
    save_graph(tmp_path / "graph.onnx", body, inputs, stages=5, frames=2)
    assert [len(node.input) for node in rewritten(tmp_path, inputs, maps=2)] == [8, 2]


def test_a_stage_that_follows_from_another_is_a_node_of_its_own(tmp_path: Path) -> None:
    inputs = {"x": (2, 3)}
    body = descriptors("left", "x", 6) + descriptors("right", "x", 6) + correlation(0, "left", "right")
    body += "\n  column = ReduceMean(a0)\n  shifted = Add(x, column)"
    body += descriptors("next", "shifted", 6) + correlation(1, "next", "right")
    save_graph(tmp_path / "graph.onnx", body, inputs, stages=2, frames=2)
    model = onnx.shape_inference.infer_shapes(onnx.load(str(tmp_path / "graph.onnx")))
    shape = onnx.helper.make_tensor_value_info("shifted", onnx.TensorProto.FLOAT, ("maps", CHANNELS, 2, 3))
    del model.graph.value_info[:]
    model.graph.value_info.append(shape)
    (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
    assert [node.op_type for node in rewritten(tmp_path, inputs, maps=2)] == ["MeanCorrelations"] * 2


@pytest.mark.parametrize("kept", [("1:end", "0:last"), ("0:2", "0:2"), ("0:last", "0:last")])
def test_other_pairs_than_neighbours_keep_their_node(tmp_path: Path, kept: tuple[str, str]) -> None:
    inputs = {"x": (2, 3)}
    save_graph(tmp_path / "graph.onnx", clip_stage(0, "x", 6, 3, kept), inputs, stages=1, frames=3)
    assert [node.op_type for node in rewritten(tmp_path, inputs, maps=6)] == ["MeanCorrelation"]


@pytest.mark.parametrize("other", [{"to_clips": "mixed_clips"}, {"to_pairs": "long_pairs"}])
def test_reshapes_to_anything_but_descriptors_keep_their_node(tmp_path: Path, other: dict[str, str]) -> None:
    inputs = {"x": (2, 3)}
    save_graph(
        tmp_path / "graph.onnx", clip_stage(0, "x", 6, 3, ("0:last", "1:end"), **other), inputs, stages=1, frames=3
    )
    assert [node.op_type for node in rewritten(tmp_path, inputs, maps=6)] == ["MeanCorrelation"]


@pytest.mark.parametrize(("attribute", "inputs"), [("perm", 1), (None, 3)])
def test_what_may_be_left_out_in_onnx_may_be_left_out(tmp_path: Path, attribute: str | None, inputs: int) -> None:
    """A Transpose without its order, or a Slice without its axes, is of another graph and no error."""
    maps = {"x": (2, 3)}
    save_graph(tmp_path / "graph.onnx", clip_stage(0, "x", 6, 3, ("0:last", "1:end")), maps, stages=1, frames=3)
    model = onnx.load(str(tmp_path / "graph.onnx"))
    for node in model.graph.node:
        if attribute and node.op_type == "Transpose":
            del node.attribute[:]
        elif not attribute and node.op_type == "Slice":
            del node.input[inputs:]
    (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
    assert not write_plugin_graph(tmp_path / "graph.onnx", tmp_path / "graph.plugin.onnx")


def test_a_node_has_at_most_as_many_stages_as_a_launch_of_the_kernels() -> None:
    header = (ROOT / "runtime/native/cuda/avsbg_cuda.h").read_text(encoding="utf-8")
    assert re.findall(r"#define AVSBG_CUDA_MOST_TASKS (\d+)", header) == [str(_MOST_STAGES)]
