"""A stream gives the masks of clip mode: any length, any chunks of sound, every backend, both forms of the operator."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avsbg.export.graphs import EncodeGraph
from avsbg.export.precision.graphs import add_graph
from avsbg.export.shape import ExportError
from avsbg.native_library import NativeLibraryError, native_library
from avsbg.runtime import backends
from avsbg.runtime.backends import Backend
from avsbg.runtime.bundle import Bundle, update_bundle
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.media.samples import resize
from avsbg.runtime.streaming.stream import Latency, Stream, StreamMask, open_stream
from avsbg.runtime.verify.verify import clip_accuracies

ATOL = 2e-4  # of logits whose deviation is near 1: what the order of float32 sums may cost
TARGETS = ("function", "native", "plain", "openvino", "torch")
ECONOMICAL = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def open_pair(stack: ExitStack, bundle: backends.Bundle, target: str) -> tuple[Backend, Backend]:
    """Encoder and decoder of a target, open until the stack closes."""
    backends.register("torch", "avsbg.export.torch_backend:TorchBackend")
    name, form = (target, None) if target in ("openvino", "torch") else ("onnxruntime", target)
    encode = backends.create(name, bundle, graph="encode", threads=1)
    decode = backends.create(name, bundle, graph="decode", operator=form, threads=1)
    return stack.enter_context(encode), stack.enter_context(decode)


@pytest.fixture(scope="module", params=TARGETS)
def pairs(request: pytest.FixtureRequest, export_once) -> Iterator[Callable[[str], tuple[Backend, Backend]]]:
    """The pair of backends of a target on an export, opened once."""
    if request.param == "native":
        try:
            native_library("onnxruntime")
        except NativeLibraryError:
            pytest.skip("the native operator was not built: no C++ compiler")
    elif request.param == "openvino":
        pytest.importorskip("openvino")
    opened: dict[str, tuple[Backend, Backend]] = {}
    with ExitStack() as stack:

        def get(key: str) -> tuple[Backend, Backend]:
            if key not in opened:
                opened[key] = open_pair(stack, export_once(key).bundle, request.param)
            return opened[key]

        yield get


def smooth_frames(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Pictures with structure; noise alone would leave the network's maps near constant."""
    return np.stack([resize(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8), width, height) for _ in range(count)])


def logits(masks: list[StreamMask]) -> np.ndarray:
    return np.stack([mask.outputs["logits"] for mask in masks])


@ECONOMICAL
@given(count=st.integers(2, 6), seed=st.integers(0, 2**32 - 1))
def test_any_length_equals_the_clip_of_that_length(pairs, export_once, count: int, seed: int) -> None:
    exported, rng = export_once("avs-bg as published, embedding"), np.random.default_rng(seed)
    frames = smooth_frames(rng, count, 64, 64)
    sound = rng.random((count, 128), dtype=np.float32)
    with torch.inference_mode():
        clip = exported.module(torch.from_numpy(frames[None]), torch.from_numpy(sound[None]))[0][0].numpy()
    stream = Stream(*pairs("avs-bg as published, embedding"), outputs=("logits",))
    masks = [mask for frame, one in zip(frames, sound, strict=True) for mask in stream.push(frame, one)]
    masks += stream.close()
    assert [mask.partner for mask in masks] == ["next"] * (count - 1) + ["previous"]
    np.testing.assert_allclose(logits(masks), clip, rtol=0, atol=ATOL)


@ECONOMICAL
@given(
    count=st.integers(2, 3),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 48000), max_size=12),
    lead=st.integers(-20000, 48000),
)
def test_any_chunks_of_sound_equal_the_clip(
    pairs, export_once, count: int, seed: int, cuts: list[int], lead: int
) -> None:
    """`lead`: how many samples the sound is ahead of the frames, or behind them."""
    exported, rng = export_once("avs-bg, waveform"), np.random.default_rng(seed)
    frames = smooth_frames(rng, count, 64, 96)
    time = np.arange(count * 16000) / 16000
    waveform = (0.4 * np.sin(2 * np.pi * rng.uniform(200, 2000) * time * (1 + 0.2 * time))).astype(np.float32)
    with torch.inference_mode():
        clip = exported.module(torch.from_numpy(frames[None]), torch.from_numpy(waveform[None]))[0][0].numpy()
    stream = Stream(*pairs("avs-bg, waveform"), spacing="published", outputs=("logits",), patience=10.0)
    chunks = np.split(waveform, sorted(min(cut, len(waveform)) for cut in cuts))
    masks, pushed = [], 0
    for second, frame in enumerate(frames):
        while chunks and pushed < second * 16000 + 15000 + lead:
            pushed += len(chunks[0])
            masks += stream.push_sound(chunks.pop(0))
        masks += stream.push(frame)
    for chunk in chunks:
        masks += stream.push_sound(chunk)
    masks += stream.close()
    assert [mask.index for mask in masks] == list(range(count))
    assert stream.counters.incomplete == 0
    np.testing.assert_allclose(logits(masks), clip, rtol=0, atol=ATOL)


def test_in_fp16_a_stream_passes_the_gate_that_the_clip_passes(export_once, tmp_path: Path) -> None:
    exported = export_once("avs-bg as published, embedding")
    bundle = Bundle.open(Path(shutil.copytree(exported.bundle.path, tmp_path / "copy")))
    with update_bundle(bundle) as update:
        for graph in ("clip", "encode", "decode"):
            add_graph(update, graph, "fp16")
    bundle = Bundle.open(bundle.path)
    vectors = next(bundle.vectors())
    with backends.create("onnxruntime", bundle, precision="fp16", threads=1) as backend:
        clip = backend.run(vectors.inputs, ["probability"])["probability"]
    frames, sound = (array[0] for array in vectors.inputs.values())
    with open_stream(bundle, precision="fp16", backend_options={"threads": 1}) as stream:
        masks = [mask for frame, one in zip(frames, sound, strict=True) for mask in stream.push(frame, one)]
        masks += stream.close()
    streamed = np.stack([mask.outputs["probability"] for mask in masks])[None]
    assert any(tensor.dtype == "float16" for tensor in bundle.graph("encode.fp16").outputs)
    for found in (clip, streamed):
        accuracies = clip_accuracies(vectors, {"probability": found})
        assert np.mean([one.miou for one in accuracies]) >= PRECISIONS["fp16"].min_miou
    # Both round, at different places: they are nearer to each other than a mask's edge is wide, and not equal.
    assert 0 < np.abs(streamed - clip).max() < 2e-2


@pytest.mark.parametrize("latency", ["one-frame", "zero"])
def test_without_latency_the_last_mask_is_exact_and_the_others_are_not(export_once, latency: Latency) -> None:
    exported, rng = export_once("avs-bg as published, embedding"), np.random.default_rng(3)
    frames, sound = smooth_frames(rng, 4, 64, 64), rng.random((4, 128), dtype=np.float32)
    with torch.inference_mode():
        clip = exported.module(torch.from_numpy(frames[None]), torch.from_numpy(sound[None]))[0][0].numpy()
    with open_stream(exported.bundle, latency=latency, outputs=("logits",)) as stream:
        masks = [mask for frame, one in zip(frames, sound, strict=True) for mask in stream.push(frame, one)]
        masks += stream.close()
    difference = np.abs(logits(masks) - clip).max(axis=(1, 2))
    assert difference[-1] < ATOL
    assert (difference[:-1].max() < ATOL) == (latency == "one-frame")


def test_a_variant_without_motion_needs_no_partner(export_once) -> None:
    exported = export_once("avs-bg without audio and motion")
    vectors = next(exported.bundle.vectors())
    with open_stream(exported.bundle, outputs=("logits",)) as stream:
        masks = [stream.push(frame) for frame in vectors.inputs["frames"][0]]
        assert stream.close() == []
    assert [len(some) for some in masks] == [1, 1]
    assert {mask.partner for some in masks for mask in some} == {"none"}
    found = logits([mask for some in masks for mask in some])
    np.testing.assert_allclose(found, vectors.outputs["logits"][0], rtol=0, atol=ATOL)


def test_avsbench_is_refused_with_the_reason(export_once) -> None:
    with pytest.raises(ExportError, match=r"TPAVI sums over all frames of a clip"):
        EncodeGraph(export_once("avsbench, log-mel").module)
