"""Masks as files: what was written comes back."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from avsbg.runtime.media.container import VideoInfo
from avsbg.runtime.media.samples import Sample
from avsbg.runtime.segment.masks import bounding_box, mask_writers, run_lengths


def decode(record: dict[str, list[int]]) -> np.ndarray:
    """COCO's definition: runs of 0, 1, 0, ... down the columns."""
    values = np.arange(len(record["counts"])) % 2
    return np.repeat(values, record["counts"]).reshape(record["size"], order="F").astype(bool)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_run_lengths_come_back(mask: np.ndarray) -> None:
    record = run_lengths(mask)
    np.testing.assert_array_equal(decode(record), mask)
    assert sum(record["counts"]) == mask.size
    assert 0 not in record["counts"][1:]


def some_masks() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    blob = np.zeros((45, 61), bool)
    blob[10:20, 30:50] = True
    return [random.random((45, 61)) > 0.5, np.zeros((45, 61), bool), np.ones((45, 61), bool), blob]


def write(directory: Path, masks: str, rle: bool) -> None:
    video = VideoInfo("clip.mp4", 61, 45, Fraction(25), Fraction(0), None, False)
    with mask_writers(directory, video, masks, rle) as writers:  # type: ignore[arg-type]
        for second, mask in enumerate(some_masks()):
            pixels = np.zeros((45, 61, 3), np.uint8)
            sample = Sample(second, second + Fraction(9, 10), Fraction(1), pixels, pixels, np.zeros(0, np.float32))
            for writer in writers:
                writer(sample, mask)


def test_png_and_lossless_video_hold_the_same(tmp_path: Path) -> None:
    for form in ("png", "video", "none"):
        (tmp_path / form).mkdir()
        write(tmp_path / form, form, False)
    assert not list((tmp_path / "none").iterdir())
    assert [path.name for path in (tmp_path / "video").iterdir()] == ["masks.mkv"]
    with av.open(str(tmp_path / "video/masks.mkv")) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == [0, 1, 2, 3]
    for second, (frame, mask) in enumerate(zip(frames, some_masks(), strict=True)):
        png = np.asarray(Image.open(tmp_path / f"png/masks/{second:05d}.png"))
        np.testing.assert_array_equal(png, mask * np.uint8(255))
        np.testing.assert_array_equal(frame.to_ndarray(format="gray"), png)


def test_coco_file(tmp_path: Path) -> None:
    write(tmp_path, "none", True)
    assert [path.name for path in tmp_path.iterdir()] == ["masks.coco.json"]
    document = json.loads((tmp_path / "masks.coco.json").read_text())
    assert [image["id"] for image in document["images"]] == [0, 1, 2, 3]
    assert document["images"][3]["time"] == 3.9
    assert [(one["id"], one["image_id"]) for one in document["annotations"]] == [(1, 0), (2, 2), (3, 3)]
    assert document["annotations"][2]["bbox"] == [30, 10, 20, 10]
    for annotation in document["annotations"]:
        mask = some_masks()[annotation["image_id"]]
        np.testing.assert_array_equal(decode(annotation["segmentation"]), mask)
        assert annotation["area"] == mask.sum()
    assert {one["category_id"] for one in document["annotations"]} == {document["categories"][0]["id"]}


def test_the_reference_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    reference = pytest.importorskip("pycocotools.mask")
    write(tmp_path, "none", True)
    dataset = coco.COCO(str(tmp_path / "masks.coco.json"))
    for annotation in dataset.loadAnns(dataset.getAnnIds()):
        mask = some_masks()[annotation["image_id"]]
        np.testing.assert_array_equal(dataset.annToMask(annotation), mask)
        compressed = dataset.annToRLE(annotation)
        assert reference.area(compressed) == annotation["area"]
        assert reference.toBbox(compressed).tolist() == annotation["bbox"]


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_the_reference_has_the_same_box(mask: np.ndarray) -> None:
    reference = pytest.importorskip("pycocotools.mask")
    if mask.any():
        encoded = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert bounding_box(mask) == reference.toBbox(encoded).tolist()
