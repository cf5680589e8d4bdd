"""ONNX Runtime reports nothing to its maker, from Python and from libavsbg."""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime
from packaging.version import Version

from avsbg.runtime.bundle import Bundle
from fixtures import ROOT
from fixtures.telemetry import written_by


def test_a_session_leaves_no_identity(tiny: Bundle, tmp_path: Path) -> None:
    script = (
        "import sys, avsbg\n"
        "model = avsbg.load(sys.argv[1], backend='onnxruntime')\n"
        "assert model.clip_backend is not None\n"
    )
    command: list[str | Path] = [sys.executable, "-c", script, tiny.path]
    assert written_by(command, tmp_path / "quiet", PYTHONPATH=str(ROOT)) == []
    # A value that the user set stays, which shows too that there would be files.
    if Version(onnxruntime.__version__) >= Version("1.29"):
        assert written_by(command, tmp_path / "told", PYTHONPATH=str(ROOT), ORT_DISABLE_TELEMETRY="0")
