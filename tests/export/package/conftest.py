from __future__ import annotations

import json
from pathlib import Path

import pytest

from avsbg.export.package.wheels import build_own_wheel
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from fixtures.shared import make_once


@pytest.fixture(scope="session")
def own_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of avsbg, built once."""

    def make(folder: Path) -> None:
        folder.mkdir()
        build_own_wheel(folder)

    return next(make_once(tmp_path_factory, "wheel", make).iterdir())


@pytest.fixture
def some_wheel(tmp_path: Path) -> Path:
    """A file in the place of avsbg's wheel, where nothing installs it."""
    wheel = tmp_path / "avsbg-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    return wheel


@pytest.fixture
def calibrated(bundle_copy: Path) -> Bundle:
    """The tiny bundle as `avsbg quantize --precision int8 --rest fp16` leaves one, by its manifest."""
    document = json.loads((bundle_copy / MANIFEST).read_text())
    changes = {"precision": "int8", "rest": "fp16", "accuracy": None}
    document["graphs"]["clip.rest-fp16.int8"] = document["graphs"]["clip"] | changes
    document["quantisations"] = {
        "int8": {
            "calibration": {"source": "vectors", "files": [{"name": "a", "sha256": 64 * "0"}], "clips": 1},
            "method": "mse",
            "between": "fp32",
            "groups": {},
            "least_miou": 0.95,
            "miou": 1.0,
            "ranges": {"product": 1.0},
        }
    }
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    return Bundle.open(bundle_copy)
