from __future__ import annotations

from pathlib import Path

import pytest

from avsbg.export.package.wheels import build_own_wheel
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
