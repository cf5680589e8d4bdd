"""An exported graph made small and readable by onnxscript's optimiser; weights keep the names of the modules."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common
import onnxscript.optimizer
from onnxscript.rewriter.rules.common import slice_split_rule

from avsbg.export.editor import GraphEditor

# The optimiser's patterns take a constant this close to 0 or 1 for it: `x / (s + 1e-10)` would become `x / s`.
_ABSOLUTE, _RELATIVE = 1e-8, 1e-5
# Metadata in which the exporter notes the modules of a node: outermost first, the node's own name last.
_SCOPES = "pkg.torch.onnx.name_scopes"


def optimise(model: ir.Model) -> list[str]:
    """Optimise a fresh export in place, and return the names of its weights, in the order of the modules.

    Constants are folded, and with them the exporter's arithmetic on shapes; those that are nearly 0 or 1 are not taken
    for it. Weights are left alone: batch norms stay apart (every engine folds them), equal tensors stay two, and a
    matrix that the graph takes transposed is stored so, under its parameter's name with `.T` appended. So a graph holds
    exactly the parameters that its outputs depend on, under names by which they can be replaced. Nodes are named after
    the modules they come from, since engines report times by those names; all other traces of the exporting machine are
    removed.
    """
    _transpose_weights(model.graph)
    weights = list(model.graph.initializers)
    with _folding(model, weights), _matching_slices_alone():
        onnxscript.optimizer.optimize(model)
    _name_nodes(model.graph)
    _clear_metadata(model)
    return [name for name in weights if name in model.graph.initializers]


def inline(model: ir.Model, weights: Collection[str]) -> None:
    """Replace the nodes of an optimised model's functions by their bodies, in place, and fold what can be folded."""
    for node in model.graph:
        if node.op_identifier() in model.functions:
            node.metadata_props[_SCOPES] = repr([node.name, ""])  # inlining hands it on to the body's nodes
    ir.passes.common.InlinePass()(model)
    ir.passes.common.RemoveUnusedOpsetsPass()(model)
    with _folding(model, weights):
        ir.passes.common.IdentityEliminationPass()(model)
    _name_nodes(node for node in model.graph if _SCOPES in node.metadata_props)
    _clear_metadata(model)


@contextmanager
def _matching_slices_alone() -> Iterator[None]:
    """Try the optimiser's rule for two Slices at Slices alone.

    It lists all nodes of the graph for each node that it is tried at, which costs time with the square of their number.
    """
    try_rewrite = slice_split_rule.try_rewrite

    def try_at_slice(model: ir.Model, graph: ir.Graph, node: ir.Node, **options: Any) -> Any:
        return try_rewrite(model, graph, node, **options) if node.op_type == "Slice" else None

    vars(slice_split_rule)["try_rewrite"] = try_at_slice
    try:
        yield
    finally:
        del vars(slice_split_rule)["try_rewrite"]


def _transpose_weights(graph: ir.Graph) -> None:
    """Store the matrices of linear layers as the graph multiplies by them; the optimiser would make them anonymous."""
    editor = GraphEditor(graph)
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or not source.is_initializer() or source.const_value is None:
            continue
        if tuple(node.attributes["perm"].as_ints()) != (1, 0):
            continue
        transposed = editor.add_weight(f"{source.name}.T", np.ascontiguousarray(source.const_value.numpy().T))
        node.outputs[0].replace_all_uses_with(transposed)
        graph.remove(node, safe=True)
        if not source.uses():
            graph.initializers.pop(str(source.name))


@contextmanager
def _folding(model: ir.Model, weights: Collection[str]) -> Iterator[None]:
    """Fold constants, let the block do more with the weights out of its reach, and tidy up the constants."""
    graph = model.graph
    with _as_inputs(graph, weights):
        onnxscript.optimizer.fold_constants(model)
        onnxscript.optimizer.remove_unused_nodes(model)
        ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        nearly = [name for name, value in graph.initializers.items() if _is_nearly_neutral(value)]
        with _as_inputs(graph, nearly):
            yield
    GraphEditor(graph).drop_unused_weights()
    for number, value in enumerate([value for name, value in graph.initializers.items() if name not in weights]):
        value.name = f"constant.{number}"


def _is_nearly_neutral(value: ir.Value) -> bool:
    """Whether a constant has an element that is not 0 or 1, and would be taken for it."""
    if value.const_value is None or not value.const_value.dtype.is_floating_point():
        return False
    array = np.abs(value.const_value.numpy().astype(np.float64))
    nearly = (array <= _ABSOLUTE) & (array != 0) | (np.abs(array - 1) <= 2 * _RELATIVE) & (array != 1)
    return bool(nearly.any())


@contextmanager
def _as_inputs(graph: ir.Graph, weights: Collection[str]) -> Iterator[None]:
    """Show weights as inputs of the graph, so that no pass can fold, merge or fuse them."""
    hidden = [graph.initializers.pop(name) for name in weights if name in graph.initializers]
    tensors = [value.const_value for value in hidden]
    for value in hidden:
        value.const_value = None
    inputs = len(graph.inputs)
    graph.inputs.extend(hidden)
    try:
        yield
    finally:
        del graph.inputs[inputs:]
        for value, tensor in zip(hidden, tensors, strict=True):
            value.const_value = tensor
            graph.register_initializer(value)


def _name_nodes(nodes: Iterable[ir.Node]) -> None:
    """Name nodes `module.path/Operator`, numbered where that repeats."""
    used: Counter[str] = Counter()
    for node in nodes:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "['']"))
        modules = [scope for scope in scopes[:-1] if scope]
        name = f"{modules[-1]}/{node.op_type}" if modules else node.op_type
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"


def _clear_metadata(model: ir.Model) -> None:
    """Remove stack traces with local paths, and other notes of the exporter and the optimiser."""
    ir.passes.common.ClearMetadataAndDocStringPass()(model)
    for values in (model.graph.inputs, model.graph.initializers.values(), *(node.outputs for node in model.graph)):
        for value in values:
            value.metadata_props.clear()
            value.doc_string = None
    model.doc_string = None
    model.metadata_props.clear()
