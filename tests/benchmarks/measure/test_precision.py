"""The accuracy of each precision, as rows and as tables: on test vectors, on annotated clips, and named emulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from avsbg.benchmarks.__main__ import app
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.precision import measure_precisions
from avsbg.benchmarks.report.precision import precision_table
from avsbg.benchmarks.results.schema import read_rows
from avsbg.benchmarks.results.statistics import mean_interval
from avsbg.export.precision.accuracy import clip_agreement, summarize
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.bundle import Bundle
from fixtures import tiny_bundle
from fixtures.avsbench import write_dataset

RAN = ("fp32", "tf32", "fp16", "bf16")


def _measure(*arguments: str | Path) -> None:
    result = CliRunner().invoke(app, ["precision", *(str(word) for word in arguments)])
    assert result.exit_code == 0, (result.output, result.exception)


@pytest.fixture(scope="module")
def rows_file(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("precision") / "rows.jsonl"
    options = [word for one in RAN for word in ("--precision", one)]
    before = tiny.manifest_sha256
    _measure(tiny.path, "-o", path, *options)
    assert Bundle.open(tiny.path).manifest_sha256 == before
    return path


def test_a_row_for_each_precision_names_what_is_emulated(rows_file: Path) -> None:
    rows = {row.case["precision"]: row for row in read_rows(rows_file)}
    assert tuple(rows) == RAN
    assert {name for name, row in rows.items() if row.case["emulated"]} == {"tf32", "bf16"}
    assert rows["bf16"].ran.backend["precision"] == "bf16 (emulated)"
    errors = {name: row["logit_error"].number for name, row in rows.items()}
    assert errors["fp32"] < 1e-5 < errors["tf32"] < errors["bf16"]
    assert rows["fp16"].case["graph"] == "clip.fp16" and rows["fp16"]["products"].parts == {"fp16": 1}
    assert rows["tf32"]["products"].parts == {"tf32": 1}
    for row in rows.values():
        data = row.case["data"]
        assert row.case["clips"] == data["clips"] == 4 and data["kind"] == "vectors" and "miou" not in row.metrics
        assert row.case["passed"] == (row["agreement"].number >= row["min_agreement"].number)
    shown = precision_table(list(rows.values()))
    assert "| tf32 (emulated) |" in shown and "| bf16 (emulated) |" in shown and "| fp16 |" in shown


def test_appending_renews_rows_and_keeps_the_others(rows_file: Path, tiny: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(rows_file.read_text())
    before = {row.case["precision"]: row for row in read_rows(path)}
    _measure(tiny.path, "-o", path, "--append", "--precision", "tf32")
    after = {row.case["precision"]: row for row in read_rows(path)}
    assert set(after) == set(before)
    assert after["fp16"] == before["fp16"] and after["tf32"].run.started > before["tf32"].run.started
    assert after["tf32"].metrics == before["tf32"].metrics


def test_a_data_set_gives_scores_and_their_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_bundle, "HEIGHT", 32)
    monkeypatch.setattr(tiny_bundle, "WIDTH", 32)
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle", vectors=True)
    data = write_dataset(tmp_path / "data", "ms3")
    # The tiny network is no PyTorch module.
    monkeypatch.setattr(
        "avsbg.export.torch_backend.TorchBackend",
        lambda bundle, graph, threads: OnnxRuntimeBackend(bundle, graph, threads=threads),
    )
    options = ["--precision", "fp32", "--precision", "bf16", "--dataset", data, "--task", "ms3"]
    _measure(bundle.path, "-o", tmp_path / "rows.jsonl", *options)
    rows = {(row.case["precision"], row.case["data"]["kind"]): row for row in read_rows(tmp_path / "rows.jsonl")}
    assert set(rows) == {(name, kind) for name in ("fp32", "bf16") for kind in ("vectors", "dataset")}
    same, low = rows["fp32", "dataset"], rows["bf16", "dataset"]
    assert same["logit_error"].value == 0 and same["agreement"].value == 1 and low["logit_error"].number > 0
    assert low.case["data"]["name"] == "ms3 test" and low.case["clips"] == 2
    assert same["miou_change"].value == 0
    assert len(low["miou"].samples) == 2
    assert low["miou"].value == pytest.approx(np.mean(low["miou"].samples))
    shown = precision_table(list(rows.values()))
    assert "| AVS" not in shown and "2, ms3 test" in shown


def test_agreement_by_hand() -> None:
    reference = np.array([[[-2.0, -1.0], [1.0, 2.0]]])
    ours = np.array([[[-2.0, 1.0], [1.0, 2.0]]])
    one, same = clip_agreement("one", ours, reference), clip_agreement("same", reference, reference)
    assert (one.miou, one.flipped, one.largest, one.squares) == (pytest.approx(2 / 3), 1, 2.0, 4.0)
    both = summarize([same, one])
    assert both.logit_error == pytest.approx(np.sqrt(4 / 8) / np.std(reference))
    assert both.worst == ("one", pytest.approx(2 / 3)) and both.flipped == 1 / 8 and both.finite
    broken = summarize([clip_agreement("nan", np.full_like(ours, np.nan), reference)])
    assert not broken.finite and broken.largest == np.finfo(np.float32).max


def test_the_mean_of_one_sample_has_no_interval() -> None:
    assert mean_interval([0.5]).low is None
    found = mean_interval([0.0, 1.0] * 50)
    assert found.value == 0.5 and found.low is not None and found.high is not None
    assert 0.35 < found.low < 0.5 < found.high < 0.65


def test_an_unknown_precision_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"--precision fp4 does not exist.*fp32, tf32"):
        measure_precisions([tiny.path], tmp_path / "rows.jsonl", lambda *_: None, precisions=["fp4"])
