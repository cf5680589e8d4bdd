"""A network of classes in `avsbg run`: palette masks, categories, the legend, and what does not apply."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import MediaError
from avsbg.runtime.segment.palette import COLOURS, make_legend, show_legend
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.run import segment_video
from avsbg.runtime.segment.segmenter import ClipSegmenter
from avsbg.runtime.verify.verify import verify_backend
from fixtures.class_bundle import LABELS, make_class_bundle
from fixtures.videos import steady, tone, write_video


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_class_bundle(tmp_path / "bundle")


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
