"""`avsbg build` on a device: what the extra `build` brings is all that it imports besides TensorRT."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avsbg.runtime.bundle import Bundle
from fixtures import ROOT

# TensorRT is recorded (`fake_tensorrt_builder`), and what no extra but `build` brings cannot be imported.
_SCRIPT = """
import importlib.abc, sys
from unittest import mock

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "safetensors", "scipy", "matplotlib", "pycuda"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from fixtures.engines import DRIVER
from fixtures.fake_tensorrt_builder import Recording, fake_tensorrt
sys.modules["tensorrt"] = fake_tensorrt("10.3.0", Recording("10.3.0"))
with mock.patch("avsbg.runtime.device.gpu.read_cuda_driver", lambda: DRIVER):
    from avsbg.cli import main
    main()
"""


@pytest.mark.slow
def test_an_engine_is_built_without_pytorch(small: Any, tmp_path: Path) -> None:
    path = Path(shutil.copytree(small.bundle.path, tmp_path / "bundle"))
    (tmp_path / "plugin.so").write_bytes(b"a library")
    options = ["--backend", "tensorrt", "--precision", "fp16", "--plugin", tmp_path / "plugin.so"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "XDG_STATE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", _SCRIPT, "build", *map(str, [path, *options])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = Bundle.open(path).manifest.engines.values()
    assert record.precision == "fp16" and record.realised.differing == () and record.accuracy is not None
