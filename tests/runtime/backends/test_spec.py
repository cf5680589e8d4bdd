"""Backends as users name them."""

from __future__ import annotations

import pytest

from avsbg.cli.options import BACKEND_SYNTAX
from avsbg.runtime.backends import BackendSpec, OperatorImplementation, create
from avsbg.runtime.backends.spec import SYNTAX
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("onnxruntime", BackendSpec("onnxruntime")),
        ("torch:published", BackendSpec("torch", OperatorImplementation.PUBLISHED)),
        ("tensorrt:fp16", BackendSpec("tensorrt", None, "fp16")),
        ("onnxruntime:native:int8", BackendSpec("onnxruntime", OperatorImplementation.NATIVE, "int8")),
        ("openvino:rest-bf16:int8", BackendSpec("openvino", None, "int8", rest="bf16")),
    ],
)
def test_a_backend_reads_as_it_is_written(text: str, spec: BackendSpec) -> None:
    assert BackendSpec.parse(text) == spec
    assert str(spec) == text


def test_implementation_and_precision_come_in_either_order() -> None:
    spec = BackendSpec("onnxruntime", OperatorImplementation.NATIVE, "int8")
    assert BackendSpec.parse("onnxruntime:int8:native") == spec
    assert BackendSpec.parse("openvino:int8:rest-bf16") == BackendSpec("openvino", None, "int8", rest="bf16")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "onnxruntime:",
        ":native",
        "torch:fp16:fp32",
        "torch:published:efficient",
        "onnxruntime:magic",
        "openvino:rest-int7",
    ],
)
def test_a_backend_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(BackendError, match=r"names no backend; a backend is named BACKEND\[:IMPLEMENTATION\]"):
        BackendSpec.parse(text)
    assert BACKEND_SYNTAX == SYNTAX


@pytest.mark.parametrize(
    ("implementation", "form"),
    [
        ("efficient", None),
        ("published", None),
        ("function", "custom"),
        ("native", "custom"),
        ("plugin", "custom"),
        ("plain", "plain"),
    ],
)
def test_the_graph_that_an_implementation_needs(implementation: str, form: str | None) -> None:
    assert OperatorImplementation(implementation).graph_form == form
    assert str(OperatorImplementation(implementation)) == f"{OperatorImplementation(implementation)}" == implementation


def test_a_precision_that_the_bundle_does_not_have(tiny: Bundle) -> None:
    with pytest.raises(BackendError, match=r"no graph 'clip\.plain\.fp16'.*avsbg convert .* --precision fp16"):
        create("onnxruntime", tiny, operator="plain", precision="fp16")
    with pytest.raises(BackendError, match="no tf32"):
        create("onnxruntime", tiny, precision="tf32")
    with create("onnxruntime", tiny, precision="fp32") as backend:
        assert backend.graph == "clip" and backend.describe()["precision"] == "fp32"
