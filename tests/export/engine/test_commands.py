"""The command lines of a build: NVIDIA's Polygraphy takes each of them as it stands."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from avsbg.export.engine.commands import command_lines
from avsbg.export.engine.request import EngineRequest
from avsbg.runtime.bundle.engine_record import ProfileRecord

PROFILE = {"frames": ProfileRecord(smallest=(1, 5, 64, 64, 3), optimal=(2, 5, 64, 64, 3), largest=(4, 5, 64, 64, 3))}
EVERYTHING: dict[str, Any] = {
    "workspace_mb": 64,
    "aux_streams": 0,
    "version_compatible": True,
    "strip_weights": True,
}


@pytest.mark.parametrize("options", [{}, {"precision": "tf32", "operator": "plain"}, EVERYTHING])
def test_polygraphy_takes_the_command(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    """Its own parser, up to where TensorRT would be needed; an option that it does not have is an error."""
    from polygraphy.tools._main import main
    from polygraphy.tools.convert.convert import Convert

    asked: list[Any] = []
    monkeypatch.setattr(Convert, "run_impl", lambda _, arguments: asked.append(arguments))
    request = EngineRequest(**{"backend": "tensorrt", "precision": "fp16", **options})
    program, *arguments = shlex.split(command_lines(request, "clip.onnx", PROFILE)["polygraphy"])
    assert program == "polygraphy" and not main(arguments)
    (found,) = asked
    assert (found.model_file, found.convert_to, found.output) == ("clip.onnx", "trt", "clip.engine")
    assert found.trt_max_shapes == [["frames:[4,5,64,64,3]"]] and found.strongly_typed
    assert bool(found.plugins) == (request.operator == "plugin") and bool(found.tf32) == (request.precision == "tf32")
    assert bool(found.strip_plan and found.version_compatible) == request.strip_weights
    assert found.memory_pool_limit == (["workspace:64M"] if request.workspace_mb else None)
