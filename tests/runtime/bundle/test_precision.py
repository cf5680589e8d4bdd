"""The table of precisions: adding one is one entry, and everything that depends on a precision takes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import TypeAdapter, ValidationError

from avsbg.export.engine.layers import layers_from_inspector
from avsbg.export.engine.request import EngineRequest
from avsbg.export.precision.quantize import quantize
from avsbg.runtime.backends.spec import BackendSpec
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import MANIFEST, Manifest, schema
from avsbg.runtime.bundle.precision import PRECISIONS, PrecisionSpec, QuantizationSpec, converted_precisions
from avsbg.runtime.bundle.record_types import Precision, QuantizedPrecision
from fixtures.cli import run_avsbg


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> PrecisionSpec:
    """A precision that does not exist, as one entry of the table."""
    spec = PrecisionSpec(
        "fp7",
        bytes=1,
        min_miou=0.9,
        tolerance=0.3,
        onnx_type="FLOAT8E5M2",
        quantization=QuantizationSpec(57344.0, "max"),
        tensorrt_names=("E5M2",),
        min_compute_capability=120,
        alternative="fp8",
    )
    monkeypatch.setitem(PRECISIONS, spec.name, spec)
    return spec


def test_every_record_stands_under_its_name_and_no_two_share_one_of_another_tool() -> None:
    assert list(PRECISIONS) == ["fp32", "tf32", "fp16", "bf16", "int8", "fp8"]
    assert all(name == spec.name for name, spec in PRECISIONS.items())
    assert converted_precisions() == ["fp16", "bf16", "int8", "fp8"]
    for attribute in ("openvino_names", "tensorrt_names"):
        names = [name for spec in PRECISIONS.values() for name in getattr(spec, attribute)]
        assert len(names) == len(set(names)) > 0
    for spec in PRECISIONS.values():
        assert spec.openvino_hint is None or spec.openvino_hint in spec.openvino_names
        assert spec.onnx_type in ir.DataType.__members__ and spec.feature_type in ir.DataType.__members__
        assert not spec.emulated or spec.cpu_limitation


def test_an_unknown_precision_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ValidationError, match="Input should be 'fp32', 'tf32', 'fp16', 'bf16', 'int8' or 'fp8'"):
        TypeAdapter(Precision).validate_python("fp7")
    with pytest.raises(ValidationError, match="Input should be 'int8' or 'fp8'"):
        TypeAdapter(QuantizedPrecision).validate_python("fp16")


def test_a_made_up_precision_is_a_backend_specification_and_a_request(made_up: PrecisionSpec) -> None:
    assert BackendSpec.parse("tensorrt:plugin:fp7") == BackendSpec("tensorrt", "plugin", "fp7")
    assert GraphName.parse("clip.plain.fp7") == GraphName("clip", is_plain=True, precision="fp7")
    assert EngineRequest("tensorrt", "fp7").engine_name((120,)).startswith("clip.fp7.plugin.")


def test_a_made_up_precision_is_read_from_a_manifest(made_up: PrecisionSpec, tiny: Bundle) -> None:
    document = json.loads((tiny.path / MANIFEST).read_text())
    document["graphs"]["clip"]["precision"] = "fp7"
    assert Manifest.model_validate(document).graphs["clip"].precision == "fp7"
    assert TypeAdapter(QuantizedPrecision).validate_python("fp7") == "fp7"
    definitions = json.loads(schema())
    # pydantic keeps the schema that it made when the class was; a new process makes one with the new entry.
    assert "enum" in definitions["$defs"]["GraphRecord"]["properties"]["precision"]
    assert TypeAdapter(Precision).json_schema()["enum"][-1] == "fp7"


def test_graphs_are_quantized_to_a_made_up_precision(made_up: PrecisionSpec) -> None:
    x = ir.Value(name="x", shape=ir.Shape([2, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.val("w", const_value=ir.tensor(np.eye(4, dtype=np.float32), name="w"))
    node = ir.node("MatMul", [x, weight], name="product")
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 4])
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 20}, name="g")
    assert quantize(ir.Model(graph, ir_version=10), "fp7", {"product": 2.0}, ["product"]) == 1
    stored = graph.initializers["w.quantised"].const_value
    assert stored is not None and stored.dtype is ir.DataType.FLOAT8E5M2
    assert stored.numpy().astype(np.float32).max() == made_up.quantization.max_level  # type: ignore[union-attr]


def test_the_layers_of_an_engine_are_told_in_a_made_up_precision(made_up: PrecisionSpec) -> None:
    tensor = {"Name": "x", "Dimensions": [4, 4], "Format/Datatype": "Row major linear E5M2 format"}
    (layer,) = layers_from_inspector(json.dumps({"Layers": [{"Name": "l", "LayerType": "gemm", "Inputs": [tensor]}]}))
    assert layer.inputs == ("fp7",)


def test_convert_offers_a_made_up_precision(made_up: PrecisionSpec, tiny: Bundle, tmp_path: Path) -> None:
    unknown = run_avsbg("quantize", tmp_path, "--precision", "fp9")
    assert getattr(unknown.error, "hint", None) == "Choose: fp16, bf16, int8, fp8, fp7."
    uncalibrated = run_avsbg("quantize", tiny.path, "--precision", "fp7")
    assert "has not been calibrated for fp7" in str(uncalibrated.error)


@pytest.mark.parametrize(("command", "names"), [("quantize", converted_precisions()), ("build", list(PRECISIONS))])
def test_the_help_of_a_command_names_every_precision(command: str, names: list[str]) -> None:
    shown = run_avsbg(command, "--help").output
    assert [name for name in names if name not in shown] == []


def test_benchmarks_measure_a_made_up_precision(made_up: PrecisionSpec, tmp_path: Path) -> None:
    from avsbg.benchmarks.errors import BenchmarkError
    from avsbg.benchmarks.measure.precision import measure_precisions

    measure_precisions([], tmp_path / "rows.jsonl", lambda *_: None, precisions=["fp7"])
    with pytest.raises(BenchmarkError, match=r"--precision fp9 does not exist.*, fp7\."):
        measure_precisions([], tmp_path / "rows.jsonl", lambda *_: None, precisions=["fp9"])
