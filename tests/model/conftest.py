from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _no_gradients_by_default():
    with torch.no_grad():
        yield
