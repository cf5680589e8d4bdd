"""Tests that execute on a GPU; on a machine without one they are skipped, with the reason."""

from __future__ import annotations

import pytest

from avsbg.runtime.device.gpu import read_cuda_driver


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    problem = read_cuda_driver().problem
    if problem is not None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=problem))
