from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from avsbg.runtime.bundle import Bundle
from fixtures import tiny_bundle


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle; tests do not change it."""
    return tiny_bundle.make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def bundle_copy(tiny: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle for tests that damage it."""
    return Path(shutil.copytree(tiny.path, tmp_path / "copy"))
