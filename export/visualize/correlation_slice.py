"""A slice of the correlation volume: one position of a frame against every position of its partner."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from avsbg.export.operators import (
    DOMAIN,
    DOMAIN_VERSION,
    PLUGIN_ATTRIBUTES,
    correlation_volume_body,
    register_schemas,
)

Array = NDArray[Any]
_OPSET, _IR_VERSION = 20, 10


class VolumeSlicer:
    """Computes slices of the volume with the operator `CorrelationVolume`, in ONNX Runtime."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        content = _model().SerializeToString()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, frame: Array, partner: Array, row: int, column: int) -> Array:
        """Correlate a position with all of the partner.

        Args:
            frame, partner: features `[C, h, w]`.
            row, column: of the position in `frame`.

        Returns:
            `[h, w]`: `<frame[:, row, column], partner[:, y, x]>`, negative values included. After the ReLU, its mean
            is what the network's mean correlation has at that position.
        """
        a = np.ascontiguousarray(frame[:, row, column], np.float32).reshape(1, 1, -1)
        b = np.ascontiguousarray(partner.reshape(partner.shape[0], -1).T, np.float32)[None]
        volume: Array = self._session.run(None, {"a": a, "b": b})[0]
        return volume.reshape(partner.shape[1:])


def _model() -> onnx.ModelProto:
    register_schemas()
    make, floats = onnx.helper, onnx.TensorProto.FLOAT
    node = make.make_node("CorrelationVolume", ["a", "b"], ["volume"], domain=DOMAIN, relu=0, **PLUGIN_ATTRIBUTES)
    graph = make.make_graph(
        [node],
        "slice",
        [
            make.make_tensor_value_info(name, floats, ["pairs", rows, "channels"])
            for name, rows in (("a", "p"), ("b", "q"))
        ],
        [make.make_tensor_value_info("volume", floats, ["pairs", "p", "q"])],
    )
    opsets = [make.make_opsetid("", _OPSET), make.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    return make.make_model(
        graph, opset_imports=opsets, ir_version=_IR_VERSION, functions=[correlation_volume_body(_OPSET)]
    )
