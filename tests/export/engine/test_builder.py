"""A TensorRT that makes nothing, as where CUDA does not start: an error with what it logged, not a Python traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avsbg.export.engine.api import TensorRT
from avsbg.export.engine.builder import ParseError, build_engine, parse_onnx
from avsbg.export.engine.request import BuildError, EngineRequest
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.engine_record import DeviceRecord
from avsbg.runtime.errors import BackendError
from fixtures.fake_tensorrt_builder import Recording, fake_tensorrt

VERSION = "10.13.3"
REQUEST = EngineRequest("tensorrt", "fp32", "plain")


def _build(bundle: Bundle, recording: Recording) -> None:
    graph = bundle.graph("clip.plain")
    build_engine(
        TensorRT("tensorrt", fake_tensorrt(VERSION, recording), VERSION),
        bundle.file(graph.file),
        graph,
        request=REQUEST,
        device=DeviceRecord(compute_capabilities=(87,), name="Orin"),
        plugin=None,
        progress=lambda *_: None,
    )


@pytest.mark.parametrize(
    ("missing", "error", "what"),
    [
        ("Builder", BackendError, "a builder"),
        ("create_network", BackendError, "a network"),
        ("OnnxParser", BackendError, "a parser"),
        ("create_builder_config", BackendError, "a configuration"),
        ("create_optimization_profile", BackendError, "an optimisation profile"),
        ("Runtime", BackendError, "a runtime"),
        ("create_execution_context", BuildError, "an execution context of the plan that was just built"),
        ("create_engine_inspector", BuildError, "an inspector of the plan that was just built"),
    ],
)
def test_what_cannot_be_made_is_named(tiny: Bundle, missing: str, error: type[Exception], what: str) -> None:
    with pytest.raises(
        error, match=rf"TensorRT cannot make {what}.*: CUDA initialization failure.*: 35\. `avsbg doctor`"
    ):
        _build(tiny, Recording(VERSION, missing=missing))


def test_a_wrong_call_is_no_failure_of_the_gpu(tiny: Bundle) -> None:
    module = fake_tensorrt(VERSION, Recording(VERSION))
    with pytest.raises(TypeError, match="positional argument"):
        parse_onnx(_with(module, OnnxParser=lambda _: None), None, tiny.path)


def test_a_parser_that_gives_no_reason(tmp_path: Path) -> None:
    class Parser:
        num_errors = 0

        def __init__(self, *_: object) -> None:
            pass

        def parse_from_file(self, _: str) -> bool:
            return False

    module = _with(fake_tensorrt(VERSION, Recording(VERSION)), OnnxParser=Parser)
    with pytest.raises(ParseError, match=r"cannot parse .*clip\.onnx: it gives no reason"):
        parse_onnx(module, None, tmp_path / "clip.onnx")


def _with(module: Any, **changes: Any) -> Any:
    vars(module).update(changes)
    return module
