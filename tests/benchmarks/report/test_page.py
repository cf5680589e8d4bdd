"""The report marks how far each figure can be trusted, and needs nothing from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.content import gather
from avsbg.benchmarks.report.estimates import estimate
from avsbg.benchmarks.report.page import write_report
from avsbg.benchmarks.results.schema import Measurement, Metric, write_rows
from avsbg.benchmarks.static.roofline import load_devices
from fixtures.rows import make_row, make_second_row


def _report(folder: Path, *rows: Measurement) -> tuple[str, str]:
    write_rows(folder / "rows.jsonl", rows)
    write_report(gather([folder / "rows.jsonl"]), folder / "page")
    return (folder / "page/report.html").read_text(), (folder / "page/report.md").read_text()


def test_a_report_is_one_file_with_the_papers_figures_beside_the_measured_ones(tmp_path: Path) -> None:
    page, text = _report(tmp_path, make_row(), make_second_row())
    for wanted in (
        "1000.0 [1000.0, 1000.0]",
        "500.0 [500.0, 500.0]",
        "0.500 [0.500, 0.500]",
        "85.50 / 27.48",
        "85.50",
        "1586",
        "avsbg bench avs-bg",
    ):
        assert wanted in page and wanted in text
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page), "it needs the network"
    assert page.count('<svg role="img" aria-label="') >= 1 and "2 / 2" in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    with pytest.raises(BenchmarkError, match="exists already"):
        write_report(gather([tmp_path / "rows.jsonl"]), tmp_path / "page")


def test_the_headline_is_a_gain_on_one_network(tmp_path: Path) -> None:
    faster = make_row("avs-bg:onnxruntime", median=0.5, ratio=0.5)
    other = make_second_row(network="another", ratio=0.1)
    page, _ = _report(tmp_path, make_row(), faster, other)
    assert "2.00x" in page and "10.00x" not in page


def test_an_unstable_row_is_marked(tmp_path: Path) -> None:
    page, text = _report(tmp_path, make_row(), make_second_row(problems=("drift of 9 %",)))
    for shown in (page, text):
        assert "500.0 [500.0, 500.0] ~" in shown and "0.500 [0.500, 0.500]" in shown and "drift of 9 %" in shown
    assert "The times of 1 of 2 rows are unstable" in page and "2.00x" in page


def test_a_plot_has_a_form_for_narrow_windows(tmp_path: Path) -> None:
    page, _ = _report(tmp_path, make_row(), make_second_row())
    widths = [float(width) for width in re.findall(r'<svg [^>]*?width="([0-9.]+)pt"', page)]
    assert len(widths) >= 2 and {round(width / 72, 1) for width in widths} == {9.2, 4.6}
    assert "min-width: 40rem" not in page and "@media (max-width: 44rem)" in page


def test_a_bound_is_the_larger_of_work_and_traffic_and_shows_its_arithmetic() -> None:
    device = next(device for device in load_devices() if "AGX Orin" in device.name)
    fp16 = estimate(make_row(), device, "fp16")
    assert fp16.by == "compute" and fp16.seconds == pytest.approx(188.6e9 / 42.5984e12)
    assert "188.6 GFLOP / 42.6 TFLOP/s = 4.43 ms" in fp16.arithmetic
    assert estimate(make_row(), device, "int8").seconds == pytest.approx(fp16.seconds / 2)
    light = make_row(metrics={"operations": Metric(unit="FLOP", value=1000)})
    fp32 = estimate(light, device, "fp32")
    pixels = 5 * 224 * 224
    assert fp32.by == "memory" and fp32.seconds == pytest.approx((82e6 * 4 + pixels * 11) / 204.8e9)


def test_scores_of_classes(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [make_row()])
    rows = [
        {"name": name, "iou": iou, "f_score": iou + 0.1, "frames": frames}
        for name, iou, frames in (("background", 0.75, 9), ("dog", 0.5, 3), ("wolf", 0.0, 0))
    ]
    means = {"published": {"miou": 0.4167, "f_score": 0.45}, "present": {"miou": 0.4001, "f_score": 0.44}}
    data = {"clips": 3, "split": "test", "height": 224, "width": 224}
    scores = {"data": data, "model": {"bundle": "avsegformer"}, **means, "classes": rows, "clips": []}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    write_report(gather([tmp_path / "rows.jsonl"], classes=[tmp_path / "scores.json"]), tmp_path / "page")
    text = (tmp_path / "page/report.md").read_text()
    assert "| dog | 0.5000 | 0.6000 | 3 |" in text and "| wolf | - | - | 0 |" in text
    assert "mIoU 0.4167 and F-score 0.4500 as the released" in text and "avsegformer" in text
    (tmp_path / "scores.json").write_text(json.dumps(scores | {"classes": [{"name": "dog"}]}))
    with pytest.raises(BenchmarkError, match="cannot be read as scores of classes"):
        gather([tmp_path / "rows.jsonl"], classes=[tmp_path / "scores.json"])
