"""Streams of iGAN and LGVT: each frame on its own, with the latent that the record fixes, exact and at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avsbg.runtime.backends import create
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.streaming.frame_pair import StreamedClip
from avsbg.runtime.streaming.stream import open_stream
from avsbg.runtime.verify.verify import verify_backend

pytestmark = pytest.mark.slow


def test_a_stream_is_the_clip_and_no_mask_waits(salient) -> None:
    bundle, module = salient.bundle, salient.module
    assert module.network.record.latent is not None
    for graph in ("clip", "encode"):  # the latent is zero in graphs, and no input
        assert sorted(tensor.name for tensor in bundle.graph(graph).inputs) == ["audio_embedding", "frames"]
    streamed = StreamedClip(OnnxRuntimeBackend(bundle, "encode"), OnnxRuntimeBackend(bundle, "decode"))
    with streamed as backend:
        assert verify_backend(backend, bundle.vectors()).passed
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    masks = []
    with open_stream(bundle, outputs=("logits",)) as stream:
        for frame in frames:
            new = stream.push(frame, np.zeros((1, 128), np.float32))
            assert [mask.partner for mask in new] == ["none"]
            masks += new
        assert stream.close() == []
    found = np.stack([mask.outputs["logits"] for mask in masks])
    silent = np.zeros((3, 2, 128), np.float32)
    with create("onnxruntime", bundle) as backend:
        clips = backend.run({"frames": frames[:, None].repeat(2, axis=1), "audio_embedding": silent}, ["logits"])
    np.testing.assert_allclose(found, clips["logits"][:, 0], atol=2e-4)
    with torch.inference_mode():
        other = module.network(torch.randn(1, 1, 3, 64, 96), torch.ones(1, 1, module.network.latent_width))
    assert other.isfinite().all()
