"""The operator's benchmark: what its rows say follows from their samples; the estimates follow from their sources."""

from __future__ import annotations

import statistics

import pytest

from avsbg.benchmarks.measure import operator, operator_cases
from avsbg.benchmarks.measure.operator import RESULTS
from avsbg.benchmarks.measure.operator_cases import (
    FIVE_PRODUCTS,
    MATERIALISED,
    OURS,
    TILED,
    case_names,
    measure_memory,
)
from avsbg.benchmarks.report.operator import operator_text
from avsbg.benchmarks.results.schema import Measurement, read_rows
from avsbg.benchmarks.static import roofline
from avsbg.benchmarks.static.counts import KERNELS
from avsbg.errors import AvsbgError
from avsbg.native_library import NativeLibraryError, native_library
from fixtures import ROOT
from fixtures.rows import ENVIRONMENT
from tools.docs_tables import operator_bounds

DOCS = ROOT / "docs"


@pytest.fixture
def _library() -> None:
    try:
        native_library("onnxruntime")
    except NativeLibraryError as error:
        pytest.skip(str(error))


def check_metrics(rows: list[Measurement], sgemm_size: int = 2048) -> None:
    """Compute every metric of a row again, from its samples."""
    measured = [row for row in rows if row.kind == "operator"]
    for row in measured:
        case, samples, flop = row.case, row["latency"].samples, row["operations"].number
        pairs = case["pairs"]
        assert flop == (2 * pairs * case["side"] ** 4 * case["channels"] if pairs else 2 * sgemm_size**3)
        assert row["p50"].value == pytest.approx(statistics.median(samples), rel=1e-4)
        assert row["best"].value == pytest.approx(min(samples), rel=1e-4)
        group = [one for one in measured if all(one.case[name] == case[name] for name in ("side", "threads"))]
        peak = max(one["operations"].number / one["best"].number for one in group if not one.case["pairs"])
        assert row["best_share_of_sgemm"].value == pytest.approx(flop / row["best"].number / peak, rel=1e-3)
        for other in group:
            speedup = row.metrics.get(f"speedup over {other.label}")
            if speedup is not None:
                ratios = [slow / fast for slow, fast in zip(other["latency"].samples, samples, strict=True)]
                assert speedup.value == pytest.approx(statistics.median(ratios), rel=1e-3)
                assert speedup.low <= speedup.value <= speedup.high


@pytest.mark.usefixtures("_library")
def test_every_case_gets_a_row_whose_metrics_follow_from_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "_SGEMM_SIZE", 64)
    monkeypatch.setattr(operator, "_SGEMM_FLOP", 2 * 64**3)
    rows = operator.measure_size(7, 1, samples=6, pause=0.0, memory=False)
    names = [row.label for row in rows if row.kind == "operator" and row.case["pairs"]]
    assert names == case_names()
    assert {OURS, FIVE_PRODUCTS, *MATERIALISED, *TILED} <= set(names)
    check_metrics(rows, sgemm_size=64)
    (ratio,) = (row["four_over_five"] for row in rows if row.kind == "operator-clip")
    assert 0 < ratio.low <= ratio.value <= ratio.high
    text = operator_text([row.model_copy(update={"environment": ENVIRONMENT}) for row in rows])
    assert all(f"| {name} |" in text for name in (*MATERIALISED, *TILED)) and f"| **{OURS}** (" in text


@pytest.mark.usefixtures("_library")
def test_a_case_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    create = operator_cases.create

    def broken(name: str, side: int, threads: int) -> object:
        compute = create(name, side, threads)
        return compute if name != "torch" else lambda a, b: (compute(a, b)[0] * 1.01, compute(a, b)[1])

    monkeypatch.setattr(operator_cases, "create", broken)
    with pytest.raises(AvsbgError, match="torch differs from numpy by"):
        operator.measure_size(7, 1, samples=6, pause=0.0, memory=False)


@pytest.mark.slow
@pytest.mark.usefixtures("_library")
def test_our_working_memory_is_below_8_mb_where_the_volume_needs_157() -> None:
    memory = {name: measure_memory(name, side=56, pairs=4, channels=128, threads=2) for name in (OURS, "numpy")}
    assert memory["numpy"] > 150e6, "the measurement misses the volume"
    assert memory[OURS] < 8e6


def test_the_committed_rows_are_what_the_command_writes() -> None:
    rows = read_rows(RESULTS, "operator", "operator-clip")
    combinations = {(row.case["side"], row.case["threads"]) for row in rows if row.kind == "operator"}
    assert combinations == {(side, threads) for side in operator.SIDES for threads in (1, 2)}
    check_metrics(rows)
    assert operator_text(rows) in (DOCS / "operator-cpu.md").read_text(encoding="utf-8")


def test_the_published_figures_follow_from_each_devices_numbers() -> None:
    for device in roofline.load_devices():
        derived = device.tensor_tflops * device.check.over_dense_fp16
        assert derived == pytest.approx(device.check.tera, rel=0.01), device.name


def test_the_bounds_are_work_over_peak() -> None:
    device = next(device for device in roofline.load_devices() if device.name.startswith("Jetson AGX Orin"))
    times = operator_bounds(device, 56, slots=255)
    assert times["tensor cores"] == pytest.approx(2 * 4 * 3136**2 * 128 / 42.5984e12 * 1e6)
    # 98 x 98 tiles of 32 x 32 positions for each pair; four schedulers on each of 16 multiprocessors at 1.3 GHz.
    assert times["instructions"] == pytest.approx(4 * 98**2 * 255 / (16 * 4 * 1.3e9) * 1e6)
    assert roofline.load_issue_slots(KERNELS)[device.architecture] > 4 * 16
    assert times["memory"] == pytest.approx((5 * 3136 * 128 * 2 + 2 * 4 * 3136 * 4) / 204.8e9 * 1e6)
    assert times["volume"] - times["memory"] == pytest.approx(4 * 4 * 3136**2 / 204.8e9 * 1e6)
