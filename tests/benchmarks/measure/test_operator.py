"""The operator's benchmark: what its rows say follows from their samples; the estimates follow from their sources."""

from __future__ import annotations

import statistics

import pytest

from avsbg.benchmarks.measure import operator
from avsbg.benchmarks.measure.operator_cases import (
    FIVE_PRODUCTS,
    MATERIALISED,
    OURS,
    TILED,
    contender_names,
    measure_memory,
)
from avsbg.benchmarks.report.operator_table import markdown_table, print_rows
from avsbg.benchmarks.results.operator_rows import RESULTS, ClipRow, MachineRow, OperatorRow, Row, read_rows
from avsbg.benchmarks.static import roofline
from avsbg.errors import AvsbgError
from avsbg.runtime.device.native_library import native_library
from avsbg.runtime.errors import NativeLibraryError
from fixtures import ROOT

DOCS = ROOT / "docs"


@pytest.fixture
def _library() -> None:
    try:
        native_library("onnxruntime")
    except NativeLibraryError as error:
        pytest.skip(str(error))


def check_figures(rows: list[Row], sgemm_size: int = 2048) -> None:
    """Every figure of a row again, from its samples."""
    measured = [row for row in rows if isinstance(row, OperatorRow)]
    for row in measured:
        flop = 2 * row.pairs * row.side**4 * row.channels if row.kind == "operator" else 2 * sgemm_size**3
        assert row.flop == flop
        assert row.seconds["n"] == len(row.samples)
        assert row.seconds["p50"] == pytest.approx(statistics.median(row.samples), rel=1e-4)
        assert row.gflops["p50"] == pytest.approx(row.flop / row.seconds["p50"] / 1e9)
        assert row.gflops["best"] == pytest.approx(row.flop / min(row.samples) / 1e9, rel=1e-4)
        group = [other for other in measured if (other.side, other.threads) == (row.side, row.threads)]
        peak = max(other.gflops["best"] for other in group if other.kind == "sgemm")
        assert row.share_of_sgemm["best"] == pytest.approx(row.gflops["best"] / peak, rel=1e-3)
        for held, speedup in row.speedup.items():
            (other,) = (other for other in group if other.contender == held)
            ratios = [slow / fast for slow, fast in zip(other.samples, row.samples, strict=True)]
            assert speedup["median"] == pytest.approx(statistics.median(ratios), rel=1e-3)
            assert speedup["low"] <= speedup["median"] <= speedup["high"]


@pytest.mark.usefixtures("_library")
def test_every_contender_gets_a_row_whose_figures_follow_from_its_samples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "_SGEMM_SIZE", 64)
    monkeypatch.setattr(operator, "_SGEMM_FLOP", 2 * 64**3)
    rows: list[Row] = [*operator.measure(7, 1, samples=2, pause=0.0, memory=False)]
    names = [row.contender for row in rows if isinstance(row, OperatorRow) and row.kind == "operator"]
    assert names == contender_names()
    assert {OURS, FIVE_PRODUCTS, *MATERIALISED, *TILED} <= set(names)
    check_figures(rows, sgemm_size=64)
    (clip,) = (row for row in rows if isinstance(row, ClipRow))
    assert 0 < clip.four_over_five["low"] <= clip.four_over_five["median"] <= clip.four_over_five["high"]
    print_rows(rows)
    assert all(name.split(",")[0] in capsys.readouterr().out for name in names[:1])


@pytest.mark.usefixtures("_library")
def test_a_contender_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    create = operator.create

    def broken(name: str, side: int, threads: int) -> object:
        contender = create(name, side, threads)
        return contender if name != "torch" else lambda a, b: (contender(a, b)[0] * 1.01, contender(a, b)[1])

    monkeypatch.setattr(operator, "create", broken)
    with pytest.raises(AvsbgError, match="torch differs from numpy by"):
        operator.measure(7, 1, samples=2, pause=0.0, memory=False)


@pytest.mark.slow
@pytest.mark.usefixtures("_library")
def test_our_working_memory_is_below_8_mb_where_the_volume_needs_157() -> None:
    memory = {name: measure_memory(name, side=56, pairs=4, channels=128, threads=2) for name in (OURS, "numpy")}
    assert memory["numpy"] > 150e6, "the measurement misses the volume"
    assert memory[OURS] < 8e6


def test_the_committed_rows_are_what_the_command_writes() -> None:
    rows = read_rows(RESULTS)
    assert isinstance(rows[0], MachineRow)
    combinations = {(row.side, row.threads) for row in rows if isinstance(row, OperatorRow)}
    assert combinations == {(side, threads) for side in operator.SIDES for threads in (1, 2)}
    check_figures(rows)
    assert markdown_table(rows) in (DOCS / "operator-cpu.md").read_text(encoding="utf-8")
    for clip in (row for row in rows if isinstance(row, ClipRow) and row.side == 56):
        figures = "{median:.2f} [{low:.2f}, {high:.2f}]".format(**clip.four_over_five)
        assert figures in (DOCS / "operator-cpu.md").read_text(encoding="utf-8")


def test_the_published_figures_follow_from_each_devices_numbers() -> None:
    for device in roofline.load_devices():
        derived = device.tensor_tflops * device.check.over_dense_fp16
        assert derived == pytest.approx(device.check.tera, rel=0.01), device.name


def test_the_bounds_are_work_over_peak() -> None:
    device = next(device for device in roofline.load_devices() if device.name.startswith("Jetson AGX Orin"))
    times = roofline.bounds(device, 56)
    assert times["tensor cores"] == pytest.approx(2 * 4 * 3136**2 * 128 / 42.5984e12 * 1e6)
    assert times["ReLU and sums"] == pytest.approx(3 * 4 * 3136**2 / 2.6624e12 * 1e6)
    assert times["memory"] == pytest.approx((5 * 3136 * 128 * 2 + 2 * 4 * 3136 * 4) / 204.8e9 * 1e6)
    assert times["volume"] - times["memory"] == pytest.approx(4 * 4 * 3136**2 / 204.8e9 * 1e6)


def test_the_page_of_estimates_is_the_one_that_the_command_writes() -> None:
    assert (DOCS / "operator-roofline.md").read_text(encoding="utf-8") == roofline.document(roofline.load_devices())
