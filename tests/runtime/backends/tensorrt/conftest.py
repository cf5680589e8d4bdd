from __future__ import annotations

from pathlib import Path

import pytest

from avsbg.runtime.bundle import Bundle
from fixtures.engines import add_engine
from fixtures.tensorrt_machine import behaviour, device, machine

__all__ = ["behaviour", "device", "machine"]


@pytest.fixture
def bundle(bundle_copy: Path) -> Bundle:
    """The tiny bundle with an engine."""
    return add_engine(bundle_copy, "clip.fp16")
