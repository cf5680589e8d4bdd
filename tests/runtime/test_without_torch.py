"""The runtime on a device: neither torch nor onnx, and every dependency at the lowest version that we allow."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from avsbg.runtime.bundle import Bundle
from fixtures import ROOT
from fixtures.videos import steady, tone, write_video

_SCRIPT = """
import importlib.util, pkgutil, sys
assert not any(importlib.util.find_spec(name) for name in ("torch", "onnx"))
import avsbg.runtime
for module in pkgutil.walk_packages(avsbg.runtime.__path__, "avsbg.runtime."):
    if not any(part in module.name for part in ("native", "tensorrt")):
        __import__(module.name)
from avsbg.cli import main
main()
"""


def lowest_versions() -> list[str]:
    """`name==bound` for the base dependencies and the extra `cpu`."""
    requirements = [Requirement(text) for text in importlib.metadata.requires("avsbg") or []]
    wanted = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": "cpu"})]
    bounds = [f"{r.name}=={s.version}" for r in wanted for s in r.specifier if s.operator == ">="]
    assert len(bounds) == len(wanted) >= 7, "each dependency has a lower bound"
    return bounds


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the lowest numpy has no wheel for this Python")
def test_the_lowest_dependencies_run_a_bundle_without_torch_and_onnx(tiny: Bundle, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile"]
    subprocess.run([*install, "--only-binary", ":all:", *lowest_versions()], check=True)
    # A package without export and model, through links: building a wheel here would only test the build again.
    layout = tmp_path / "layout" / "avsbg"
    layout.mkdir(parents=True)
    for source in (ROOT / "avsbg").iterdir():
        if source.name not in {"benchmarks", "export", "model"}:
            (layout / source.name).symlink_to(source.resolve())
    video = write_video(tmp_path / "v.mp4", times=steady(25, 50), sound=tone(2))
    environment = {**os.environ, "PYTHONPATH": str(layout.parent)}
    output = tmp_path / "out"
    run = ["run", tiny.path, video, "-o", output]
    for arguments in (["verify", tiny.path], run, ["inspect", tiny.path], ["run", "--help"]):
        command = [python, "-c", _SCRIPT, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    summary = json.loads((output / "summary.json").read_text())
    assert any(f"onnxruntime=={summary['backend']['version']}".startswith(bound) for bound in lowest_versions())
    lines = (output / "frames.jsonl").read_text().splitlines()
    assert [json.loads(line)["mask_area"] for line in lines] == [1, 1]
