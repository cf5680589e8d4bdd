"""Backends as users name them."""

from __future__ import annotations

import pytest

from avsbg.runtime.backends import BackendSpec, OperatorImplementation, create
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
    ("text", "problem"),
    [
        ("", "it begins with a colon or is empty"),
        (":", "it begins with a colon or is empty"),
        ("onnxruntime:", "'' is neither an implementation nor a precision"),
        (":native", "it begins with a colon or is empty"),
        ("torch:fp16:fp32", "'fp32' is a second precision"),
        ("torch:published:efficient", "'efficient' is a second operator"),
        ("onnxruntime:magic", "'magic' is neither an implementation nor a precision"),
        ("onnxruntime:native:magic:fp16", "'magic' is neither an implementation nor a precision"),
        ("openvino:rest-int7", "'rest-int7' is neither an implementation nor a precision"),
    ],
)
def test_a_backend_that_cannot_be_read_is_named_with_its_wrong_part(text: str, problem: str) -> None:
    syntax = r"BACKEND\[:IMPLEMENTATION\]\[:PRECISION\]"
    with pytest.raises(BackendError, match=rf"names no backend; a backend is named {syntax}, and {problem}\."):
        BackendSpec.parse(text)


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
    with pytest.raises(BackendError, match=r"no graph 'clip\.plain\.fp16'.*avsbg quantize .* --precision fp16"):
        create("onnxruntime", tiny, operator="plain", precision="fp16")
    with pytest.raises(BackendError, match="no tf32"):
        create("onnxruntime", tiny, precision="tf32")
    with create("onnxruntime", tiny, precision="fp32") as backend:
        assert backend.graph == "clip" and backend.describe()["precision"] == "fp32"
