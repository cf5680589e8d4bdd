"""Operators that PyTorch and ONNX do not share: schemas, translation from PyTorch, bodies of standard operators.

`avsbg::MeanCorrelation` and `avsbg::CorrelationVolume` (domain version 1) are defined by `avsbg.model.operators`. A
node of ours carries a model-local function body, so that any runtime executes it, and the attributes by which
TensorRT's parser finds a plugin: without `plugin_namespace` and `plugin_version` it takes the body even where the
plugin is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx
import onnx.defs
import onnx.parser

# By operator of PyTorch.
Translations = dict[Callable[..., Any], Callable[..., Any]]

DOMAIN = "avsbg"
DOMAIN_VERSION = 1
# The name under which the TensorRT plugin registers itself.
PLUGIN_ATTRIBUTES = {"plugin_namespace": "", "plugin_version": "1"}

# A body holds one block of the volume at a time. 2**21 values of one pair (8 MB in fp32) keep its peak memory near
# that of the rest of the network; beyond 32 blocks the graph only grows.
_BLOCK_ELEMENTS = 2**21
_MAX_BLOCKS = 32


def row_blocks(positions: int) -> int:
    """In how many blocks of rows a body should compute the volume of two maps with that many positions."""
    return min(_MAX_BLOCKS, max(1, math.ceil(positions * positions / _BLOCK_ELEMENTS)))


def mean_correlation_body(opset: int, blocks: int) -> onnx.FunctionProto:
    """`MeanCorrelation` in standard operators of the model's version, computed in fp32 whatever the input type.

    The number of blocks of rows bounds memory, not validity: one body serves every P and Q of a model, and blocks are
    empty where P is smaller than their number.
    """
    body = [
        "left = Cast <to = 1> (a)",
        "right = Cast <to = 1> (b)",
        "partner = Transpose <perm = [0, 2, 1]> (right)",
        "positions = Shape <start = 1, end = 2> (a)",
        "over_p = Constant <value_ints = [1]> ()",
        "over_q = Constant <value_ints = [2]> ()",
    ]
    if blocks > 1:
        # Block i holds the rows from P * i / blocks up to P * (i + 1) / blocks.
        body.append(f"blocks = Constant <value_ints = [{blocks}]> ()")
        for i in range(blocks + 1):
            body += [
                f"index_{i} = Constant <value_ints = [{i}]> ()",
                f"scaled_{i} = Mul (positions, index_{i})",
                f"edge_{i} = Div (scaled_{i}, blocks)",
            ]
        body += [f"left_{i} = Slice (left, edge_{i}, edge_{i + 1}, over_p)" for i in range(blocks)]
    else:
        body.append("left_0 = Identity (left)")
    for i in range(blocks):
        body += [
            f"products_{i} = MatMul (left_{i}, partner)",
            f"volume_{i} = Relu (products_{i})",
            f"mean_a_{i} = ReduceMean <keepdims = 0> (volume_{i}, over_q)",
            f"sum_b_{i} = ReduceSum <keepdims = 0> (volume_{i}, over_p)",
        ]
    body += [
        f"mean_a = Concat <axis = 1> ({', '.join(f'mean_a_{i}' for i in range(blocks))})",
        f"sum_b = Sum ({', '.join(f'sum_b_{i}' for i in range(blocks))})",
        "divisor = Cast <to = 1> (positions)",
        "mean_b = Div (sum_b, divisor)",
    ]
    return _function("MeanCorrelation (a, b) => (mean_a, mean_b)", opset, body)


def correlation_volume_body(opset: int) -> onnx.FunctionProto:
    """`CorrelationVolume` in standard operators, computed in fp32 whatever the input type."""
    body = [
        "left = Cast <to = 1> (a)",
        "right = Cast <to = 1> (b)",
        "partner = Transpose <perm = [0, 2, 1]> (right)",
        "products = MatMul (left, partner)",
        # A function's attribute cannot choose its nodes, so it chooses the lower bound of the values.
        "relu_flag = Constant <value_int: int = @relu> ()",
        "rectified = Cast <to = 9> (relu_flag)",
        "zero = Constant <value_float = 0.0> ()",
        "unbounded = Constant <value = float {-inf}> ()",
        "bound = Where (rectified, zero, unbounded)",
        "volume = Max (products, bound)",
    ]
    return _function("CorrelationVolume <relu: int = 0> (a, b) => (volume)", opset, body)


def _function(signature: str, opset: int, body: list[str]) -> onnx.FunctionProto:
    header = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>'
    return onnx.parser.parse_function("\n".join([header, signature, "{", *body, "}"]))


def register_schemas() -> None:
    """Tell onnx about the two operators (once), so that it checks their nodes and infers their shapes."""
    for schema in (_mean_correlation_schema(), _correlation_volume_schema()):
        if not onnx.defs.has(schema.name, DOMAIN):
            onnx.defs.register_schema(schema)


def translations() -> Translations:
    """Translations that `torch.onnx.export` needs: of the two correlation operators, and of fused attention.

    The exporter's own translation of attention reads the key's shape at run time to transpose it, which costs nine
    nodes an attention and hides the pattern from engines that know it.
    """
    import onnxscript
    import torch
    from onnxscript import opset18 as op

    import avsbg.model.operators  # noqa: F401  (defines torch.ops.avsbg)

    opset = onnxscript.values.Opset(DOMAIN, DOMAIN_VERSION)
    mean = onnxscript.values.Op(opset, "MeanCorrelation", _mean_correlation_schema())
    volume = onnxscript.values.Op(opset, "CorrelationVolume", _correlation_volume_schema())

    def mean_correlation(a, b):  # type: ignore[no-untyped-def]
        return mean(a, b, **PLUGIN_ATTRIBUTES)

    def correlation_volume(a, b, relu=False):  # type: ignore[no-untyped-def]
        return volume(a, b, relu=int(relu), **PLUGIN_ATTRIBUTES)

    def attention(  # type: ignore[no-untyped-def]  # noqa: PLR0917  (PyTorch's signature)
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        if attn_mask is not None or dropout_p or is_causal or enable_gqa:
            raise NotImplementedError("attention with a mask, dropout or grouped queries")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scaled = op.Mul(query, op.Constant(value_float=float(scale)))
        scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
        return op.MatMul(op.Softmax(scores, axis=-1), value)

    return {
        torch.ops.aten.scaled_dot_product_attention.default: attention,
        torch.ops.avsbg.mean_correlation.default: mean_correlation,
        torch.ops.avsbg.correlation_volume.default: correlation_volume,
    }


def composite_translations() -> Translations:
    """Translations of operators that the exporter translates only after decomposing them (`avsbg.export.translation`).

    A NotImplementedError leaves a case to the exporter.
    """
    import onnx_ir as ir
    import torch
    from onnxscript import opset18 as op

    # Signatures are PyTorch's.
    def batch_norm(  # type: ignore[no-untyped-def]  # noqa: PLR0917
        input,
        weight,
        bias,
        mean,
        variance,
        training=False,
        momentum=0.1,  # noqa: ARG001
        eps=1e-5,
        cudnn_enabled=True,  # noqa: ARG001
    ):
        if training or weight is None or bias is None or mean is None or variance is None:
            raise NotImplementedError("batch normalisation in training, or without its parameters")
        return op.BatchNormalization(input, weight, bias, mean, variance, epsilon=eps)

    def to_dtype(self, dtype, non_blocking=False, copy=False, memory_format=None):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return op.Cast(self, to=dtype)

    def movedim(self, source, destination):  # type: ignore[no-untyped-def]
        rank = len(self.shape)
        order = [axis for axis in range(rank) if axis != source % rank]
        order.insert(destination % rank, source % rank)
        return op.Transpose(self, perm=order)

    def rsub(self, other, alpha=1):  # type: ignore[no-untyped-def]
        if alpha != 1 or not isinstance(other, (int, float)) or self.dtype != ir.DataType.FLOAT:
            raise NotImplementedError("a difference that is scaled, not from a constant or not in float32")
        return op.Sub(op.Constant(value_float=float(other)), self)

    return {
        torch.ops.aten.batch_norm.default: batch_norm,
        torch.ops.aten.to.dtype: to_dtype,
        torch.ops.aten.movedim.int: movedim,
        torch.ops.aten.rsub.Scalar: rsub,
    }


_Schema = onnx.defs.OpSchema
_INPUT_TYPES = [("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "The type of the descriptors.")]


def _attribute(name: str, default: str | int, doc: str) -> onnx.defs.OpSchema.Attribute:
    return _Schema.Attribute(name, onnx.helper.make_attribute(name, default), doc)


def _schema(
    name: str,
    doc: str,
    outputs: list[onnx.defs.OpSchema.FormalParameter],
    shapes: Callable[[Any, Any, Any], list[tuple[Any, ...]]],
    attributes: list[onnx.defs.OpSchema.Attribute],
) -> onnx.defs.OpSchema:
    """A schema whose outputs are float32, with the shapes that `shapes` makes of N, P and Q."""
    schema = _Schema(
        name,
        DOMAIN,
        DOMAIN_VERSION,
        doc,
        inputs=[
            _Schema.FormalParameter("a", "T", "Descriptors [N, P, C] of one frame of each pair."),
            _Schema.FormalParameter("b", "T", "Descriptors [N, Q, C] of its partner."),
        ],
        outputs=outputs,
        type_constraints=_INPUT_TYPES,
        attributes=[
            *attributes,
            *(_attribute(name, default, "TensorRT's registry.") for name, default in PLUGIN_ATTRIBUTES.items()),
            _attribute("tf32", 0, "1: the plugin multiplies fp32 inputs in tf32."),
        ],
    )

    def infer(context: Any) -> None:
        for index, shape in enumerate(shapes(*_pair_dimensions(context))[: context.get_num_outputs()]):
            kind = onnx.TypeProto()
            kind.tensor_type.elem_type = onnx.TensorProto.FLOAT
            kind.tensor_type.shape.dim.extend(shape)
            context.set_output_type(index, kind)

    schema.set_type_and_shape_inference_function(infer)
    return schema


def _mean_correlation_schema() -> onnx.defs.OpSchema:
    optional = _Schema.FormalParameterOption.Optional
    outputs = [
        _Schema.FormalParameter("mean_a", "tensor(float)", "The mean over q, [N, P]."),
        _Schema.FormalParameter("mean_b", "tensor(float)", "The mean over p, [N, Q].", param_option=optional),
    ]
    doc = "Means over q, and over p, of relu(<a[n, p], b[n, q]>), accumulated in fp32."
    return _schema("MeanCorrelation", doc, outputs, lambda n, p, q: [(n, p), (n, q)], [])


def _correlation_volume_schema() -> onnx.defs.OpSchema:
    relu = _attribute("relu", 0, "1: negative entries are set to 0.")
    outputs = [_Schema.FormalParameter("volume", "tensor(float)", "The correlation volume [N, P, Q].")]
    doc = "<a[n, p], b[n, q]>, accumulated in fp32."
    return _schema("CorrelationVolume", doc, outputs, lambda n, p, q: [(n, p, q)], [relu])


def _pair_dimensions(context: Any) -> tuple[Any, Any, Any]:
    """N, P and Q of a node's inputs; a dimension that onnx does not know has neither value nor name."""
    shapes = []
    for index, name in enumerate("ab"):
        tensor = context.get_input_type(index).tensor_type
        if not tensor.HasField("shape"):
            shapes.append([onnx.TensorShapeProto.Dimension() for _ in range(3)])
            continue
        if len(tensor.shape.dim) != 3:
            raise onnx.shape_inference.InferenceError(
                f"descriptors {name} must be [N, positions, C], not of rank {len(tensor.shape.dim)}"
            )
        shapes.append(list(tensor.shape.dim))
    (pairs, p, _), (_, q, _) = shapes
    return pairs, p, q
