"""The rounding of bf16 and tf32, which no runtime on the CPU computes in, emulated in a float32 graph.

A strongly typed engine multiplies operands that have the type, accumulates in float32, and stores as bfloat16 what the
graph says is bfloat16. An emulated graph computes in float32 and rounds where the engine would; every value that the
engine holds in the type lies on the type's grid. The order of sums is the engine's own, and so is whether it rounds
between two operators that it fuses: the emulation rounds after each.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from avsbg.export.editor import GraphEditor, fold_batch_norms, infer_types, load_graph
from avsbg.export.precision.convert import convert
from avsbg.export.precision.rules import is_compute_layer
from avsbg.export.sessions import Session, temporary_session
from avsbg.runtime.backends.base import Backend, DeviceTensor, Inputs, Results
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.errors import BackendError

FLOAT, BFLOAT16, DOUBLE = ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.DOUBLE
# They move or select values, so that what is on bfloat16's grid stays there.
_MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Relu", "Reshape", "Slice", "Split"}
)
_MOVES |= {"Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"}
# tf32 keeps 11 significant bits, one of them implied.
_TF32_DROPPED = 13


def label(precision: str) -> str:
    """The name of an emulated precision in tables, records and messages."""
    return f"{precision} (emulated)"


def round_tf32(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to tf32: to nearest, ties away from zero, as `cvt.rna.tf32.f32` does; what is not finite stays."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    half, dropped = np.uint32(1 << (_TF32_DROPPED - 1)), np.uint32((1 << _TF32_DROPPED) - 1)
    rounded = ((bits + half) & ~dropped).view(np.float32)
    return np.where(np.isfinite(array), rounded, array)


def emulate(model: ir.Model, precision: str) -> None:
    """Rewrite a model in place so that it computes in float32 and rounds as an engine of a precision would.

    Its weights are loaded, and it is the float32 graph, or for bf16 what `convert` made of it.
    """
    if precision == "tf32":
        # An engine folds them too, and rounds the weights that come out.
        fold_batch_norms(model)
        infer_types(model)
        _round_operands(model.graph)
        return
    if not any(value.dtype is BFLOAT16 for node in model.graph for value in node.outputs):
        convert(model, precision)
    _store_in_float32(model.graph)


def _store_in_float32(graph: ir.Graph) -> None:
    """Give each bfloat16 value the type float32, rounded to bfloat16."""
    for name, value in list(graph.initializers.items()):
        if value.dtype is BFLOAT16:
            assert value.const_value is not None
            array = value.const_value.numpy().astype(np.float32)
            value.const_value, value.type = ir.tensor(array, dtype=FLOAT, name=name), ir.TensorType(FLOAT)
    editor = GraphEditor(graph)
    for node in list(graph):
        casts = node.op_type == "Cast" and node.attributes.get_int("to") == int(BFLOAT16)
        if casts:
            node.attributes["to"] = ir.AttrInt64("to", int(FLOAT))
        for value in node.outputs:
            if value.dtype is BFLOAT16:
                value.type = ir.TensorType(FLOAT)
                if casts or node.op_type not in _MOVES:
                    _store_in_bfloat16(editor, value)


def _round_operands(graph: ir.Graph) -> None:
    """Round both operands of each float32 layer to tf32."""
    editor = GraphEditor(graph)
    rounded: dict[ir.Value, ir.Value] = {}
    nudge = editor.add_weight("tf32.nudge", np.asarray(2.0**-30, np.float64))
    splitter = editor.add_weight("tf32.split", np.asarray(2.0**42 + 1, np.float64))
    for node in [node for node in graph if is_compute_layer(node)]:
        for index in (0, 1):
            value = node.inputs[index]
            if value is None or value.dtype is not FLOAT:
                continue
            if value not in rounded:
                if value.is_initializer() and value.const_value is not None:
                    rounded[value] = editor.add_weight(f"{value.name}.tf32", round_tf32(value.const_value.numpy()))
                else:
                    rounded[value] = _round_to_tf32(editor, value, nudge, splitter)
            node.replace_input_with(index, rounded[value])
    editor.drop_unused_weights()


def _store_in_bfloat16(editor: GraphEditor, value: ir.Value) -> None:
    """Let all that reads `value` read it rounded: to nearest, ties to even, as in every conversion to bfloat16."""
    users = list(value.uses())
    low = editor.insert_cast(value, f"{value.name}.bf16", BFLOAT16)
    stored = editor.insert_cast(low, f"{value.name}.stored", FLOAT)
    for use in users:
        use.node.replace_input_with(use.idx, stored)


def _round_to_tf32(editor: GraphEditor, value: ir.Value, nudge: ir.Value, splitter: ir.Value) -> ir.Value:
    """As `round_tf32`, in double precision, where neither range nor ties are in the way.

    The value is moved away from zero by less than what tells it from the next float32, which decides the ties. Then
    Veltkamp's splitting (T. J. Dekker, "A floating-point technique for extending the available precision", 1971) keeps
    the 11 leading of a double's 53 bits: g - (g - x) with g = c x and c = 2^42 + 1.
    """

    def compute(operator: str, left: ir.Value, right: ir.Value, name: str) -> ir.Value:
        return editor.insert(operator, [left, right], f"{value.name}.{name}", DOUBLE)

    double = editor.insert_cast(value, f"{value.name}.double", DOUBLE)
    # Not one product with 1 + 2^-30, which ONNX Runtime takes for 1 and removes.
    x = compute("Add", compute("Mul", double, nudge, "nudge"), double, "nudged")
    g = compute("Mul", x, splitter, "split")
    low = compute("Sub", g, x, "split_low")
    high = compute("Sub", g, low, "split_high")
    return editor.insert_cast(high, f"{value.name}.tf32", FLOAT)


def check_rounding(precision: str) -> None:
    """Raise a BackendError where this ONNX Runtime does not round: optimisers remove what seems to do nothing."""
    # Ties to either side, their neighbours, and what both types hold; each is multiplied by 1.
    steps = np.arange(-3, 4, dtype=np.float32) * np.float32(2.0**-23)
    values = np.concatenate([one + steps for one in (1, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 257 / 256, 259 / 256)])
    x = ir.Value(name="x", shape=ir.Shape([len(values), 1]), type=ir.TensorType(FLOAT))
    node = ir.node("MatMul", [x, weight := ir.val("w", const_value=ir.tensor(np.ones((1, 1), np.float32), name="w"))])
    node.outputs[0].name, node.outputs[0].type = "logits", ir.TensorType(FLOAT)
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 20}, name="rounding")
    model = ir.Model(graph, ir_version=10)
    emulate(model, precision)
    with temporary_session(model, threads=1) as session:
        found = session.run({"x": values.astype(np.float32).reshape(-1, 1)})["logits"].reshape(-1)
    wanted = round_tf32(values) if precision == "tf32" else values.astype(BFLOAT16.numpy()).astype(np.float32)
    if not np.array_equal(found, wanted):
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} does not round to {precision} where the emulated graph says so: "
            f"{found[found != wanted][0]!r} for {wanted[found != wanted][0]!r}.",
            "Use the version that constraints.txt names.",
        )


class EmulatedBackend(Backend):
    """Executes a graph in ONNX Runtime, rounding as an engine of another precision would; its time says nothing.

    The graph is float32, or for bf16 one that `avsbg quantize` made; the precision one that is `emulated` in
    `PRECISIONS`. A BackendError says that it is not so, or (when it is opened) the same as `check_rounding`.
    """

    name: ClassVar[str] = "emulated"

    def __init__(self, bundle: Bundle, graph: str = "clip", *, precision: str, threads: int | None = None) -> None:
        super().__init__(bundle, graph)
        emulated = [name for name, spec in PRECISIONS.items() if spec.emulated]
        if precision not in emulated:
            raise BackendError(f"{precision} is not emulated.", f"Choose one of: {', '.join(emulated)}.")
        if (found := self.contract.precision) not in ("fp32", precision):
            raise BackendError(f"the graph {graph} is in {found}.", f"Name the one that {precision} is made from.")
        self._precision = precision
        self._threads = threads
        self._stack = ExitStack()
        self._session: Session | None = None

    def describe(self) -> dict[str, Any]:
        """The backend as it runs; `precision` says that it is emulated."""
        return {
            "backend": self.name,
            "version": onnxruntime.__version__,
            "graph": self.graph,
            "precision": label(self._precision),
            "threads": self._threads or "default",
        }

    def _open(self) -> None:
        check_rounding(self._precision)
        model = load_graph(self.bundle.file(self.contract.file))
        emulate(model, self._precision)
        self._session = self._stack.enter_context(temporary_session(model, threads=self._threads))

    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:
        assert self._session is not None
        for name, one in inputs.items():
            if isinstance(one, DeviceTensor):
                raise self._reject(name, "it takes arrays of the host")
        if device_outputs:
            raise BackendError("the backend emulated has no device outputs.", "Leave `device_outputs` out.")
        return dict(self._session.run({name: np.asarray(one) for name, one in inputs.items()}, outputs))

    def _close(self) -> None:
        self._session = None
        self._stack.close()
