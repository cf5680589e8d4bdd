"""Targets as users write them."""

from __future__ import annotations

import pytest

from avsbg.runtime.backends import BackendSpec, create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("onnxruntime", BackendSpec("onnxruntime")),
        ("torch:published", BackendSpec("torch", "published")),
        ("tensorrt:fp16", BackendSpec("tensorrt", None, "fp16")),
        ("onnxruntime:native:int8", BackendSpec("onnxruntime", "native", "int8")),
    ],
)
def test_a_target_reads_as_it_is_written(text: str, target: BackendSpec) -> None:
    assert BackendSpec.parse(text) == target
    assert str(target) == text


def test_form_and_precision_come_in_either_order() -> None:
    assert BackendSpec.parse("onnxruntime:int8:native") == BackendSpec("onnxruntime", "native", "int8")


@pytest.mark.parametrize("text", ["", ":", "onnxruntime:", ":native", "torch:fp16:fp32", "torch:published:efficient"])
def test_what_is_no_target_is_named(text: str) -> None:
    with pytest.raises(BackendError, match=r"is not a target; a target is BACKEND\[:FORM\]\[:PRECISION\]"):
        BackendSpec.parse(text)


def test_a_precision_that_the_bundle_does_not_have(tiny: Bundle) -> None:
    with pytest.raises(BackendError, match=r"no graph 'clip\.plain\.fp16'.*avsbg convert .* --precision fp16"):
        create("onnxruntime", tiny, operator="plain", precision="fp16")
    with pytest.raises(BackendError, match="no tf32"):
        create("onnxruntime", tiny, precision="tf32")
    with create("onnxruntime", tiny, precision="fp32") as backend:
        assert backend.graph == "clip" and backend.describe()["precision"] == "fp32"
