"""The engine of the tiny network as the fake TensorRT describes it, and what its backend says of its CUDA graphs."""

from __future__ import annotations

import tests_bundle
from tests_tensorrt_runtime import DataType, Tensor

from avsbg.runtime.backends import Backend

PROFILES = ((1, 1, 1), (1, 4, 4))
MAP = (-1, tests_bundle.FRAMES, tests_bundle.HEIGHT, tests_bundle.WIDTH)
CLIP = (
    Tensor("frames", DataType.UINT8, (*MAP, 3), PROFILES),
    Tensor("waveform", DataType.FLOAT, (-1, tests_bundle.FRAMES * tests_bundle.SAMPLE_RATE), PROFILES),
    Tensor("logits", DataType.FLOAT, MAP),
    Tensor("probability", DataType.FLOAT, MAP),
)


def graph_counts(backend: Backend) -> tuple[int, int, int]:
    """Steps that ran without a CUDA graph, graphs that were captured, and launches of them."""
    graph = backend.describe()["cuda_graph"]
    return graph["plain_steps"], graph["captured"], graph["launched"]
