"""Layers on a deep learning accelerator: the documented rules, one by one."""

from __future__ import annotations

import json

import onnx
import onnx.parser
import pytest

from avsbg.export.engine.dla import DlaReport, examine_model
from avsbg.runtime.bundle import Bundle
from fixtures.cli import run_avsbg


def report(nodes: str, shape: str = "clips, 8, 16, 16", output: str = "clips, 8, 16, 16") -> DlaReport:
    head = '<ir_version: 10, opset_import: ["" : 20, "avsbg" : 1]>'
    text = f"{head} g (float[{shape}] x) => (float[{output}] y) {{ {nodes} }}"
    return examine_model(onnx.parser.parse_model(text))


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Relu(x)",
        "y = Add(x, x)",
        "y = Clip(x)",
        "y = Softmax<axis = 1>(x)",
        "y = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)",
        "w = Constant<value = float[8, 8, 3, 3] {0}>() y = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w)",
    ],
)
def test_layers_that_a_dla_has(nodes: str) -> None:
    if "Conv<" in nodes:
        weights = ", ".join(["0"] * 576)
        nodes = nodes.replace("{0}", f"{{{weights}}}")
    found = report(nodes)
    assert [layer.why_not for layer in found.layers] == [None] and found.loadables == 1


LINEAR = 's = Constant<value = float[4] {1.0, 1.0, 8.0, 8.0}>() y = Resize<mode = "linear">(x, , s)'
NEAREST = "s = Constant<value = float[4] {1.0, 1.0, 1.5, 1.0}>() y = Resize(x, , s)"
FLAT = "a = Constant<value = int64[2] {-1, 4}>() y = Reshape(x, a)"
VOLUME = "s = Constant<value = int64[3] {-1, 8, 256}>() r = Reshape(x, s) y = avsbg.CorrelationVolume(r, r)"
OUTPUTS = {VOLUME: "clips, 8, 8", LINEAR: "clips, 8, 128, 128", NEAREST: "clips, 8, 24, 16", FLAT: "512, 4"}


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ("y = Erf(x)", "no such layer"),
        ("y = MatMul(x, x)", "no such layer"),
        ("y = Concat<axis = 2>(x, x)", "concatenates channels only"),
        ("y = MaxPool<kernel_shape = [9, 1]>(x)", r"its window \[9, 1\] must lie between 1 and 8"),
        ("y = Transpose<perm = [1, 0, 2, 3]>(x)", "does not move the batch"),
        ("y = Cast<to = 10>(x)", "no such layer"),
        (VOLUME, "a plugin runs on the GPU"),
        (LINEAR, "up to 4"),
        ('s = Constant<value = float[4] {1.0, 1.0, 8.0, 8.0}>() y = Resize<mode = "cubic">(x, , s)', "mode cubic"),
        (NEAREST, "whole numbers up to 32"),
        ("a = Constant<value = int64[1] {0}>() y = ReduceMax(x, a)", "reduces channels, rows and columns only"),
        (FLAT, "2 dimensions, and the DLA takes 4"),
        ("s = Constant<value = float {0.1}>() y = QuantizeLinear(x, s)", "explicit quantisation"),
    ],
)
def test_layers_that_it_has_not_and_why(nodes: str, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        layer = report(nodes, output=OUTPUTS.get(nodes, "clips, 8, 16, 16")).layers[-1]
        assert layer.why_not is None, layer.why_not


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ("clips, 16, 16", "3 dimensions"),
        ("clips, 8, 16, 9000", "exceeds"),
        ("5000, 8, 16, 16", "exceeds"),
        ("clips, 8, 0, 16", "empty"),
    ],
)
def test_shapes_that_it_does_not_take(shape: str, why: str) -> None:
    (layer,) = report("y = Relu(x)", shape, shape).layers
    assert layer.why_not is not None and why in layer.why_not


def test_what_is_known_while_the_engine_is_built_is_no_layer() -> None:
    found = report("s = Shape(x) zero = Constant<value = float {0.0}>() z = Sqrt(zero) y = Mul(x, z)")
    assert [layer.operator for layer in found.layers] == ["Mul"]


def test_pieces_are_runs_of_neighbours_and_reasons_are_counted() -> None:
    found = report("a = Relu(x) b = Sigmoid(a) c = Erf(b) d = Erf(c) y = Relu(d)")
    assert (found.possible, found.loadables) == (3, 2)
    assert found.obstacles == {("Erf", "the DLA has no such layer"): 2}


def test_inspect_shows_what_a_dla_could_run(tiny: Bundle) -> None:
    shown = run_avsbg("inspect", tiny.path, "--dla", "clip")
    assert (
        shown.code == 0
        and "clip: 4 of 17 layers could run on a DLA, in 1 piece." in shown.text
        and "1 MeanCorrelation: a plugin runs on the GPU" in shown.text
    )
    document = json.loads(run_avsbg("inspect", tiny.path, "--dla", "clip", "--format", "json").out)
    assert document["graph"] == "clip" and document["loadables"] == 1
    assert {"name", "operator", "why_not"} == set(document["layers"][0])
    wrong = run_avsbg("inspect", tiny.path, "--dla", "clop")
    assert wrong.code == 1 and "no graph 'clop'" in wrong.paragraph
