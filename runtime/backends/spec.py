"""A backend as users name it, `BACKEND[:IMPLEMENTATION][:PRECISION]`, and the implementations of our operator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from avsbg.runtime.bundle.graph_name import REST
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.errors import BackendError

_OTHER_DEVICE = (
    "On a processor: onnxruntime, openvino, torch. On a GPU: onnxruntime-cuda, tensorrt, torch --device cuda."
)
SYNTAX = "BACKEND[:IMPLEMENTATION][:PRECISION]"
_SERVER = "triton:"


class OperatorImplementation(str, Enum):
    """Ways to compute the correlation operator; the value is the word in commands, manifests and rows."""

    EFFICIENT = "efficient"  # PyTorch, without the correlation volume
    PUBLISHED = "published"  # PyTorch, as the released code does it: the volume exists
    FUNCTION = "function"  # the ONNX function body of the graph's custom node
    NATIVE = "native"  # our kernel for the processor or the GPU, in place of the custom node
    PLUGIN = "plugin"  # our CUDA kernels as TensorRT's plugin, in place of the custom node
    PLAIN = "plain"  # a graph of standard operators only

    __str__ = str.__str__

    @property
    def graph_form(self) -> Literal["custom", "plain"] | None:
        """The `GraphRecord.operator` that it needs: a graph with a custom node or without; None for PyTorch."""
        if self in (OperatorImplementation.EFFICIENT, OperatorImplementation.PUBLISHED):
            return None
        return "plain" if self is OperatorImplementation.PLAIN else "custom"


@dataclass(frozen=True)
class BackendSpec:
    """A backend, and how it is to execute a graph."""

    backend: str
    operator: OperatorImplementation | None = None  # None for the backend's default
    precision: Precision | None = None  # None for the graph's own, which is fp32 unless it says otherwise
    rest: Precision | None = None  # of the products that a quantised graph leaves out; None for the default
    address: str | None = None  # of a server's model, of a backend that is one

    @classmethod
    def parse(cls, text: str) -> BackendSpec:
        """Read `BACKEND:PART...`, parts in any order; a `BackendError` if one is empty, unknown or said twice."""
        if text.startswith(_SERVER):  # an address has colons of its own
            return cls(_SERVER.rstrip(":"), address=text.removeprefix(_SERVER))
        backend, *details = text.split(":")
        problem, found = "" if backend else "it begins with a colon or is empty", {}
        for detail in details:
            kind, value = _read_detail(detail)
            if not kind:
                problem = problem or f"{detail!r} is neither an implementation nor a precision"
            elif kind in found:
                problem = problem or f"{detail!r} is a second {kind}"
            found[kind] = value
        if problem:
            raise BackendError(
                f"{text!r} names no backend; a backend is named {SYNTAX}, and {problem}.",
                f"Implementations: {', '.join(OperatorImplementation)}. Precisions: {', '.join(PRECISIONS)}. "
                "For instance onnxruntime, onnxruntime:native, torch:published.",
            )
        return cls(backend, **found)

    def __str__(self) -> str:
        rest = f"{REST}{self.rest}" if self.rest else None
        return ":".join(part for part in (self.backend, self.operator, rest, self.precision, self.address) if part)

    def options(self) -> dict[str, Any]:
        """The options that `backends.create` takes besides the backend's name."""
        parts = {"operator": self.operator, "precision": self.precision, "rest": self.rest}
        return parts if self.address is None else {**parts, "address": self.address}


def _read_detail(detail: str) -> tuple[str, Any]:
    """The attribute that a part of a user's text sets, and its value; "" where it is none."""
    if detail in list(OperatorImplementation):
        return "operator", OperatorImplementation(detail)
    precision = detail.removeprefix(REST)
    if precision not in PRECISIONS:
        return "", None
    return ("precision" if precision == detail else "rest"), precision


def device_number(backend: str, device: int | str, kind: Literal["cpu", "cuda"]) -> int:
    """The number of the device that a user asks a backend for; a `BackendError` if it is none of the backend's.

    `device` is `cpu`, `cuda`, `cuda:N`, or N itself; `kind` is where the backend runs.
    """
    found = re.fullmatch(r"(?:(cpu)|(cuda)(?::(\d+))?)", device) if isinstance(device, str) else None
    if isinstance(device, str) and found is None:
        raise BackendError(f"{device!r} names no device.", "Devices: cpu, cuda, cuda:N.")
    if found is not None and kind not in found.groups():
        raise BackendError(f"the backend {backend} runs on {kind}, not on {device}.", _OTHER_DEVICE)
    return device if isinstance(device, int) else int(found[3] or 0) if found else 0
