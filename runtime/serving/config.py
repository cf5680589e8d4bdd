"""Configurations of Triton's models, in the protocol buffers' text form (`config.pbtxt`).

Fields are those of `model_config.proto` of https://github.com/triton-inference-server/common.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import GraphRecord, TensorRecord
from avsbg.runtime.errors import BackendError

CONFIG = "config.pbtxt"
BUNDLE = "bundle"  # the folder that holds it, beside the `model.py` of the Python backend
# A stream that sends nothing for so long is forgotten.
IDLE_SECONDS = 60
# The folder for the data of a warm-up, and its files' content by name.
WARM_UP, FLAGS = "warmup", {"false": bytes(1), "true": bytes([1])}
# The inputs by which the server says where a stream begins and ends.
START, END = "START", "END"
# The outputs that say whether a mask came with the answer, and which frame it is of.
VALID, FRAME, TIMESTAMP = "valid", "frame", "timestamp"

_TYPES = {"uint8": "UINT8", "int32": "INT32", "int64": "INT64", "bool": "BOOL"} | {
    "float64": "FP64",
    "float32": "FP32",
    "float16": "FP16",
}
Fields = dict[str, Any]


class Word(str):
    """A value of an enumeration, which is written without quotes."""


@dataclass(frozen=True)
class ServeOptions:
    """Settings of a model repository; a `BackendError` names one that is out of range."""

    name: str  # of the models, to which `-clip` and `-stream` are added
    max_batch: int = 8  # clips of one call
    max_streams: int = 64  # streams that are open at the same time, for each instance
    delay: float = 0.002  # seconds that a request may wait for others
    instances: int = 1
    gpu: int | None = None  # the number of the GPU; None for the processor

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            hint = "Use letters, digits, dots, dashes and underscores."
            raise BackendError(f"{self.name!r} is no name for a model: it becomes a folder's.", hint)
        for option in ("max_batch", "max_streams", "instances"):
            if (count := getattr(self, option)) < 1:
                raise BackendError(f"{option.replace('_', '-')} must be at least 1, not {count}.")


def default_name(bundle: Bundle) -> str:
    """The models' name by default: the bundle's, with dashes for what a model's name may not hold."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", bundle.manifest.name).strip("-.") or "avsbg"


def render(fields: Mapping[str, Any], indent: str = "") -> str:
    """Fields as text: a mapping is a message, a list a repeated field; a None is left out."""
    lines = []
    for key, value in fields.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, Mapping):
                lines.append(f"{indent}{key} {{\n{render(one, indent + '  ')}{indent}}}\n")
            elif one is not None:
                lines.append(f"{indent}{key}: {one if isinstance(one, Word) else json.dumps(one)}\n")
    return "".join(lines)


def clip_config(record: GraphRecord, options: ServeOptions, executed: Fields) -> Fields:
    """The model of whole clips: requests that wait are computed together, in one batch.

    `executed` are the fields that say what executes it; `TensorRecord`s become inputs and outputs without their first,
    dynamic dimension.
    """
    return {
        "name": f"{options.name}-clip",
        **executed,
        "max_batch_size": options.max_batch,
        "input": _tensors(record.inputs),
        "output": _tensors(record.outputs),
        "dynamic_batching": {"max_queue_delay_microseconds": _microseconds(options)},
        "instance_group": _instances(options),
        "model_warmup": [_warm_up("clips", record.inputs, size) for size in sorted({1, options.max_batch})],
    }


def stream_config(
    inputs: Sequence[TensorRecord],
    outputs: Sequence[TensorRecord],
    options: ServeOptions,
    executed: Fields,
    states: Sequence[tuple[TensorRecord, str]] = (),
    *,
    keeps_streams: bool = True,
) -> Fields:
    """The model of streams: each request brings the next frame of one, and streams that wait are computed together.

    Args:
        inputs: a frame and its sound.
        outputs: what a mask consists of, and what is told of it.
        states: inputs that the server feeds back from the outputs named beside them; zeros at a stream's beginning.
        keeps_streams: whether the model keeps what it needs of a stream itself. It is then warmed up. (Of a warm-up,
            the server keeps no states, and would refuse a model that has some.)
    """
    flag = {"bool_false_true": [False, True]}
    control = [
        {"name": START, "control": {"kind": Word("CONTROL_SEQUENCE_START"), **flag}},
        {"name": END, "control": {"kind": Word("CONTROL_SEQUENCE_END"), **flag}},
    ]
    return {
        "name": f"{options.name}-stream",
        **executed,
        "max_batch_size": options.max_streams,
        "input": _tensors(inputs),
        "output": _tensors(outputs),
        "sequence_batching": {
            "max_sequence_idle_microseconds": IDLE_SECONDS * 1_000_000,
            "oldest": {
                "max_candidate_sequences": options.max_streams,
                "max_queue_delay_microseconds": _microseconds(options),
            },
            "control_input": control,
            "state": [_state(tensor, output) for tensor, output in states],
        },
        "instance_group": _instances(options),
        "model_warmup": _warm_up_stream(inputs) if keeps_streams else [],
    }


def parameters(**values: object) -> list[Fields]:
    """Parameters that a model's code reads, as text."""
    return [{"key": key, "value": {"string_value": str(value)}} for key, value in values.items() if value is not None]


def triton_type(dtype: str) -> Word:
    """The name that Triton's configurations have for a dtype of numpy's."""
    return Word(f"TYPE_{_TYPES[dtype]}")


def _tensors(records: Iterable[TensorRecord]) -> list[Fields]:
    return [
        {"name": one.name, "data_type": triton_type(one.dtype), "dims": [int(size) for size in one.shape[1:]]}
        for one in records
    ]


def _state(tensor: TensorRecord, output: str) -> Fields:
    shape = {"data_type": triton_type(tensor.dtype), "dims": [int(size) for size in tensor.shape[1:]]}
    zeros = {**shape, "zero_data": True, "name": "zeros"}
    return {"input_name": tensor.name, "output_name": output, **shape, "initial_state": zeros}


def _instances(options: ServeOptions) -> Fields:
    if options.gpu is None:
        return {"count": options.instances, "kind": Word("KIND_CPU")}
    return {"count": options.instances, "kind": Word("KIND_GPU"), "gpus": [options.gpu]}


def _warm_up(name: str, inputs: Iterable[TensorRecord], size: int = 1, **flags: bool) -> Fields:
    """A request of zeros before the model is ready; `flags` are inputs that the server adds to other requests."""

    def entry(key: str, dtype: str, dims: Sequence[int | str], **data: object) -> Fields:
        return {"key": key, "value": {"data_type": triton_type(dtype), "dims": list(map(int, dims)), **data}}

    zeros = [entry(one.name, one.dtype, one.shape[1:], zero_data=True) for one in inputs]
    given = [entry(key, "bool", [1], input_data_file=str(value).lower()) for key, value in flags.items()]
    return {"name": name, "batch_size": size, "inputs": [*zeros, *given]}


def _warm_up_stream(inputs: Sequence[TensorRecord]) -> list[Fields]:
    """A stream of two frames: its requests do not pass the sequence batcher, and so bring what that would add."""
    steps = {"begin": (True, False), "next": (False, False), "end": (False, True)}
    return [_warm_up(step, inputs, START=start, END=end) for step, (start, end) in steps.items()]


def _microseconds(options: ServeOptions) -> int:
    return round(options.delay * 1e6)
