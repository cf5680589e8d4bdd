"""A network of classes in `avsbg run`: palette masks, categories, the legend, and what does not apply."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle, write_bundle
from avsbg.runtime.errors import MediaError
from avsbg.runtime.segment.palette import COLOURS, make_legend, show_legend
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.run import segment_video
from avsbg.runtime.segment.segmenter import ClipSegmenter
from avsbg.runtime.verify.verify import verify_backend
from fixtures.tiny_bundle import FRAMES, HEIGHT, WIDTH, graph_fields, manifest_fields
from fixtures.videos import steady, tone, write_video

LABELS = ("background", "grey", "white", "red")
# The class of a pixel is the one whose grey level is the nearest.
_MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
classes (uint8[clips, {t}, {h}, {w}, 3] frames, float[clips, {samples}] waveform)
  => (float[clips, {t}, 4, {h}, {w}] logits, float[clips, {t}, {h}, {w}] probability,
      int32[clips, {t}, {h}, {w}] classes, float[clips, {t}, 4, {h}, {w}] class_probability)
{{
  values = Cast<to = 1>(frames)
  last = Constant<value = int64[1] {{-1}}>()
  mean = ReduceMean<keepdims = 0>(values, last)
  two = Constant<value = int64[1] {{2}}>()
  column = Unsqueeze(mean, two)
  centres = Constant<value = float[4, 1, 1] {{0.0, 120.0, 240.0, 1000.0}}>()
  apart = Sub(column, centres)
  distance = Abs(apart)
  sixteenth = Constant<value = float {{-0.0625}}>()
  logits = Mul(distance, sixteenth)
  class_probability = Softmax<axis = 2>(logits)
  begin = Constant<value = int64[1] {{0}}>()
  end = Constant<value = int64[1] {{1}}>()
  background = Slice(class_probability, begin, end, two)
  without = Squeeze(background, two)
  one = Constant<value = float {{1.0}}>()
  probability = Sub(one, without)
  chosen = ArgMax<axis = 2, keepdims = 0>(logits)
  classes = Cast<to = 6>(chosen)
}}
"""


def expected(frames: np.ndarray) -> dict[str, np.ndarray]:
    level = frames.astype(np.float64).mean(axis=-1)[:, :, None]
    logits = -np.abs(level - np.array([0.0, 120.0, 240.0, 1000.0])[:, None, None]) / 16
    shares = np.exp(logits - logits.max(axis=2, keepdims=True))
    probability = 1 - (shares / shares.sum(axis=2, keepdims=True))[:, :, 0]
    outputs = {"logits": logits.astype(np.float32), "probability": probability.astype(np.float32)}
    return {**outputs, "classes": logits.argmax(axis=2).astype(np.int32)}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    model = onnx.parser.parse_model(_MODEL.format(t=FRAMES, h=HEIGHT, w=WIDTH, samples=FRAMES * 16000))
    with write_bundle(tmp_path / "bundle") as writer:
        onnx.checker.check_model(model)
        onnx.save(model, writer.directory / "clip.onnx")
        frames = np.random.default_rng(0).integers(0, 256, (2, FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
        inputs = {"frames": frames, "waveform": np.zeros((2, FRAMES * 16000), np.float32)}
        writer.add_vectors(clips=2, seed=0, inputs=inputs, outputs=expected(frames), intermediates={})
        fields = manifest_fields({"clip": graph_fields(model, "clip.onnx", "plain")})
        writer.write_manifest(**fields, labels=LABELS)
    return Bundle.open(tmp_path / "bundle")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "v.mp4", times=steady(25, 125), sound=tone(5))


def run(bundle: Bundle, video: Path, output: Path, **options: object) -> None:
    with create("onnxruntime", bundle) as backend:
        segment_video(ClipSegmenter(backend), video, output, Options(**options))  # type: ignore[arg-type]


def test_masks_are_numbers_of_classes(bundle: Bundle, video: Path, tmp_path: Path) -> None:
    run(bundle, video, tmp_path / "out", rle=True)
    found = set()
    document = json.loads((tmp_path / "out/masks.coco.json").read_text())
    assert [category["name"] for category in document["categories"]] == list(LABELS[1:])
    lines = [json.loads(line) for line in (tmp_path / "out/frames.jsonl").read_text().splitlines()]
    for second, line in enumerate(lines):
        image = Image.open(tmp_path / f"out/masks/{second:05d}.png")
        assert image.mode == "P"
        mask = np.asarray(image)
        (number,) = np.unique(mask).tolist()  # each second is grey all over
        assert line["class_areas"] == {LABELS[number]: 1.0}
        np.testing.assert_array_equal(np.asarray(image.convert("RGB"))[0, 0], COLOURS[number])
        annotations = [one for one in document["annotations"] if one["image_id"] == second]
        assert [one["category_id"] for one in annotations] == ([number] if number else [])
        assert line["mask_area"] == float(number > 0)
        found.add(number)
    assert len(lines) == 5
    assert len(found) > 1


def test_the_video_of_masks_holds_the_same_numbers(bundle: Bundle, video: Path, tmp_path: Path) -> None:
    run(bundle, video, tmp_path / "png")
    run(bundle, video, tmp_path / "video", masks="video", overlay=False)
    with av.open(str(tmp_path / "video/masks.mkv")) as container:
        for second, frame in enumerate(container.decode(video=0)):
            png = np.asarray(Image.open(tmp_path / f"png/masks/{second:05d}.png"))
            np.testing.assert_array_equal(frame.to_ndarray(format="gray"), png)
    assert second == 4


def test_the_overlay_has_the_classs_colour_and_its_name(bundle: Bundle, video: Path, tmp_path: Path) -> None:
    run(bundle, video, tmp_path / "out")
    with av.open(str(tmp_path / "out/overlay.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    mask = np.asarray(Image.open(tmp_path / "out/masks/00002.png"))
    with av.open(str(video)) as container:
        plain = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    tinted = (plain[60] + COLOURS[mask[0, 0]]) / 2
    legend = make_legend(mask, LABELS)
    assert legend.shape[0] == 14
    outside = frames[60][20:] - tinted[20:]
    assert abs(outside).mean() < 12  # half strength, of a lossy codec
    corner = frames[60][: legend.shape[0], : legend.shape[1]] - legend.astype(int)
    assert abs(corner).mean() < 25


def test_a_legend_names_what_is_there_by_area() -> None:
    mask = np.zeros((60, 200), np.uint8)
    assert make_legend(mask, LABELS).size == 0
    mask[:10], mask[10:40] = 3, 1
    legend = make_legend(mask, LABELS)
    assert legend.shape[0] == 2 * 14
    np.testing.assert_array_equal(legend[5, 5], COLOURS[1])
    np.testing.assert_array_equal(legend[14 + 5, 5], COLOURS[3])
    shown = show_legend(np.full((60, 200, 3), 9, np.uint8), mask, LABELS)
    np.testing.assert_array_equal(shown[: legend.shape[0], : legend.shape[1]], legend)
    assert (shown[28:] == 9).all()
    assert make_legend(np.ones((10, 200), np.uint8), LABELS).size == 0  # no room for a line


def test_a_threshold_does_not_apply(bundle: Bundle, video: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="decides between 4 classes"):
        run(bundle, video, tmp_path / "out", threshold=0.3)
    with pytest.raises(MediaError, match="nothing lies between two"):
        run(bundle, video, tmp_path / "out", interpolate=True)


def test_verify_compares_classes(bundle: Bundle) -> None:
    with create("onnxruntime", bundle) as backend:
        result = verify_backend(backend, bundle.vectors())
    assert result.passed
    assert result.miou == 1.0
    (vectors,) = bundle.vectors()
    turned = vectors.outputs["classes"] % 3 + 1
    vectors.outputs["classes"][...] = turned
    with create("onnxruntime", bundle) as backend:
        found = verify_backend(backend, [vectors])
    assert found.miou < 0.5
