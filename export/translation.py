"""From a PyTorch module to an ONNX model, by PyTorch's exporter.

The exporter traces a module once to capture its operations, and the captured program twice more to decompose composite
operators and to get rid of those that change a tensor in place. That takes most of an export. Here the few operators
of our networks that need either are translated or replaced as they are, and the program is traced once. A program that
has others is left to the exporter, which gives the same model.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import onnx_ir as ir
import torch
from torch.export import ExportedProgram

from avsbg.export import operators as onnx_operators
from avsbg.export.graphs import ClipGraph
from avsbg.export.shape import ClipShape

# The latest version that onnxruntime, TensorRT from 10.3 on and OpenVINO all take; it has Gelu as one node.
OPSET = 20
IR_VERSION = 10

_aten = torch.ops.aten
# Operators that change their first argument in place, and those that return the changed tensor instead.
_OUT_OF_PLACE = {
    _aten.add_.Tensor: _aten.add.Tensor,
    _aten.hardtanh_.default: _aten.hardtanh.default,
    _aten.relu_.default: _aten.relu.default,
}
_IDENTITIES = {_aten.detach_.default, _aten.to.device}
_ASSERTIONS = {_aten._assert_scalar.default, _aten._assert_tensor_metadata.default}


def translate(module: ClipGraph, shape: ClipShape) -> ir.Model:
    """Translate a graph module to an ONNX model in which each operation of PyTorch is a node or a few."""
    inputs = module.example(shape)
    shapes = module.dynamic_shapes({0: torch.export.Dim(module.BATCH)})
    onnx_operators.register_schemas()

    def export(source: torch.nn.Module | ExportedProgram) -> ir.Model:
        program = torch.onnx.export(
            source,
            tuple(inputs.values()),
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(module.outputs),
            dynamic_shapes=shapes,
            custom_translation_table=onnx_operators.translation_table(),
            verbose=False,
        )
        assert program is not None  # only without dynamo
        model: ir.Model = program.model
        return model

    with warnings.catch_warnings(), torch.no_grad(), _no_garbage_collection():
        # The inputs share the dimension on purpose; the exporter warns that it keeps one name for all.
        warnings.filterwarnings("ignore", message=f".*The axis name: {module.BATCH} will not be used.*")
        model = None
        with suppress(Exception):  # no capture in this way, or an operator without translation: left to the exporter
            program = torch.export.export(
                module,
                tuple(inputs.values()),
                dynamic_shapes=shapes,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            if simplify(program):
                program.run_decompositions = lambda *_: program  # the exporter calls it
                model = export(program)
        model = model or export(module)
    model.ir_version = IR_VERSION
    return model


def simplify(program: ExportedProgram) -> bool:
    """Replace operators that change a tensor in place, and remove those without effect, in the captured program.

    Returns:
        Whether none is left that changes a tensor in place. The program must not be used otherwise.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target in _ASSERTIONS:
            graph.erase_node(node)
        elif _is_identity(node):
            if _is_output(node):  # the program's signature has its name
                return False
            node.replace_all_uses_with(_first(node))
            graph.erase_node(node)
        elif _is_mutable(node):
            changed = _first(node)
            if node.target not in _OUT_OF_PLACE or changed.op != "call_function":
                return False
            if _has_views(changed) or _is_output(changed):
                return False
            node.target = _OUT_OF_PLACE[node.target]
            later = _after(node)
            changed.replace_all_uses_with(node, lambda user: user in later)  # noqa: B023  (called at once)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return True


def _is_identity(node: torch.fx.Node) -> bool:
    """Whether a node returns its first argument, as far as a forward pass on one device is concerned."""
    if node.target is _aten.dropout.default:
        return node.args[2:] == (False,)
    return node.target in _IDENTITIES and node.meta["val"].dtype == _first(node).meta["val"].dtype


def _first(node: torch.fx.Node) -> torch.fx.Node:
    argument = node.args[0]
    assert isinstance(argument, torch.fx.Node)
    return argument


def _is_output(node: torch.fx.Node) -> bool:
    return any(user.op == "output" for user in node.users)


def _is_mutable(node: torch.fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _has_views(node: torch.fx.Node) -> bool:
    """Whether a node's result may share memory with another's: it is a view, or there is a view of it."""
    return any(_is_view(one) for one in (node, *node.users))


def _is_view(node: torch.fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # as `getitem` of a list of views
        return node.op == "call_function"
    return not schema.is_mutable and any(one.alias_info is not None for one in schema.returns)


def _after(node: torch.fx.Node) -> set[torch.fx.Node]:
    found = set()
    while node.next.op != "root":
        node = node.next
        found.add(node)
    return found


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Leave cyclic garbage until the end: a tenth of the time of tracing went into looking for it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
