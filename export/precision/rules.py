"""The type that each node of a graph computes in: one table of rules, and what follows for the nodes between.

A node falls into the first rule of `RULES` that matches it. Nodes that no rule matches move, select or combine values
element by element; they follow their inputs: where all of them are float32, so is the result, else it is the low type.
So sensitive chains stay float32 from end to end, and large maps are stored in the low type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import onnx_ir as ir

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


class Choice(Enum):
    """The type of inputs that a rule decides on."""

    LOW = "low"
    FP32 = "fp32"


@dataclass(frozen=True)
class Rule:
    """A row of the table: the name in reports, the type of a matching node's inputs, the reason, and what matches."""

    name: str
    choice: Choice
    reason: str
    matches: Callable[[ir.Node], bool]


def _is(*operators: str) -> Callable[[ir.Node], bool]:
    return lambda node: node.op_type in operators


def _in_front_end(node: ir.Node) -> bool:
    return (node.name or "").startswith(("log_mel", "spectrogram"))


def _is_square(node: ir.Node) -> bool:
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _is_divided_later(node: ir.Node) -> bool:
    consumers = [use.node for use in node.outputs[0].uses()]
    return node.op_type in ("MatMul", "Gemm") and bool(consumers) and all(user.op_type == "Div" for user in consumers)


def _places_samples(node: ir.Node) -> bool:
    return node.op_type == "GridSample" or ".sampling_offsets" in (node.name or "")


def _makes_output(node: ir.Node) -> bool:
    moves = node.op_type in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Sigmoid")
    return moves and any(value.is_graph_output() for value in node.outputs)


RULES = (
    Rule("front end", Choice.FP32, "takes the logarithm of magnitudes down to 0.01 and less", _in_front_end),
    Rule("softmax", Choice.FP32, "its exponentials span more than a low type's range", _is("Softmax", "LogSoftmax")),
    Rule("square", Choice.FP32, "the square of 256 is the end of float16's range", _is_square),
    Rule(
        "sum",
        Choice.FP32,
        "a sum over a map loses its small terms, and overflows, in a low type",
        _is("ReduceSum", "ReduceMean", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "GlobalAveragePool", "CumSum"),
    ),
    Rule("late mean", Choice.FP32, "a product that sums all positions before it is divided by them", _is_divided_later),
    Rule(
        "logarithm, power",
        Choice.FP32,
        "ill-conditioned near zero",
        _is("Log", "Exp", "Pow", "Sqrt", "Reciprocal", "STFT", "DFT"),
    ),
    Rule(
        "batch normalisation",
        Choice.FP32,
        "running variances leave float16's range; those after a convolution are folded into it beforehand",
        _is("BatchNormalization", "InstanceNormalization", "GroupNormalization"),
    ),
    Rule(
        "layer normalisation",
        Choice.LOW,
        "stores the low type and computes in float32 inside (stash_type 1)",
        lambda node: node.op_type == "LayerNormalization" and node.attributes.get_int("stash_type", 1) == 1,
    ),
    Rule("layer normalisation in its input's type", Choice.FP32, "stash_type is not 1", _is("LayerNormalization")),
    Rule(
        "sampling",
        Choice.FP32,
        "float16 rounds a place in a map of 64 cells by up to 0.016 of a cell; GridSample has no bfloat16 and no int8",
        _places_samples,
    ),
    Rule("output", Choice.FP32, "the contract of the graph's outputs is float32", _makes_output),
    Rule(
        "product",
        Choice.LOW,
        "what the precision was asked for; engines accumulate in float32",
        _is("Conv", "ConvTranspose", "MatMul", "Gemm"),
    ),
    Rule(
        "correlation",
        Choice.LOW,
        "accumulates in float32 and returns float32 whatever its inputs' type",
        lambda node: node.domain == "avsbg",
    ),
)


def find_rule(node: ir.Node) -> Rule | None:
    """The rule that decides on a node; None for one that follows its inputs."""
    return next((rule for rule in RULES if rule.matches(node)), None)


_COMPUTE_OPERATORS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
# Builds with TensorRT for RTX 1.7.1 computed fp8 convolutions of 7 x 7 and 8 x 8 taps in what lies between, and the
# networks' smaller ones in fp8. Where the limit is was not found out; of the encoders only EfficientNet-Lite0 has
# filters in between (5 x 5), and a build says if they are not fp8.
_FP8_TAPS = 32


def is_compute_layer(node: ir.Node) -> bool:
    """Whether a node is a matrix product, a convolution or a correlation."""
    return node.op_type in _COMPUTE_OPERATORS or node.domain == "avsbg"


def quantization_obstacle(node: ir.Node, precision: str) -> str | None:
    """Say why a layer of a float32 graph may not take inputs in `int8` or `fp8`; None for one that may."""
    rule = find_rule(node)
    if rule is None or rule.name != "product" or node.op_type not in ("Conv", "MatMul", "Gemm"):
        return f"{node.op_type}, by the rule `{'' if rule is None else rule.name}`"
    activation, weight = node.inputs[0], node.inputs[1]
    if activation is None or activation.const_value is not None or weight is None or not weight.is_initializer():
        # Softmax's outputs crowd near zero, and neither side has channels with a range of their own.
        return "a product of two activations"
    if _is_sliced_later(node):
        return "keys and values in one product: TensorRT for RTX slices its weight in float32, and so multiplies in it"
    if precision == "fp8" and node.op_type == "Conv" and math.prod(_kernel(weight)) > _FP8_TAPS:
        return f"a filter of more than {_FP8_TAPS} taps: TensorRT for RTX multiplies such in float32"
    return None


def _is_sliced_later(node: ir.Node) -> bool:
    users = [use.node for use in node.outputs[0].uses()]
    while len(users) == 1 and users[0].op_type in ("Add", "Reshape", "Transpose"):
        users = [use.node for use in users[0].outputs[0].uses()]
    return bool(users) and all(user.op_type in ("Slice", "Split") for user in users)


def _kernel(weight: ir.Value) -> tuple[int, ...]:
    assert weight.shape is not None
    return tuple(size for size in tuple(weight.shape)[2:] if isinstance(size, int))


def typed_inputs(node: ir.Node) -> list[int]:
    """The positions of the inputs that share the node's floating-point type."""
    # The other floating-point inputs of these operators are float32 whatever their data is.
    only = {"Resize": (0,), "Upsample": (0,), "QuantizeLinear": (), "DequantizeLinear": ()}.get(node.op_type)
    return [
        index
        for index, value in enumerate(node.inputs)
        if value is not None and value.dtype in FLOATS and (only is None or index in only)
    ]


def assign(graph: ir.Graph, low: ir.DataType) -> dict[ir.Node, ir.DataType]:
    """The floating-point type in which each node of a sorted graph takes its inputs; nodes without any are left out."""
    types: dict[ir.Node, ir.DataType] = {}
    produced = {value: value.dtype for value in graph.inputs if value.dtype is not None}
    for node in graph:
        positions = typed_inputs(node)
        if positions:
            rule = find_rule(node)
            if rule is None:
                # Constants and weights take the type of what they meet.
                inputs = [node.inputs[index] for index in positions]
                data = [value for value in inputs if value is not None and value.const_value is None]
                follows = all(produced.get(value, ir.DataType.FLOAT) is ir.DataType.FLOAT for value in data)
                types[node] = ir.DataType.FLOAT if follows else low
            else:
                types[node] = low if rule.choice is Choice.LOW else ir.DataType.FLOAT
        for value in node.outputs:
            produced[value] = output_type(node, types.get(node), value)
    return types


def output_type(node: ir.Node, own: ir.DataType | None, value: ir.Value) -> ir.DataType:
    """The type of a node's output, given the type in which it takes its inputs."""
    fixed = node.domain == "avsbg" or node.op_type in ("Cast", "DequantizeLinear") or own is None
    if fixed or value.dtype not in FLOATS:
        return value.dtype or ir.DataType.FLOAT
    assert own is not None
    return own
