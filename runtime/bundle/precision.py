"""The precisions that a network can be computed in: one record for each, which says all that depends on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class QuantizationSpec:
    """The numbers behind a precision whose values are steps of a calibrated range.

    `calibration` says how the range of an activation follows from its histogram. The steps of fp8 grow with the value,
    so that a wide range costs small values nothing; those of int8 do not.
    """

    max_level: float  # the largest magnitude that a value is mapped to
    calibration: Literal["mse", "max"]


@dataclass(frozen=True)
class PrecisionSpec:
    """A precision of matrix products and convolutions.

    `min_miou` is the accuracy threshold: what the mean IoU between its masks and those of PyTorch in float32 must reach
    unless the user says otherwise. `tolerance` is the largest difference of a tensor inside the network, as a share of
    its largest value, that counts as rounding when the place of an error is looked for.
    """

    name: str  # as manifests and users write it
    bytes: int  # of one element
    min_miou: float
    tolerance: float
    onnx_type: str = "FLOAT"  # of the operands, a member of `onnx_ir.DataType`
    min_opset: int | None = None  # whose convolutions take that type; None for float32 graphs and quantized values
    feature_type: str = "FLOAT"  # of what passes between the two graphs of a stream
    quantization: QuantizationSpec | None = None  # None for floating point, which needs no calibration
    cpu_limitation: str | None = None  # why ONNX Runtime does not compute in it on the CPU; None where it does
    emulated: bool = False  # whether its rounding is emulated on the CPU instead
    torch_autocast: str | None = None  # the name of its type in PyTorch's autocast
    openvino_hint: str | None = None  # None where the graph alone decides
    openvino_names: tuple[str, ...] = ()  # of its types in compiled graphs; none where OpenVINO has none
    tensorrt_names: tuple[str, ...] = ()  # of its type in descriptions of layers, in all versions
    min_compute_capability: int = 0  # of GPUs that multiply in it, e.g. 89 for 8.9; 0 for all
    alternative: str = "fp16"  # a precision for GPUs that do not

    @property
    def is_converted(self) -> bool:
        """Whether `avsbg quantize` makes graphs in it; the others are computed from the float32 graphs."""
        return self.min_opset is not None or self.quantization is not None


def _read(record: dict[str, Any]) -> PrecisionSpec:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    if (quantization := values.get("quantization")) is not None:
        values["quantization"] = QuantizationSpec(**quantization)
    return PrecisionSpec(**values)


# In the order in which tables and messages list them. The step of bfloat16 is eight times that of float16 and tf32, so
# its threshold is lower. What is quantized explicitly runs everywhere: ONNX Runtime rounds as the graph says, and
# multiplies int8 or the dequantized values.
_TABLE = json.loads(Path(__file__).with_name("precisions.json").read_bytes())
PRECISIONS = {spec.name: spec for spec in map(_read, _TABLE)}


def validate_rest(precision: str, rest: str | None) -> str | None:
    """The problem of a type for what a precision does not quantize; None where it can be asked for."""
    if rest in (None, "fp32") or (rest == "fp16" and PRECISIONS[precision].quantization is not None):
        return None
    allowed = "what int8 and fp8 do not quantise is fp16 or fp32."
    return f"--rest {rest} cannot be combined with --precision {precision}: {allowed}"


def join_names(names: Sequence[str]) -> str:
    """The names as `a, b or c`."""
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def converted_precisions() -> list[str]:
    """The precisions that `avsbg quantize` makes graphs in."""
    return [name for name, spec in PRECISIONS.items() if spec.is_converted]


def quantization_of(precision: str) -> QuantizationSpec:
    """The numbers of a quantized precision; a ValueError for one of floating point."""
    quantization = PRECISIONS[precision].quantization
    if quantization is None:
        raise ValueError(f"{precision} is not quantized")
    return quantization
