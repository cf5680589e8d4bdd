"""A machine with a GPU and TensorRT, both fake: they check every call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avsbg.runtime.backends.tensorrt import backend as backend_module
from avsbg.runtime.backends.tensorrt import engine as engines
from avsbg.runtime.bundle import Bundle
from fixtures import tiny_bundle
from fixtures.engines import DRIVER, add_engine
from fixtures.fake_cuda import FakeDevice
from fixtures.fake_tensorrt_runtime import Behaviour, runtime_module
from fixtures.tensorrt_machine import CLIP


def _compute(arrays: Any) -> Any:
    return tiny_bundle.expected(arrays["frames"], arrays["waveform"])


@pytest.fixture
def device() -> FakeDevice:
    """The GPU."""
    return FakeDevice()


@pytest.fixture
def behaviour(device: FakeDevice) -> Behaviour:
    """The behaviour of an engine of the tiny network on it."""
    return Behaviour(device, CLIP, _compute)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: FakeDevice, behaviour: Behaviour) -> None:
    """A machine with a GPU and TensorRT 10.13, both fake."""
    module = runtime_module("10.13.3", behaviour)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(engines, "read_cuda_driver", lambda: DRIVER)
    monkeypatch.setattr(engines, "import_runtime", lambda _: module)
    monkeypatch.setattr(backend_module, "import_runtime", lambda _: module)
    monkeypatch.setattr(backend_module, "open_device", lambda _: device)


@pytest.fixture
def bundle(bundle_copy: Path) -> Bundle:
    """The tiny bundle with an engine."""
    return add_engine(bundle_copy, "clip.fp16")
