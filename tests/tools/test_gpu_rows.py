"""Results of scripts/on-gpu.sh as rows of the benchmarks: nothing is lost, least of all a failure."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.content import gather
from avsbg.benchmarks.report.page import write_report
from avsbg.benchmarks.results.schema import Measurement, Metric, read_rows, write_rows
from fixtures.gpu_results import MACHINE
from tools.docs_tables import BLOCKS, RESULTS, make_block
from tools.gpu_rows import gpu_rows

DAY = "2026-11-29"
LIVE = {"live": Metric(unit="B", value=1)}


def times(*each: float) -> dict[str, Any]:
    return {"p50": sorted(each)[len(each) // 2], "p90": max(each), "samples": len(each), "each": list(each)}


def table7(operator: str, precision: str, **found: Any) -> dict[str, Any]:
    case = {"kind": "table7", "clips": 1, "frames": 5, "side": 224, "network": "avs-bg", "encoder": "pvt_v2_b5"}
    return {**case, "operator": operator, "precision": precision, **found}


def results(**changed: Any) -> dict[str, Any]:
    operator = {"kind": "operator", "n": 4, "sides": [56]}
    document = {
        "machine": MACHINE,
        "stages": [
            {"stage": "kernels", "result": "passed", "started": f"{DAY}T10:00:00+00:00", "seconds": 40, "reason": ""},
            {
                **{"stage": "ncu", "result": "skipped", "started": f"{DAY}T10:01:00+00:00", "seconds": 1},
                "reason": "this user may not",
            },
        ],
        "tests": {"kernels": {"tests": 9, "failures": 0, "errors": 0, "skipped": 2}},
        **{"verify": None, "engines": {}, "power": {}},
        "rates": [{"name": "mma.sync fp16", "tflops": 620.0}],
        "operator": [
            {"kind": "rate", "name": "copy", "gigabytes_per_second": 4000.0},
            {
                **operator,
                **{"way": "avsbg", "precision": "fp16", "error": 1e-6, "is_right": True, "peak_bytes": 1024},
                **{"warm_us": times(24.0, 25.0, 24.5), "cold_us": times(30.0), "tflops": 410.0},
            },
            {**operator, "way": "triton", "precision": "fp16", "failed": "no Triton here"},
            {**operator, "way": "tiles in L2", "precision": "fp16", "is_right": False, "warm_us": times(50.0)},
        ],
        "table7": [
            table7("published", "fp32", eager_ms=times(40.0, 42.0), graph_ms=times(38.0, 38.0), peak_bytes=2**30),
            table7("native", "bf16", eager_ms=times(10.0, 10.5), graph_failed="capture is not possible"),
            table7("composite", "fp32", failed="out of memory"),
        ],
        "counters": [
            {"problem": "mean 2", "kernel": "correlate", "metric": "time", "unit": "ns", "value": "21,000"},
            {"problem": "mean 2", "kernel": "correlate", "metric": "warps", "unit": "%", "value": "n/a"},
        ],
    }
    return {**document, **changed}


def test_every_result_is_a_row_with_its_unit(tmp_path: Path) -> None:
    rows = {f"{row.kind} {row.label}": row for row in gpu_rows(results())}
    assert len(rows) == 2 + 3 + 2 * 3 + 2 + 2
    ours = rows["gpu-operator avsbg:fp16"]
    assert ours["latency"].samples == pytest.approx((24e-6, 25e-6, 24.5e-6))
    assert ours["cold_latency"].samples == pytest.approx((30e-6,))
    assert ours["operations"].value == 2 * 4 * 3136**2 * 128
    assert rows["gpu-rate mma.sync fp16"]["rate"].value == 620e12
    assert (rows["gpu-rate copy"]["rate"].unit, rows["gpu-rate copy"]["rate"].value) == ("B/s", 4e12)
    assert rows["gpu-counter time"]["count"].value == 21000
    fast = rows["latency avs-bg:native:bf16:eager"]
    assert fast["ratio"].value == pytest.approx(0.25, rel=0.01)
    assert fast.run.settings["reference"] == "avs-bg:published:fp32:eager"
    assert fast.ran.backend == {
        **{"backend": "torch", "version": "2.11.0", "device": "cuda", "gpu": "NVIDIA H200"},
        **{"operator": "native", "precision": "bf16", "cuda_graph": False},
    }
    for row in rows.values():
        assert row.environment is not None and row.environment.commit == "ab" * 20
        assert row.run.before is not None and row.run.before.gpu is not None
        assert row.run.before.gpu.name == "NVIDIA H200"
    # Each row has the start of its own stage, as far as the results tell it.
    starts = {key: row.run.started for key, row in rows.items()}
    assert starts["gpu-stage kernels"] == datetime(2026, 11, 29, 10, tzinfo=timezone.utc)
    assert starts["gpu-counter time"] == datetime(2026, 11, 29, 10, 1, tzinfo=timezone.utc)
    assert starts["gpu-operator avsbg:fp16"] is None
    write_rows(tmp_path / "rows.jsonl", rows.values())
    assert read_rows(tmp_path / "rows.jsonl") == list(rows.values())


def test_what_failed_is_a_row_that_says_why() -> None:
    unstable = {f"{row.kind} {row.label}": row.problems for row in gpu_rows(results()) if not row.is_stable}
    assert unstable == {
        "gpu-stage ncu": ("skipped this user may not",),
        "gpu-operator triton:fp16": ("no Triton here",),
        "gpu-operator tiles in L2:fp16": ("the result is wrong",),
        "gpu-failure avs-bg:native:bf16:graph": ("capture is not possible",),
        "gpu-failure avs-bg:composite:fp32:eager": ("out of memory",),
        "gpu-failure avs-bg:composite:fp32:graph": ("out of memory",),
        "gpu-counter warps": ("ncu says 'n/a'",),
    }


def make_page(folder: Path, rows: list[Measurement]) -> str:
    write_rows(folder / "rows.jsonl", rows)
    write_report(gather([folder / "rows.jsonl"]), folder / "page")
    return (folder / "page/report.md").read_text()


def test_the_report_shows_every_kind_of_row(tmp_path: Path) -> None:
    page = make_page(tmp_path, gpu_rows(results()))
    assert "### NVIDIA H200, driver 580.1; a processor" in page
    # The operator: ours with its times, then what failed, with no time of a wrong result.
    assert "| avsbg | fp16 | 4 | 56 x 56 | 24.5 | 30.0 | 411.0 | 0.0 |  |" in page
    assert "| triton | fp16 | 4 | 56 x 56 |  |  |  |  | no Triton here |" in page
    assert "| tiles in L2 | fp16 | 4 | 56 x 56 | - |  |  |  | the result is wrong |" in page
    assert "| mma.sync fp16 | 620.0 TFLOP/s |  |" in page and "| copy | 4000.0 GB/s |  |" in page
    assert "| mean 2 | correlate | 21000 | -<br>ncu says 'n/a' |" in page
    assert "| kernels | passed | 40 | 7 | 0 |" in page and "| ncu | skipped | 1 |" in page
    # Table 7: the precision that ran, the way it ran, the paper's figure.
    network = "AVS-BG, PVT-v2-b5<br>PyTorch eager, native operator, on NVIDIA H200, bf16"
    assert f"| {network} |" in page and "85.50 / 27.48" in page
    assert "PyTorch, CUDA graph, as published, on NVIDIA H200, fp32" in page
    assert "* avs-bg:native:bf16:graph: capture is not possible" in page
    assert "## Rows that are not shown" not in page


def test_a_kind_that_no_section_knows_is_named(tmp_path: Path) -> None:
    other = Measurement(kind="activation-memory", case=dict.fromkeys(("graph", "clips", "node", "part")), metrics=LIVE)
    page = make_page(tmp_path, [*gpu_rows(results()), other])
    assert "* rows.jsonl: 1 of the kind activation-memory" in page
    write_rows(tmp_path / "rows.jsonl", [other])
    with pytest.raises(BenchmarkError, match=r"no section .* shows its rows: 1 of the kind activation-memory"):
        gather([tmp_path / "rows.jsonl"])


def test_the_page_shows_committed_rows_of_gpus_alone(tmp_path: Path) -> None:
    state, tables = (next(block for block in BLOCKS if block.name == name) for name in ("gpu-state", "gpu"))
    folder = tmp_path / RESULTS
    folder.mkdir(parents=True)
    assert "Nothing of this has run on a GPU" in make_block(state, tmp_path)
    assert make_block(tables, tmp_path) == "None is committed."
    write_rows(folder / "gpu-h200.jsonl", gpu_rows(results()))
    machine = "NVIDIA H200, driver 580.1; a processor"
    assert make_block(state, tmp_path) == f"It has run on {machine} (commit abababababab)."
    text = make_block(tables, tmp_path)
    assert text.startswith(f"### {machine}\n")
    assert "| avsbg | fp16 | 4 | 56 x 56 | 24.5 |" in text and "| mma.sync fp16 | 620.0 TFLOP/s |" in text
    assert "Not measured: avs-bg:composite:fp32:eager: out of memory." in text
    write_rows(folder / "gpu-none.jsonl", gpu_rows(results(machine=MACHINE | {"gpus": []})))
    with pytest.raises(BenchmarkError, match="without a GPU"):
        make_block(state, tmp_path)


def test_a_throttled_gpu_makes_no_stable_row(tmp_path: Path) -> None:
    """Each row has the clocks around its samples, and says why they fell meanwhile, or that nobody knows."""
    state = {"clocks_mhz": {"sm": 1980}, "temperature": 50, "power_mode": "limit 700 W", "power_watts": 600.0}
    state |= {"throttled": []}
    watched = {"before": state, "after": state | {"clocks_mhz": {"sm": 1200}}, "throttled": ["power cap"]}
    operator, network = results()["operator"], results()["table7"]
    found = results(
        operator=[operator[0] | watched, operator[1] | watched, operator[3] | {"clocks_unknown": "no NVML"}],
        table7=[network[0] | watched],
    )
    rows = gpu_rows(found)
    labels = {row.label for row in rows if "the GPU throttled: power cap" in row.problems}
    assert labels == {"copy", "avsbg:fp16", "avs-bg:published:fp32:eager", "avs-bg:published:fp32:graph"}
    ours = next(row for row in rows if row.label == "avsbg:fp16")
    assert ours.run.before is not None and ours.run.after is not None
    assert ours.run.before.gpu is not None and ours.run.after.gpu is not None
    assert (ours.run.before.gpu.clocks_mhz, ours.run.after.gpu.clocks_mhz) == ({"sm": 1980.0}, {"sm": 1200.0})
    unknown = next(row for row in rows if row.label == "tiles in L2:fp16")
    assert unknown.notes == ("the GPU's clocks and throttling are unknown: no NVML",)
    page = make_page(tmp_path, rows)
    assert "| avsbg | fp16 | 4 | 56 x 56 | - | - |  | 0.0 | the GPU throttled: power cap |" in page
    assert "| copy | - | the GPU throttled: power cap |" in page


def test_stages_that_were_computed_together_are_one_row(tmp_path: Path) -> None:
    row = results()["operator"][1] | {"sides": [56, 28]}
    rows = gpu_rows(results(operator=[row]))
    found = next(row for row in rows if row.kind == "gpu-operator")
    assert found["operations"].value == 2 * 4 * (3136**2 + 784**2) * 128
    assert "| avsbg | fp16 | 4 | 56 x 56 + 28 x 28 | 24.5 |" in make_page(tmp_path, rows)


def test_without_the_reference_nothing_is_compared() -> None:
    rows = gpu_rows(results(table7=[table7("native", "bf16", eager_ms=times(10.0))]))
    assert {row.kind for row in rows if row.ran.network} == {"gpu-failure"}


def test_results_of_no_machine_are_refused() -> None:
    with pytest.raises(BenchmarkError, match=r"do not say what machine.*the stage machine"):
        gpu_rows(results(machine=None))
