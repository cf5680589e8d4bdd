"""Results of scripts/on-gpu.sh as rows of the benchmarks: nothing is lost, least of all a failure."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import read_rows, write_rows
from tools.gpu_rows import gpu_rows

DAY = "2026-11-29"
MACHINE = {
    "gpus": [{"name": "NVIDIA H200", "compute_capability": 90}],
    "no_gpu": None,
    "driver": "580.1",
    "cuda_driver": "13.0",
    "clocks": "clocks.sm, 1980 MHz",
    "power_mode": None,
    "platform": "Linux",
    "processor": "a processor",
    "cores": [0, 1],
    "memory": 2**37,
    "load_average": [0.1, 0.2, 0.3],
    "python": "3.12.1",
    "packages": {"torch": "2.11.0", "tensorrt": None},
    "commit": "ab" * 20,
    "is_modified": False,
}


def times(*each: float) -> dict[str, Any]:
    return {"p50": sorted(each)[len(each) // 2], "p90": max(each), "samples": len(each), "each": list(each)}


def table7(operator: str, precision: str, **found: Any) -> dict[str, Any]:
    case = {"kind": "table7", "clips": 1, "frames": 5, "side": 224, "network": "avs-bg", "encoder": "pvt_v2_b5"}
    return {**case, "operator": operator, "precision": precision, **found}


def results(**changed: Any) -> dict[str, Any]:
    operator = {"kind": "operator", "n": 4, "side": 56}
    document = {
        "machine": MACHINE,
        "stages": [
            {"stage": "kernels", "result": "passed", "started": f"{DAY}T10:00:00+00:00", "seconds": 40, "reason": ""},
            {
                **{"stage": "ncu", "result": "skipped", "started": f"{DAY}T10:01:00+00:00", "seconds": 1},
                "reason": "this user may not",
            },
        ],
        "tests": {},
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
        **{"backend": "torch", "version": "2.11.0", "device": "cuda", "operator": "native", "cuda_graph": False}
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


def test_without_the_reference_nothing_is_compared() -> None:
    rows = gpu_rows(results(table7=[table7("native", "bf16", eager_ms=times(10.0))]))
    assert {row.kind for row in rows if row.ran.network} == {"gpu-failure"}


def test_results_of_no_machine_are_refused() -> None:
    with pytest.raises(BenchmarkError, match=r"do not say what machine.*the stage machine"):
        gpu_rows(results(machine=None))
