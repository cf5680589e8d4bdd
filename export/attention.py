"""Translation of PyTorch's fused attention to ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For `torch.onnx.export`: `scaled_dot_product_attention` as two products around a softmax.

    The exporter's own translation reads the key's shape at run time to transpose it, which costs nine nodes an
    attention and hides the pattern from engines that know it.
    """
    import torch
    from onnxscript import opset20 as op

    def attention(  # type: ignore[no-untyped-def]  # noqa: PLR0917  (PyTorch's signature)
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        if attn_mask is not None or dropout_p or is_causal or enable_gqa:
            raise NotImplementedError("attention with a mask, dropout or grouped queries")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scaled = op.Mul(query, op.Constant(value_float=float(scale)))
        scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
        return op.MatMul(op.Softmax(scores, axis=-1), value)

    return {torch.ops.aten.scaled_dot_product_attention.default: attention}
