"""Intersection over union of masks: the one definition that verification, precisions and benchmarks share.

(`avsbg.model.training.metrics` has AVSBench's own, in which an empty annotation is scored by its background.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mask_iou(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> NDArray[Any]:
    """The IoU of each frame's two masks: `[..., H, W]` to `[...]`; 1 where both are empty."""
    both, either = (ours & theirs).sum(axis=(-2, -1)), (ours | theirs).sum(axis=(-2, -1))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))
