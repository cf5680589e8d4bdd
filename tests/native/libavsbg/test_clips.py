"""Clips through libavsbg: what Python's runtime makes of the same frames and sound, to the bit."""

from __future__ import annotations

import json
from ctypes import byref, c_float, c_size_t, c_void_p
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.media.samples import Sample, resize
from avsbg.runtime.segment.segmenter import ClipSegmenter
from avsbg.runtime.verify.verify import verify_backend
from fixtures import tiny_bundle
from fixtures.libavsbg import Frame, Library, LibraryError

pytestmark = pytest.mark.native


def segment(bundle: Bundle, frames: list[np.ndarray], sound: np.ndarray, backend: str = "onnxruntime") -> np.ndarray:
    """The probabilities of a clip in Python."""
    clip = bundle.manifest.clip
    with create(backend.partition(":")[0], bundle, operator=backend.partition(":")[2] or None) as opened:
        segmenter = ClipSegmenter(opened)
        results = []
        for number, frame in enumerate(frames):
            audio = sound[number * clip.sample_rate : (number + 1) * clip.sample_rate]
            small = resize(frame, clip.width, clip.height)
            sample = Sample(number, Fraction(number), Fraction(1), frame, small, audio)
            results += list(segmenter.push(sample))
        results += list(segmenter.finish())
    return np.stack([one.probability for one in results])


def clip_of(count: int, size: tuple[int, int], seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    random = np.random.default_rng(seed)
    frames = list(random.integers(0, 256, (count, *size, 3), dtype=np.uint8))
    return frames, random.uniform(-1, 1, count * tiny_bundle.SAMPLE_RATE).astype(np.float32)


@pytest.mark.parametrize("size", [(16, 24), (48, 64), (7, 5), (1, 1), (333, 517), (17, 23)])
@pytest.mark.parametrize("count", [5, 3, 1])
def test_masks_are_those_of_python(tiny: Bundle, library: Library, size: tuple[int, int], count: int) -> None:
    frames, sound = clip_of(count, size, seed=sum(size) + count)
    with library.open(tiny.path) as model:
        masks = model.run_clip(frames, sound)
    assert [mask.index for mask in masks] == list(range(count))
    np.testing.assert_array_equal(np.stack([mask.probability for mask in masks]), segment(tiny, frames, sound))


def test_weights_in_a_file_beside_the_graph(tiny: Bundle, library: Library, bundle_copy: Path) -> None:
    """ONNX Runtime is given the memory of both, with whose hash the manifest agrees."""
    weights = bundle_copy / "weights.bin"
    graph = onnx.load(bundle_copy / "clip.onnx")
    for node in [node for node in graph.graph.node if node.op_type == "Constant"]:
        # Shapes stay in the graph, as in what is exported.
        (attribute,) = node.attribute
        if attribute.name == "value_float" or attribute.t.data_type == onnx.TensorProto.FLOAT:
            value = attribute.f if attribute.name == "value_float" else onnx.numpy_helper.to_array(attribute.t)
            constant = onnx.numpy_helper.from_array(np.asarray(value, np.float32), node.output[0])
            graph.graph.initializer.append(constant)
            graph.graph.node.remove(node)
    assert graph.graph.initializer
    onnx.save(graph, bundle_copy / "clip.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert weights.stat().st_size > 0
    document = json.loads((bundle_copy / MANIFEST).read_text())
    document["graphs"]["clip"]["external_data"] = ["weights.bin"]
    for name in ("clip.onnx", "weights.bin"):
        path = bundle_copy / name
        document["files"][name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    frames, sound = clip_of(5, (16, 24))
    with library.open(bundle_copy) as model:
        masks = model.run_clip(frames, sound)
    np.testing.assert_array_equal(np.stack([mask.probability for mask in masks]), segment(tiny, frames, sound))


def test_our_operator_computes_what_it_does_in_python(tiny: Bundle, library: Library) -> None:
    frames, sound = clip_of(5, (16, 24))
    found = {}
    for backend in ("onnxruntime", "onnxruntime:native", "onnxruntime:plain"):
        with library.open(tiny.path, backend) as model:
            found[backend] = np.stack([mask.probability for mask in model.run_clip(frames, sound)])
            described = model.describe()["clip"]
        np.testing.assert_array_equal(found[backend], segment(tiny, frames, sound, backend))
        with create("onnxruntime", tiny, operator=backend.partition(":")[2] or None) as opened:
            assert described == opened.describe()


def test_log_mel_patches_are_those_of_python(library: Library, tmp_path: Path) -> None:
    bundle = tiny_bundle.make_bundle(tmp_path / "log_mel", audio="log_mel")
    frames, sound = clip_of(4, (16, 24))
    with library.open(bundle.path) as model:
        masks = np.stack([mask.probability for mask in model.run_clip(frames, sound * 0.01)])
    expected = segment(bundle, frames, sound * np.float32(0.01))
    # In double precision, and then rounded: numpy's transform adds in another order.
    np.testing.assert_allclose(masks, expected, rtol=0, atol=2e-6)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("size", [(24, 16), (64, 48), (1280, 720), (7, 5), (1, 1), (23, 15), (641, 359)])
def test_decisions_are_enlarged_as_python_does_it(tiny: Bundle, library: Library, size: tuple[int, int]) -> None:
    frames, sound = clip_of(2, (16, 24), seed=9)
    with library.open(tiny.path) as model:
        masks = model.run_clip(frames, sound, size)
    for mask in masks:
        decided = Image.fromarray((mask.probability > 0.5).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        assert mask.decided is not None
        np.testing.assert_array_equal(mask.decided, np.asarray(decided) * 255)


def test_masks_between_two_and_frames_that_wait_for_their_clip(tiny: Bundle, library: Library) -> None:
    """`avsbg_mask_interpolate` and `avsbg_frame_resize`, which programs of several masks a second need."""
    frames, sound = clip_of(2, (48, 64), seed=9)
    with library.open(tiny.path) as model:
        expected = [mask.probability for mask in model.run_clip(frames, sound)]
        handles = (c_void_p * 2)()
        given = (Frame * 2)(*map(library.frame, frames))
        samples = sound.ctypes.data_as(c_void_p), c_size_t(len(sound))
        library.check(library.c.avsbg_clip_run(model.handle, given, c_size_t(2), *samples, handles))
        made = c_void_p()
        blend = partial(library.c.avsbg_mask_interpolate, c_void_p(handles[0]), c_void_p(handles[1]))
        library.check(blend(c_float(0.25), byref(made)))
        with pytest.raises(LibraryError, match="share is"):
            library.check(blend(c_float(1.5), byref(c_void_p())))
        between = library.take_mask(made).probability
        for handle in handles:
            library.c.avsbg_mask_release(c_void_p(handle))
        resized = np.zeros((16, 24, 3), np.uint8)
        pointer = resized.ctypes.data_as(c_void_p)
        library.check(library.c.avsbg_frame_resize(model.handle, byref(library.frame(frames[0])), pointer))
    np.testing.assert_array_equal(between, expected[0] + np.float32(0.25) * (expected[1] - expected[0]))
    np.testing.assert_array_equal(resized, resize(frames[0], 24, 16))


def test_verify_finds_the_differences_that_python_finds(tiny: Bundle, library: Library) -> None:
    with library.open(tiny.path, "onnxruntime:native") as model:
        passed, found = model.verify()
        strict, _ = model.verify(tolerance=0.0)
    with create("onnxruntime", tiny, operator="native") as backend:
        expected = verify_backend(backend, tiny.vectors())
    assert passed and expected.passed and not strict
    assert len(found) == len(expected.comparisons) == 4
    for ours, theirs in zip(found, expected.comparisons, strict=True):
        for name in ("vectors", "output", "clips", "elements", "largest_absolute", "passed"):
            assert ours[name] == getattr(theirs, name)
        assert ours["flips"] == (-1 if theirs.flips is None else theirs.flips)
        assert ours["largest_relative"] == pytest.approx(theirs.largest_relative, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorflow"}, "unknown backend 'tensorflow'"),
        ({"backend": "onnxruntime:fast"}, "'fast' is neither an implementation nor a precision"),
        ({"backend": "onnxruntime:native:plain"}, "'plain' is a second implementation"),
        ({"backend": "onnxruntime:plugin"}, "no implementation 'plugin'"),
        ({"backend": "onnxruntime:fp16"}, "no graph 'clip.fp16'.*avsbg convert"),
        ({"backend": "onnxruntime:tf32"}, "no tf32 on the processor"),
        ({"runtime_library": "/nowhere/libonnxruntime.so.1"}, "/nowhere/libonnxruntime.so.1 cannot be loaded"),
        ({"backend_folder": "/nowhere"}, "there is no /nowhere/libavsbg_backend_onnxruntime.so"),
        ({"threads": -1}, "threads must be at least 1, not -1"),
        ({"uses": 2}, "has no graphs for streams"),
        ({"uses": 8}, "uses is 8"),
        ({"engine": "clip-fp16"}, "loads no engines"),
    ],
)
def test_what_cannot_be_opened_is_an_error_that_says_why(
    tiny: Bundle, library: Library, options: dict[str, object], message: str
) -> None:
    with pytest.raises(LibraryError, match=message), library.open(tiny.path, **options):  # type: ignore[arg-type]
        pass


def test_what_is_no_clip_is_refused_and_the_model_goes_on(tiny: Bundle, library: Library) -> None:
    frames, sound = clip_of(5, (16, 24))
    with library.open(tiny.path) as model:
        with pytest.raises(LibraryError, match="a clip has 1 to 5 frames, not 6"):
            model.run_clip([*frames, frames[0]], sound)
        with pytest.raises(LibraryError, match="not 0"):
            model.run_clip([], sound)
        with pytest.raises(LibraryError, match="NaN or infinity"):
            model.run_clip(frames, np.full(16000, np.nan, np.float32))
        with pytest.raises(LibraryError, match="argument: the model was not opened for streams"), model.stream():
            pass
        assert len(model.run_clip(frames, sound)) == 5


def test_a_network_without_audio_needs_no_sound(tiny: Bundle, library: Library, tmp_path: Path) -> None:
    silent = tiny_bundle.without_audio(tiny, tmp_path / "silent")
    frames, sound = clip_of(5, (16, 24))
    with library.open(silent.path) as model:
        masks = np.stack([mask.probability for mask in model.run_clip(frames, None)])
    np.testing.assert_array_equal(masks, segment(silent, frames, sound))
