"""Merges of neighbouring operations: the same numbers over sizes and seeds; what only looks alike stays as it is."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from safetensors.numpy import load_file

from avsbg.benchmarks.measure.cases import list_cases
from avsbg.benchmarks.measure.runner import _count
from avsbg.export.merges import Merges, block_kernel, column_kernels, merge
from avsbg.export.torch_backend import TorchBackend
from avsbg.runtime.bundle import Bundle
from fixtures.cli import run_avsbg

PROPERTY = settings(max_examples=25, deadline=None)
RESIZE = 'Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
HEAD = f"""
    large = {RESIZE} (x, , scales)
    wide = Conv <pads = [1, 1, 1, 1]> (large, k, b)
    active = Relu (wide)
    y = Conv (active, m, c)
"""
GATE = """
    narrow = Conv <pads = [3, 3, 3, 3]> (x, k)
    y = Conv (narrow, m)
"""
HEAD_SHAPES = {"k": (6, 5, 3, 3), "b": (6,), "m": (2, 6, 1, 1), "c": (2,)}
GATE_SHAPES = {"k": (6, 5, 7, 7), "m": (1, 6, 1, 1)}
Shapes = dict[str, tuple[int, ...]]


def build(
    nodes: str, shapes: Shapes, *, size: tuple[int, int] = (4, 7), seed: int = 0, outputs: str = "y", scale: int = 2
) -> ir.Model:
    """A graph `x [n, C, h, w] -> outputs` of these nodes, with random weights of these shapes."""
    channels, results = shapes["k"][1], ", ".join(f"float[] {name}" for name in outputs.split())
    text = (
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        f"g (float[n, {channels}, {size[0]}, {size[1]}] x) => ({results})"
        f"\n<float[4] scales = {{1, 1, {scale}, {scale}}}>\n{{{nodes}}}"
    )
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for name, shape in shapes.items():
        array = rng.standard_normal(shape, np.float32) / np.float32(math.sqrt(math.prod(shape[1:])))
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto)
    # The shapes that the merges gave are those that ONNX infers.
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )


def merged(nodes: str, shapes: Shapes, **options) -> tuple[ir.Model, Merges]:
    """Merge a graph and check that it still computes the same."""
    model = build(nodes, shapes, **options)
    batch = np.random.default_rng(1).standard_normal((2, *tuple(model.graph.inputs[0].shape)[1:])).astype(np.float32)
    expected = run(model, batch)
    parameters = {name: model.graph.initializers[name].const_value.numpy() for name in shapes}
    merges = merge(model, list(shapes))
    for found, wanted in zip(run(model, batch), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6)
    # Every parameter is in the graph or handed back, as it was.
    held = {name: model.graph.initializers[name].const_value.numpy() for name in merges.weights}
    assert {name: (held | merges.replaced)[name].tobytes() for name in shapes} == {
        name: array.tobytes() for name, array in parameters.items()
    }
    assert set(held) & set(merges.replaced) == set()
    assert all(value.uses() for value in model.graph.initializers.values())
    return model, merges


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@PROPERTY
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 3)),
    seed=st.integers(0, 2**16),
)
def test_an_enlarged_map_is_convolved_small(size, channels, seed) -> None:
    taken, wide, narrow = channels
    shapes = {"k": (wide, taken, 3, 3), "b": (wide,), "m": (narrow, wide, 1, 1), "c": (narrow,)}
    model, merges = merged(HEAD, shapes, size=size, seed=seed)
    # Arithmetic by hand: 9 of 4hw positions become 4 of (h + 1)(w + 1) positions with 4 times the channels.
    pixels, blocks = 4 * math.prod(size), 16 * (size[0] + 1) * (size[1] + 1)
    before, after = 2 * 9 * pixels * taken * wide, 2 * blocks * taken * wide
    if after >= before:
        assert not merges.records and operators(model) == ["Resize", "Conv", "Relu", "Conv"]
        return
    mixing = wide * narrow
    draws_in = narrow < wide and after + 2 * blocks * mixing < before + 2 * pixels * mixing
    end = ["DepthToSpace", "Slice"]
    assert operators(model) == ["Conv", "Relu", *(["Conv", *end] if draws_in else [*end, "Conv"])]
    (record,) = merges.records
    if draws_in:
        before, after = before + 2 * pixels * mixing, after + 2 * blocks * mixing
    assert (record.operations_before, record.operations_after) == (before, after)


@PROPERTY
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 5), st.integers(2, 6)),
    kernel=st.sampled_from([3, 5, 7]),
    seed=st.integers(0, 2**16),
)
def test_one_channel_is_computed_by_columns(size, channels, kernel, seed) -> None:
    taken, between = channels
    margin = kernel // 2
    nodes = GATE.replace("[3, 3, 3, 3]", str([margin] * 4))
    shapes = {"k": (between, taken, kernel, kernel), "m": (1, between, 1, 1)}
    model, merges = merged(nodes, shapes, size=size, seed=seed)
    assert operators(model) == ["Conv", "Conv"]
    (record,) = merges.records
    positions = 2 * math.prod(size)
    assert record.operations_before == positions * (kernel**2 * taken + 1) * between
    assert record.operations_after == positions * (kernel**2 * taken + kernel**2)


def test_kernels_by_hand() -> None:
    kernel = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    # The odd pixel of a block sees the first two rows of the kernel in one pixel of the small map, the even the last.
    upper_left, _, _, lower_right = block_kernel(kernel)[:, 0]
    np.testing.assert_array_equal(upper_left, [[0 + 1 + 3 + 4, 2 + 5], [6 + 7, 8]])
    np.testing.assert_array_equal(lower_right, [[0, 1 + 2], [3 + 6, 4 + 5 + 7 + 8]])
    columns, sums = column_kernels(kernel, np.full((1, 1, 1, 1), 2, np.float32))
    np.testing.assert_array_equal(columns[:, 0, :, 0], 2 * kernel[0, 0].T)
    np.testing.assert_array_equal(sums[0, :, 0], np.eye(3))


def test_a_chain_of_enlargements_is_merged_one_by_one() -> None:
    nodes = f"""
        middle = {RESIZE} (x, , scales)
        first = Conv <pads = [1, 1, 1, 1]> (middle, k)
        large = {RESIZE} (first, , scales)
        y = Conv <pads = [1, 1, 1, 1]> (large, m)
    """
    model, merges = merged(nodes, {"k": (6, 5, 3, 3), "m": (2, 6, 3, 3)})
    assert operators(model) == ["Conv", "DepthToSpace", "Slice"] * 2
    assert len(merges.records) == 2


ELSEWHERE = {
    "linear interpolation": HEAD.replace('"nearest"', '"linear"').replace(', nearest_mode = "floor"', ""),
    "rounded up": HEAD.replace('"floor"', '"ceil"'),
    "centres of pixels": HEAD.replace('"asymmetric"', '"half_pixel"'),
    "stride": HEAD.replace("<pads", "<strides = [2, 2], pads"),
    "dilation": HEAD.replace("<pads = [1, 1, 1, 1]", "<dilations = [2, 2], pads = [1, 1, 1, 1]"),
    "no padding": HEAD.replace("<pads = [1, 1, 1, 1]>", ""),
    "padding of one side": HEAD.replace("[1, 1, 1, 1]", "[2, 2, 0, 0]"),
    "padding by name": HEAD.replace("pads = [1, 1, 1, 1]", 'auto_pad = "SAME_UPPER"'),
    "another reader of the enlarged map": HEAD.replace("active = Relu (wide)", "active = Relu (wide) z = Neg (large)"),
    "weight read twice": HEAD.replace("active = Relu (wide)", "active = Relu (wide) z = Neg (k)"),
    "bias read twice": HEAD.replace("active = Relu (wide)", "active = Relu (wide) z = Neg (b)"),
    "computed weight": HEAD.replace("(large, k, b)", "(large, kk, b)").replace("large =", "kk = Neg (k) large =", 1),
    "enlarged map as the weight": f"""
        large = {RESIZE} (k, , scales)
        y = Conv (x, large)
    """,
}


@pytest.mark.parametrize("nodes", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_what_is_no_enlarged_map_under_a_convolution_stays(nodes: str) -> None:
    outputs = "y z" if " z = " in nodes else "y"
    shapes = dict(HEAD_SHAPES)
    if "as the weight" in nodes or "Conv (x, large)" in nodes:
        shapes = {"k": (6, 5, 1, 2)}
    model, merges = merged(nodes, shapes, outputs=outputs)
    assert not merges.records and merges.weights == list(shapes) and "Resize" in operators(model)


@pytest.mark.parametrize("change", [{"scale": 3}, {"outputs": "y large"}])
def test_another_scale_and_an_enlarged_map_that_is_returned_stay(change: dict) -> None:
    model, merges = merged(HEAD, HEAD_SHAPES, **change)
    assert not merges.records and "Resize" in operators(model)


@pytest.mark.parametrize("kernel", [1, 5])
def test_other_kernels_on_an_enlarged_map_stay(kernel: int) -> None:
    nodes = HEAD.replace("[1, 1, 1, 1]", str([kernel // 2] * 4))
    assert not merged(nodes, HEAD_SHAPES | {"k": (6, 5, kernel, kernel)})[1].records


def test_groups_stay() -> None:
    nodes = HEAD.replace("<pads", "<group = 5, pads")
    shapes = {"k": (10, 1, 3, 3), "b": (10,), "m": (2, 10, 1, 1), "c": (2,)}
    model = build(
        nodes.replace("(x,", "(xx,").replace("large =", "xx = Concat <axis = 1> (x, x, x, x, x) large =", 1), shapes
    )
    assert not merge(model, list(shapes)).records


@pytest.mark.parametrize("reader", ["z = Neg (wide)", "z = Neg (active)"])
def test_what_another_node_reads_is_put_in_place_before(reader: str) -> None:
    model, merges = merged(
        HEAD.replace("active = Relu (wide)", f"active = Relu (wide) {reader}"), HEAD_SHAPES, outputs="y z"
    )
    assert len(merges.records) == 1
    after = operators(model)
    assert after.index("Slice") == (2 if "wide" in reader else 3)


def test_a_map_of_unknown_size_stays() -> None:
    model = build(HEAD, HEAD_SHAPES)
    for node in model.graph:
        node.outputs[0].shape = None
    model.graph.inputs[0].shape = ir.Shape(["n", 5, "h", "w"])
    assert not merge(model, list(HEAD_SHAPES)).records


NO_PAIR = {
    "bias between": (GATE.replace("(x, k)", "(x, k, b)"), GATE_SHAPES | {"b": (6,)}),
    "activation between": (
        GATE.replace("(narrow, m)", "(active, m)").replace("y =", "active = Relu (narrow) y ="),
        None,
    ),
    "bias after": (GATE.replace("(narrow, m)", "(narrow, m, b)"), GATE_SHAPES | {"b": (1,)}),
    "two channels": (GATE, GATE_SHAPES | {"m": (2, 6, 1, 1)}),
    "one channel between": (GATE, {"k": (1, 5, 7, 7), "m": (1, 1, 1, 1)}),
    "1 x 1 before": (GATE.replace("[3, 3, 3, 3]", "[0, 0, 0, 0]"), GATE_SHAPES | {"k": (6, 5, 1, 1)}),
    "3 x 3 after": (
        GATE.replace("Conv (narrow", "Conv <pads = [1, 1, 1, 1]> (narrow"),
        GATE_SHAPES | {"m": (1, 6, 3, 3)},
    ),
    "even kernel": (GATE.replace("[3, 3, 3, 3]", "[1, 1, 1, 1]"), GATE_SHAPES | {"k": (6, 5, 4, 4)}),
    "other padding": (GATE.replace("[3, 3, 3, 3]", "[2, 2, 2, 2]"), None),
    "stride": (GATE.replace("<pads", "<strides = [2, 2], pads"), None),
    "dilation": (GATE.replace("<pads", "<dilations = [2, 2], pads"), None),
    "padding after": (GATE.replace("Conv (narrow", "Conv <pads = [1, 1, 1, 1]> (narrow"), None),
    "another reader": (GATE.replace("y =", "z = Neg (narrow) y ="), None),
    "weight read twice": (GATE.replace("y =", "z = Neg (m) y ="), None),
}


@pytest.mark.parametrize(("nodes", "shapes"), NO_PAIR.values(), ids=NO_PAIR.keys())
def test_what_is_no_pair_of_convolutions_to_one_channel_stays(nodes: str, shapes: Shapes | None) -> None:
    shapes = shapes or GATE_SHAPES
    model = build(nodes, shapes, outputs="y z" if " z = " in nodes else "y", size=(9, 8))
    before = operators(model)
    assert merge(model, list(shapes)) == Merges(list(shapes))
    assert operators(model) == before


def test_a_pair_whose_first_result_is_returned_stays() -> None:
    assert not merged(GATE, GATE_SHAPES, outputs="y narrow")[1].records


def test_a_bundle_keeps_the_parameters_and_says_what_was_merged(exported) -> None:
    bundle, state = exported.bundle, exported.module.state_dict()
    variant = exported.module.network.variant
    for name, record in bundle.manifest.graphs.items():
        kinds = [one.kind for one in record.merges]
        head = 2 if variant.network == "avs-bg" and not name.startswith("encode") else 0
        gates = 4 if variant.network == "avs-bg" and variant.audio and not name.startswith("decode") else 0
        assert kinds == ["one channel by columns"] * gates + ["enlarged map"] * head
        assert (record.unmerged is None) == (not kinds)
        if record.unmerged is None:
            continue
        kept = load_file(bundle.file(record.unmerged))
        graph = onnx.load(str(bundle.file(record.file)), load_external_data=False).graph
        for parameter in (parameter for one in record.merges for parameter in one.parameters):
            np.testing.assert_array_equal(kept[parameter], state[parameter].numpy())
            assert parameter not in {initialiser.name for initialiser in graph.initializer}
        nodes = {node.name for node in graph.node}
        for one in record.merges:
            assert one.operations_after < one.operations_before
            assert {node for node in one.nodes if not node.endswith("Resize")} <= nodes


@pytest.mark.slow
def test_without_merging_the_graph_is_the_networks(tmp_path) -> None:
    path = tmp_path / "bundle"
    options = ["--encoder", "pvt_v2_b0", "--audio", "embedding", "--frames", "2", "--size", "32", "--seed", "1"]
    result = run_avsbg("export", "avs-bg-without-audio", *options, "--no-merge", "-o", path)
    assert result.code == 0, result.output
    bundle = Bundle.open(path)
    for record in bundle.manifest.graphs.values():
        assert record.merges == () and record.unmerged is None
        assert record.operators["Resize"] == 5 and "DepthToSpace" not in record.operators
    assert {path.name for path in path.iterdir() if path.is_file()} == {
        "clip.onnx",
        "clip.plain.onnx",
        "weights.bin",
        "manifest.json",
    }
    with TorchBackend(bundle) as backend:
        for vectors in bundle.vectors():
            np.testing.assert_allclose(backend.run(vectors.inputs)["logits"], vectors.outputs["logits"], atol=1e-5)


def test_a_person_sees_what_the_merges_save(smallest) -> None:
    shown = run_avsbg("inspect", smallest.bundle.path).output
    merges = smallest.bundle.graph("clip").merges
    before, after = (sum(getattr(one, f"operations_{when}") for one in merges) for when in ("before", "after"))
    assert f"2 merges of neighbouring operations: {before / 1e9:.3g} GFLOP a frame are now {after / 1e9:.3g}" in shown


def test_rows_count_what_each_case_computes(smallest) -> None:
    bundle = smallest.bundle
    chosen = list_cases([bundle.path], ["torch:efficient", "onnxruntime"], threads=1, clips=1)
    network, merged_graph = (row["operations"] for row in _count(chosen, lambda *_: None))
    saved = [one.operations_before - one.operations_after for one in bundle.graph("clip").merges]
    assert network.number - merged_graph.number == bundle.manifest.clip.frames * sum(saved) > 0
    assert network.parts["head"] - merged_graph.parts["head"] == bundle.manifest.clip.frames * sum(saved)
    assert network.parts["decoder"] == merged_graph.parts["decoder"]
