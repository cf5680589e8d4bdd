from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import libavsbg


@pytest.fixture(scope="session")
def prefix() -> Path:
    """The folder where libavsbg is installed, as for programs in C."""
    return libavsbg.build()


@pytest.fixture(scope="session")
def library(prefix: Path) -> libavsbg.Library:
    return libavsbg.Library(prefix)


@pytest.fixture(scope="session")
def program() -> Path:
    """The installed command avsbg-run."""
    prefix = libavsbg.build(targets=(*libavsbg.TARGETS, "avsbg_run"))
    return prefix / "bin" / "avsbg-run"
