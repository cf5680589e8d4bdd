"""An engine's inputs and outputs, held against the graph's contract; the profile for given shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avsbg.runtime.bundle.manifest import GraphRecord, TensorRecord
from avsbg.runtime.bundle.record_types import validate_shape
from avsbg.runtime.errors import BackendError

Shape = tuple[int, ...]

# TensorRT's names of the types that a contract may have.
_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8", "BOOL": "bool"}


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine."""

    name: str
    is_input: bool
    dtype: str  # numpy's name, or TensorRT's where numpy has none
    shape: Shape  # -1 where a dimension is dynamic
    profiles: tuple[tuple[Shape, Shape, Shape], ...] = ()  # of an input: smallest, optimal, largest


def read_tensors(trt: Any, engine: Any) -> dict[str, EngineTensor]:
    """The inputs and outputs of an engine (TensorRT's `ICudaEngine`), by name; all must lie in the GPU's memory."""
    tensors = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise BackendError(f"the engine wants {name} in the host's memory, as no graph of avsbg does.")
        kind = engine.get_tensor_dtype(name).name
        profiles = tuple(
            tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(name, number))
            for number in range(engine.num_optimization_profiles if is_input else 0)
        )
        shape = tuple(engine.get_tensor_shape(name))
        tensors[name] = EngineTensor(name, is_input, _TYPES.get(kind, kind), shape, profiles)  # type: ignore[arg-type]
    return tensors


def check_contract(engine: str, tensors: Mapping[str, EngineTensor], contract: GraphRecord) -> None:
    """Raise a `BackendError` if an engine's inputs and outputs are not those of the graph that its record names."""
    hint = "It was not built from this bundle's graph: rebuild it with `avsbg build`."
    for kind, records, wants_input in (("input", contract.inputs, True), ("output", contract.outputs, False)):
        names = [tensor.name for tensor in tensors.values() if tensor.is_input == wants_input]
        wanted = [record.name for record in records]
        if sorted(names) != sorted(wanted):
            message = f"the engine {engine} has the {kind}s {', '.join(names)}; its graph has {', '.join(wanted)}."
            raise BackendError(message, hint)
        for record in records:
            found = tensors[record.name]
            if found.dtype != record.dtype or not _fits(found.shape, record):
                has = f"{found.dtype} {list(found.shape)} as {record.name}"
                raise BackendError(
                    f"the engine {engine} has {has}; its graph has {record.dtype} {list(record.shape)}.", hint
                )


def _fits(shape: Shape, record: TensorRecord) -> bool:
    # A dimension that the contract names may have become a number: a profile of one size fixes it.
    return len(shape) == len(record.shape) and all(
        isinstance(wanted, str) or size == wanted for size, wanted in zip(shape, record.shape, strict=True)
    )


def choose_profile(tensors: Mapping[str, EngineTensor], shapes: Mapping[str, Sequence[int]]) -> int:
    """The optimisation profile that takes the shapes, tuned for the nearest size; a `BackendError` if none does."""
    inputs = [tensor for tensor in tensors.values() if tensor.is_input]
    distances = {
        number: sum(
            abs(size - best)
            for tensor in inputs
            for size, best in zip(shapes[tensor.name], tensor.profiles[number][1], strict=True)
        )
        for number in range(len(inputs[0].profiles))
        if all(_within(shapes[tensor.name], *tensor.profiles[number]) for tensor in inputs)
    }
    if not distances:
        refused = (one for one in inputs if not all(_within(shapes[one.name], *profile) for profile in one.profiles))
        first = next(refused)
        takes = " or ".join(f"{list(low)} to {list(high)}" for low, _, high in first.profiles)
        message = f"the engine does not take {first.name} {list(shapes[first.name])}; it takes {takes}."
        raise BackendError(message, "Build an engine for that many clips: avsbg build ... --batch-range MIN OPT MAX.")
    return min(distances, key=lambda number: distances[number])


def largest_shapes(tensors: Mapping[str, EngineTensor], contract: GraphRecord) -> dict[str, Shape]:
    """The largest shape of each tensor in any profile; a `BackendError` if no memory could be taken for it."""
    largest: dict[str, int] = {}
    for record in contract.inputs:
        for _, _, high in tensors[record.name].profiles:
            for size, dimension in zip(high, record.shape, strict=True):
                if isinstance(dimension, str):
                    largest[dimension] = max(size, largest.get(dimension, 0))
    shapes = {
        record.name: tuple(largest[size] if isinstance(size, str) else size for size in record.shape)
        for record in (*contract.inputs, *contract.outputs)
    }
    for name, shape in shapes.items():
        if problem := validate_shape(shape):
            raise BackendError(
                f"the engine's largest {name} {problem}.", "Build an engine with a smaller --batch-range."
            )
    return shapes


def _within(shape: Sequence[int], low: Shape, _: Shape, high: Shape) -> bool:
    return all(least <= size <= most for size, least, most in zip(shape, low, high, strict=True))
