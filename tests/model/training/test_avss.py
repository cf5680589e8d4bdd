"""AVSS in its published layout: clips, colours, sound; scores of its classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avsbg.model.avss import LABELS
from avsbg.model.training.avss_data import AvssDataset, class_numbers
from avsbg.model.training.data import Sample
from avsbg.model.training.errors import DatasetError, TrainingError
from avsbg.model.training.evaluation import evaluate_classes
from avsbg.runtime.segment.palette import COLOURS
from fixtures.avss import CLIPS, write_avss


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_avss(tmp_path_factory.mktemp("avss"))


def _perfect(sample: Sample) -> torch.Tensor:
    return torch.nn.functional.one_hot(sample.masks, len(LABELS)).movedim(-1, 1).float()


def test_clips_are_read_as_released(data: Path) -> None:
    dataset = AvssDataset(data, "test", height=64, width=96)
    assert [(clip.name, clip.frames, clip.masks) for clip in dataset.clips] == [
        ("one", 5, 5),
        ("two", 5, 5),
        ("three", 10, 10),
    ]
    for sample, (_, _, _, number, size) in zip((dataset[0], dataset[1], dataset[2]), CLIPS, strict=False):
        count = sample.clip.frames
        assert sample.frames.shape == (count, 64, 96, 3) and sample.log_mel.shape == (count, 1, 96, 64)
        assert sample.masks.shape == (count, 64, 96) and set(sample.masks.unique().tolist()) == {0, number}
        rows, columns = (np.floor((np.arange(n) + 0.5) * side / n) for n, side in zip((64, 96), size, strict=True))
        inside = np.outer((rows >= 8) & (rows < 24), (columns >= 8) & (columns < 16))
        np.testing.assert_array_equal(sample.masks[0].numpy() == number, inside)
    assert torch.equal(dataset[2].log_mel[9], torch.zeros(1, 96, 64))  # of zeros, not of silence
    assert dataset[2].log_mel[8].abs().max() > 0
    assert dataset.unknown == 0
    assert AvssDataset(data, "train")[0].masks.shape == (1, 224, 224)


def test_a_colour_of_no_class_is_background_and_counted(data: Path, tmp_path: Path) -> None:
    np.testing.assert_array_equal(class_numbers(COLOURS), [*range(71), *([-1] * 185)])
    root = write_avss(tmp_path / "avss")
    Image.new("RGB", (32, 32), (1, 2, 3)).save(root / "v1m/two/labels_rgb/4.png")
    dataset = AvssDataset(root, "test", height=32, width=32)
    assert dataset[1].masks[4].max() == 0 and dataset.unknown == 32 * 32


def test_frames_that_a_clip_lacks_count_as_the_released_script_counts_them(data: Path) -> None:
    dataset = AvssDataset(data, "test", height=32, width=32)
    perfect = evaluate_classes(dataset, _perfect)
    assert perfect.present.frames.tolist() == [20 if n == 0 else {3: 5, 70: 5, 12: 10}.get(n, 0) for n in range(71)]
    assert perfect.present.mean.miou == pytest.approx(4 / 71) == perfect.published.mean.f_score
    nothing = evaluate_classes(dataset, lambda sample: 0 * _perfect(sample))  # the first class everywhere
    assert int(nothing.published.frames[0]) == 30 and int(nothing.present.frames[0]) == 20
    background = np.mean([1 - (dataset[i].masks > 0).double().mean((1, 2)) for i in range(2)])
    more = float(sum((1 - (dataset[i].masks > 0).double().mean((1, 2))).sum() for i in range(3)))
    assert 0 < background < 1
    assert float(nothing.present.iou[0]) == pytest.approx(more / 20)
    assert float(nothing.published.iou[0]) == pytest.approx((more + 10) / 30)
    with pytest.raises(TrainingError, match="71 classes, and the network predicts 1"):
        evaluate_classes(dataset, lambda sample: sample.masks.float())


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metadata.csv", "uid,split\na,test\n", "no label"),
        ("metadata.csv", "uid,label,split\na,v3,test\n", "'v3', not one of v1s, v1m, v2"),
        ("metadata.csv", "uid,label,split\n../a,v2,test\n", "cannot be the name"),
        ("metadata.csv", "uid,label,split\na,v2,train\n", "no clips of the split test"),
        ("label2idx.json", json.dumps(dict.fromkeys(LABELS, 1.5)), "no number"),
        ("label2idx.json", json.dumps({name: -n for n, name in enumerate(LABELS)}), "'woman' stands for 'background'"),
    ],
)
def test_other_data_is_refused(tmp_path: Path, file: str, text: str, message: str) -> None:
    root = write_avss(tmp_path / "avss")
    (root / file).write_text(text)
    with pytest.raises(DatasetError, match=message):
        AvssDataset(root, "test")
