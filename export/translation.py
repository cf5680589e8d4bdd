"""From a PyTorch module to an ONNX model, by PyTorch's exporter.

The exporter traces a module once to capture its operations, and the captured program twice more to decompose composite
operators and to get rid of those that change a tensor in place. That takes most of an export. Here the few operators
of our networks that need either are translated or replaced as they are, and the program is traced once. A program that
has others is left to the exporter, which gives the same model.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
# Operators whose result is never the memory of another tensor: schemas do not tell for all others.
_NEW_TENSORS = {
    *_OUT_OF_PLACE.values(),
    _aten.batch_norm.default,
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.mul.Tensor,
}
_ASSERTIONS = {_aten._assert_scalar.default, _aten._assert_tensor_metadata.default}


def translate(module: ClipGraph, shape: ClipShape, report: Callable[[str], None]) -> ir.Model:
    """Translate a graph module to an ONNX model in which each operation of PyTorch is a node or a few.

    `report` is told why a program could not be traced once, which makes no difference but in time.
    """
    inputs = module.example(shape)
    shapes = module.dynamic_shapes({0: torch.export.Dim(module.BATCH)})
    onnx_operators.register_schemas()

    def export(source: torch.nn.Module | ExportedProgram, table: onnx_operators.Translations) -> ir.Model:
        program = torch.onnx.export(
            source,
            tuple(inputs.values()),
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(module.outputs),
            dynamic_shapes=shapes,
            custom_translation_table=table,
            verbose=False,
        )
        assert program is not None  # only without dynamo
        model: ir.Model = program.model
        return model

    with warnings.catch_warnings(), torch.no_grad(), _no_garbage_collection():
        # The inputs share the dimension on purpose; the exporter warns that it keeps one name for all.
        warnings.filterwarnings("ignore", message=f".*The axis name: {module.BATCH} will not be used.*")
        table, model = onnx_operators.translations(), None
        reason = "an operator changes a tensor in place that others may see"
        try:
            program = torch.export.export(
                module,
                tuple(inputs.values()),
                dynamic_shapes=shapes,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            if simplify(program):
                program.run_decompositions = lambda *_: program  # the exporter calls it
                model = export(program, table | onnx_operators.composite_translations())
        except Exception as error:  # of PyTorch's, of any kind: what is wrong with the module itself is raised below
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        if model is None:
            report(f"decomposing all operators, which takes longer: {reason}")
            model = export(module, table)
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
        elif node.target is _aten.to.device and _keeps_type(node) and True in node.args[4:]:  # copy=True
            node.target, node.args = _aten.clone.default, node.args[:1]
        elif _is_identity(node):
            if _is_output(node):  # the program's signature has its name
                return False
            node.replace_all_uses_with(_first(node))
            graph.erase_node(node)
        elif _is_mutable(node):
            if not _can_be_out_of_place(node):
                return False
            node.target = _OUT_OF_PLACE[node.target]
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return True


def _is_identity(node: torch.fx.Node) -> bool:
    """Whether a node returns its first argument, as far as a forward pass on one device is concerned."""
    if node.target is _aten.dropout.default:
        return node.args[2:] == (False,)
    if node.target is _aten.to.device:
        return _keeps_type(node) and not node.kwargs
    return node.target is _aten.detach_.default


def _keeps_type(node: torch.fx.Node) -> bool:
    kept: bool = node.meta["val"].dtype == _first(node).meta["val"].dtype
    return kept


def _can_be_out_of_place(node: torch.fx.Node) -> bool:
    """Whether nothing but its result can tell that a node changes its first argument.

    Capturing has already made it the operand of what comes later, so that the argument has no other user.
    """
    changed = _first(node)
    types = {one.meta["val"].dtype for one in node.all_input_nodes if "val" in one.meta}
    is_known = node.target in _OUT_OF_PLACE and changed.target in _NEW_TENSORS
    return is_known and len(changed.users) == 1 and len(types) == 1  # `add_` keeps its type, and `add` promotes


def _first(node: torch.fx.Node) -> torch.fx.Node:
    argument = node.args[0]
    assert isinstance(argument, torch.fx.Node)
    return argument


def _is_output(node: torch.fx.Node) -> bool:
    return any(user.op == "output" for user in node.users)


def _is_mutable(node: torch.fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


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
