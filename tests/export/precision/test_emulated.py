"""bf16 and tf32, emulated: the rounding bit for bit, where it happens, what it costs, and that it is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from avsbg.export.precision import emulated
from avsbg.export.precision.accuracy import measure_accuracy
from avsbg.export.precision.emulated import EmulatedBackend, emulate, label, round_tf32
from avsbg.export.sessions import temporary_session
from avsbg.runtime.backends.base import check_accuracy
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.engine_record import AccuracyRecord
from avsbg.runtime.errors import BackendError
from fixtures.cli import run_avsbg

# Every significand of float32, with one exponent: each tie and each neighbour of one, with every bit that is kept.
BINADE = np.arange(0x3F800000, 0x40000000, dtype=np.uint32).view(np.float32)
_RANDOM = np.random.default_rng(0).integers(0, 2**32, 2**18, dtype=np.uint64).astype(np.uint32).view(np.float32)
_NORMAL = np.isfinite(_RANDOM) & (np.abs(_RANDOM) >= np.finfo(np.float32).tiny)
LARGEST = np.finfo(np.float32).max
HARD = np.array([0.0, -0.0, 1 + 2**-11, -1 - 2**-11, 1 + 3 * 2**-11, 257, 259, -257, LARGEST, -LARGEST], np.float32)


def _model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], inputs: int = 1) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def _run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    with temporary_session(model, threads=1) as session:
        return session.run({"x": x})["logits"]


def _rounded_operands(values: np.ndarray, precision: str) -> np.ndarray:
    """The values as a product sees them: each is multiplied by 1."""
    model = _model([helper.make_node("MatMul", ["x", "w"], ["logits"], "m")], {"w": np.ones((1, 1), np.float32)})
    emulate(model, precision)
    return _run(model, values.reshape(-1, 1)).reshape(-1)


def _half_away(values: np.ndarray, bits: int) -> np.ndarray:
    """Rounded to so many significant bits, ties away from zero, by arithmetic that is exact in double precision."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    with np.errstate(over="ignore"):
        whole = np.trunc(fraction * 2**bits + np.copysign(0.5, fraction))
        return np.ldexp(whole, exponent - bits).astype(np.float32)


def _same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


def test_tf32_is_rounded_to_nearest_with_ties_away_from_zero() -> None:
    values = np.concatenate([BINADE, -BINADE[::7], _RANDOM[_NORMAL], HARD])
    _same_bits(round_tf32(values), _half_away(values, 11))
    np.testing.assert_array_equal(
        round_tf32(np.array([np.inf, -np.inf, np.nan], np.float32)), [np.inf, -np.inf, np.nan]
    )


def test_a_graph_rounds_to_tf32_as_integers_do() -> None:
    values = np.concatenate([BINADE, -BINADE[::7], _RANDOM[_NORMAL], HARD])
    # A product with 1 adds to +0, so that the sign of a zero is lost.
    _same_bits(_rounded_operands(values, "tf32"), round_tf32(values) + np.float32(0))


def test_a_graph_rounds_to_bfloat16_as_its_conversions_do() -> None:
    tiny = np.array([2.0**-149, 2.0**-133, 2.0**-134, 3 * 2.0**-134], np.float32)
    values = np.concatenate([BINADE, -BINADE[::7], _RANDOM[~np.isnan(_RANDOM)], HARD, tiny])
    with np.errstate(over="ignore"):
        wanted = values.astype(ml_dtypes.bfloat16).astype(np.float32) + np.float32(0)
    _same_bits(_rounded_operands(values, "bf16"), wanted)
    _same_bits(wanted, torch.from_numpy(values).bfloat16().float().numpy() + np.float32(0))
    assert np.isnan(_rounded_operands(np.array([np.nan], np.float32), "bf16")).all()


def test_bfloat16_results_are_stored_rounded_and_sums_are_not() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "ones"], ["sum"], "sum"),
        helper.make_node("Add", ["sum", "one"], ["next"], "next"),
        helper.make_node("Mul", ["next", "one"], ["logits"], "last"),
    ]
    model = _model(nodes, {"ones": np.ones((3, 1), np.float32), "one": np.ones(1, np.float32)}, inputs=3)
    exact = _run(model.clone(), x := np.array([[256, 1, 1], [256, 1, 0], [256, 2, 0]], np.float32))
    emulate(model, "bf16")
    # 256 + 1 + 1 is 258 when summed in float32 (a sum in bfloat16 stays at 256); 257 is stored as 256, 259 as 260.
    assert exact.ravel().tolist() == [259, 258, 259]
    assert _run(model, x).ravel().tolist() == [260, 256, 260]


def test_tf32_rounds_what_products_take_and_nothing_else() -> None:
    weight = np.array([[1 + 2.0**-12, 0.3], [1 / 3, 0.7]], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], "product"),
        helper.make_node("Add", ["product", "b"], ["logits"], "add"),
    ]
    bias = np.array([2.0**-20, 1 / 3], np.float32)
    model = _model(nodes, {"w": weight, "b": bias}, inputs=2)
    emulate(model, "tf32")
    x = np.array([[1, 0], [0, 1], [1 + 2.0**-12, 0]], np.float32)
    _same_bits(_run(model, x), (round_tf32(x) @ round_tf32(weight) + bias).astype(np.float32))
    assert not np.array_equal(round_tf32(weight), weight)


@pytest.fixture(scope="module")
def bundle(export_once) -> Bundle:  # type: ignore[no-untyped-def]
    return export_once("avs-bg as published, embedding").bundle


def test_a_networks_errors_are_of_the_types_size(bundle: Bundle) -> None:
    vectors = next(bundle.vectors())
    with OnnxRuntimeBackend(bundle, threads=1) as backend:
        reference = backend.run(vectors.inputs)["logits"]
    errors = {}
    for precision in ("tf32", "bf16"):
        with EmulatedBackend(bundle, precision=precision, threads=1) as backend:
            logits = backend.run(vectors.inputs)["logits"]
            assert backend.describe()["precision"] == f"{precision} (emulated)" == label(precision)
        errors[precision] = float(np.sqrt(np.mean((logits - reference) ** 2)) / reference.std())
    # A value is off by at most 2^-11 and 2^-8 of itself; over some fifty layers, some of that adds up.
    assert 2**-13 < errors["tf32"] < 2**-7
    assert 4 < errors["bf16"] / errors["tf32"] < 32


def test_the_operators_body_and_the_plain_graph_are_emulated_alike(bundle: Bundle) -> None:
    custom, plain = (measure_accuracy(bundle, graph, precision="tf32") for graph in ("clip", "clip.plain"))
    assert custom.emulated and plain.emulated
    assert custom.largest_difference == pytest.approx(plain.largest_difference, rel=0.5)


def test_convert_measures_bf16_and_says_that_it_is_emulated(bundle: Bundle, tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    result = run_avsbg("quantize", path, "--precision", "bf16")
    assert result.code == 0, result.output
    assert "clip.bf16 (emulated): mIoU" in result.output
    changed = Bundle.open(path)
    record = changed.graph("clip.bf16").accuracy
    assert record is not None and record.emulated and record.min_miou == 0.95 and record.largest_difference > 0
    # From the graph in bfloat16 as from the float32 graph: what is emulated is the same.
    assert measure_accuracy(changed, "clip", record.min_miou, precision="bf16") == record


def test_a_gate_that_failed_in_emulation_says_so() -> None:
    record = AccuracyRecord(largest_difference=1.0, flipped=0.5, miou=0.5, min_miou=0.95, passed=False, emulated=True)
    with pytest.raises(BackendError, match=r"mean IoU of 0\.5000 with PyTorch's \(emulated\)"):
        check_accuracy("the engine", record, allow_failed=False)
    assert check_accuracy("the engine", record, allow_failed=True)["emulated"] is True


def test_what_is_not_emulated_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match=r"fp16 is not emulated.*tf32, bf16"):
        EmulatedBackend(bundle, precision="fp16")


def test_an_engine_that_removes_the_rounding_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in ("tf32", "bf16"):
        emulated.check_rounding(precision)
    monkeypatch.setattr(emulated, "emulate", lambda *_: None)
    for precision in ("tf32", "bf16"):
        backend = EmulatedBackend(bundle, precision=precision)
        with pytest.raises(BackendError, match=f"does not round to {precision}"), backend:
            pass
