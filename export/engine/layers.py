"""The realised types of an engine's layers, read from TensorRT's own descriptions.

A layer names the ONNX nodes that it executes. So each product of the graph (convolution, matrix product, correlation)
can be followed to the layers that compute it, and the types of their inputs held against the type asked for.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from avsbg.export.engine.request import BuildError
from avsbg.runtime.bundle.precision import PRECISIONS

# TensorRT's names, in all versions, of the types that no precision computes in.
_OTHER_TYPES = {word: word.lower() for word in ("Int32", "INT32", "Int64", "INT64", "UInt8", "UINT8", "Bool", "BOOL")}
_TENSORS = ("Inputs", "Constants", "Outputs")
# Layers that only wait for each other.
_SYNCHRONISATION = frozenset({"wait", "signal", "shape_call", "runtime_function"})
# Element-wise kernels. They may prepare or finish a product that another kind of layer computes.
_GENERATED = "kgen"

LOG_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?), Constants: (?P<constants>.*?), "
    r"Outputs: (?P<outputs>.*), TacticName: (?P<tactic>.*?), StreamId: .*?Metadata: (?P<nodes>.*)$"
)
_LOG_TENSOR = re.compile(r"Dimensions: \[(?P<shape>[^\]]*)\].*?Datatype: (?P<type>\w+)")
NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class Layer:
    """A layer of an engine, with TensorRT's name for it and TensorRT's word for its kind."""

    name: str
    kind: str
    inputs: tuple[str, ...]  # types, of inputs and of constants that are not single numbers
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]  # the ONNX nodes that it executes, or takes part in
    tactic: str  # the kernel that was chosen, where TensorRT says
    lists_constants: bool = True  # whether weights are among the inputs


def layers_from_log(messages: Iterable[str]) -> list[Layer]:
    """The layers that a builder with detailed verbosity printed at the end of a build; a BuildError without any."""
    layers = []
    for line in (line for message in messages for line in message.splitlines()):
        if not line.startswith("Name: ") or ", LayerType: " not in line:
            continue
        match = LOG_LINE.match(line)
        if match is None:
            raise BuildError(f"this version of TensorRT describes a layer in an unknown way: {line[:200]}")
        # Each tensor as (shape, type).
        inputs, constants, outputs = (_LOG_TENSOR.findall(match[part]) for part in map(str.lower, _TENSORS))
        operands, results = _operand_types(inputs, constants), _types([word for _, word in outputs])
        nodes = tuple(NODE.findall(match["nodes"]))
        layers.append(Layer(match["name"], match["kind"], operands, results, nodes, match["tactic"]))
    if not layers:
        raise BuildError("TensorRT printed no table of layers, so the precision of the engine cannot be read back.")
    return layers


def layers_from_inspector(information: str) -> list[Layer]:
    """The layers with details in an engine inspector's JSON (`LayerInformationFormat`); a BuildError without any."""
    try:
        document = json.loads(information)
    except ValueError as error:
        raise BuildError(f"the engine inspector answers with what is no JSON: {information[:200]!r}.") from error
    layers = []
    for entry in document.get("Layers", []) if isinstance(document, dict) else []:
        if not isinstance(entry, dict):
            raise BuildError("the engine was built without detailed profiling verbosity, and shows only layers' names.")
        inputs, constants, outputs = (_inspector_tensors(entry.get(key, [])) for key in _TENSORS)
        operands = _operand_types([tensor for tensor in inputs if _counts(tensor[0])], constants)
        results = _types([word for shape, word in outputs if _counts(shape)])
        name, kind, nodes, tactic = (str(entry.get(key, "")) for key in ("Name", "LayerType", "Metadata", "TacticName"))
        is_complete = "Constants" in entry
        layers.append(Layer(name, kind, operands, results, tuple(NODE.findall(nodes)), tactic, is_complete))
    if not layers:
        raise BuildError("the engine inspector shows no layers, so the precision of the engine cannot be read back.")
    return layers


def name_sources(layers: Iterable[Layer], sources: Mapping[str, tuple[str, ...]]) -> tuple[Layer, ...]:
    """The layers by the nodes of a bundle's graph, where a node of the parsed graph stands for several of those."""
    return tuple(
        replace(layer, nodes=tuple(name for node in layer.nodes for name in sources.get(node, (node,))))
        for layer in layers
    )


def _inspector_tensors(tensors: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    for tensor in tensors:
        # TensorRT 10 writes `Row major linear FP16 format` or `Half` into one field, TensorRT 11 splits it into Format
        # and DataType (NVIDIA's migration guide, "IEngineInspector JSON Output").
        text = str(tensor.get("DataType", tensor.get("Datatype", tensor.get("Format/Datatype", ""))))
        word = next((part for part in re.split(r"[^A-Za-z0-9]+", text) if _type_name(part)), text)
        found.append((",".join(map(str, tensor.get("Dimensions", []))), word))
    return found


def _operand_types(inputs: list[tuple[str, str]], constants: list[tuple[str, str]]) -> tuple[str, ...]:
    """The types of the operands of a layer, from (shape, type) of its inputs and constants.

    Left out is what scales or shifts the result: constants of one number, and where both operands are quantised, those
    of one number for each channel. (With one quantised operand, such a constant may be the other.)
    """
    tensors = [*inputs, *(constant for constant in constants if _counts(constant[0]))]
    quantized = {name for name, spec in PRECISIONS.items() if spec.quantization is not None}
    quantised = sum(_type_name(word) in quantized for _, word in tensors)
    kept = [*inputs, *(constant for constant in constants if _counts(constant[0], more_than=int(quantised >= 2)))]
    return _types([word for _, word in kept])


def _counts(shape: str, more_than: int = 0) -> bool:
    """Whether more than `more_than` of a tensor's dimensions are not 1."""
    return sum(size not in ("1", "") for size in shape.split(",")) > more_than


def _types(words: list[str]) -> tuple[str, ...]:
    return tuple(_type_name(word) or word for word in words)


def _type_name(word: str) -> str | None:
    """Our name of a type, from any of TensorRT's."""
    computed = (name for name, spec in PRECISIONS.items() if word in spec.tensorrt_names)
    return next(computed, _OTHER_TYPES.get(word))


def _layers_of(layers: Iterable[Layer], products: Iterable[str]) -> dict[str, list[Layer]]:
    """The layers that compute each product, by the name of its ONNX node; none where no layer names it."""
    by_node: dict[str, list[Layer]] = {name: [] for name in products}
    for layer in layers:
        if layer.kind not in _SYNCHRONISATION:
            for name in by_node.keys() & set(layer.nodes):
                by_node[name].append(layer)
    return {
        name: [layer for layer in candidates if layer.kind != _GENERATED] or candidates
        for name, candidates in by_node.items()
    }


def _computed_types(layer: Layer) -> tuple[str, ...]:
    """The types of a layer's inputs that are a precision's, one for each input."""
    return tuple(kind for kind in layer.inputs if kind in PRECISIONS and PRECISIONS[kind].tensorrt_names)


def realised_types(layers: Iterable[Layer], products: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The types, sorted, in which the layers that compute each product take their inputs; none where no layer names it.

    `products` are names of ONNX nodes.
    """
    return {
        name: tuple(sorted({kind for layer in computing for kind in _computed_types(layer)}))
        for name, computing in _layers_of(layers, products).items()
    }


def compare_types(layers: Iterable[Layer], expected: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The products that are computed in another type than expected, and those of which the report does not say.

    Both are lists of `node: types`. A layer whose inputs have the type expected and another besides says nothing where
    both operands may have it (then what is added to the product has the other), or where its weights are not listed:
    TensorRT reports a region that it compiles as a whole as one layer.
    """
    differing, unreported = [], []
    for name, computing in _layers_of(layers, expected).items():
        verdicts = [_has_type(layer, expected[name]) for layer in computing]
        types = " and ".join(sorted({kind for layer in computing for kind in _computed_types(layer)}))
        if False in verdicts:
            differing.append(f"{name}: {types}")
        elif None in verdicts or not verdicts:
            unreported.append(f"{name}: {types or 'no layer names it'}")
    return tuple(differing), tuple(unreported)


def _has_type(layer: Layer, wanted: str) -> bool | None:
    """Whether a layer multiplies in a type; None where its report does not say."""
    types = _computed_types(layer)
    if not types or set(types) == {wanted}:
        return True if types else None
    if wanted in types and (types.count(wanted) >= 2 or not layer.lists_constants):
        return None
    return False


def count_types(realised: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """The number of layers of the graph that are computed in each type."""
    return dict(Counter(" and ".join(types) or "unknown" for types in realised.values()).most_common())
