"""The compiler's table of the CUDA kernels: that it is this source's, and within bounds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.static import counts
from avsbg.benchmarks.static.counts import KERNELS, source_digest
from fixtures.emulation import DTYPES, Emulator
from tools.kernels import MULTIPROCESSORS, OUTPUTS, find_tool, inspect, nvcc_version

TABLE: dict[str, Any] = json.loads(KERNELS.read_text())
CORRELATIONS = [row for row in TABLE["kernels"] if row["kernel"] != "combine"]


def name(row: dict[str, Any]) -> str:
    return f"sm_{row['architecture']} {row['kernel']}"


def test_the_table_is_of_this_source() -> None:
    assert TABLE["sources_sha256"] == source_digest(), f"the kernels have changed: run {TABLE['command']}"


def test_the_table_is_complete() -> None:
    """Nine kernels for each tensor-core type, three for fp32, and the second stage; sm_75 has fp32 and fp16 only."""
    counts = dict.fromkeys(MULTIPROCESSORS, 0)
    for row in TABLE["kernels"]:
        counts[row["architecture"]] += 1
    assert counts == {architecture: 13 if architecture == 75 else 31 for architecture in MULTIPROCESSORS}


@pytest.mark.parametrize("row", TABLE["kernels"], ids=name)
def test_nothing_spills_and_blocks_share_a_multiprocessor(row: dict[str, Any]) -> None:
    assert row["stack"] == row["spill_stores"] == row["spill_loads"] == 0
    assert row["shared"] <= 48 * 1024
    if row["architecture"] >= 80:
        assert row["blocks_per_sm"] >= (3 if "resident" in row["kernel"] else 2)


@pytest.mark.native
def test_the_launcher_counts_on_as_many_blocks_as_fit(emulator: Emulator) -> None:
    """The constants of plan.h for every kernel and architecture: they say into how many stretches the tiles are cut."""
    words, rows = [], []
    for row in CORRELATIONS:
        dtype, kind, output = row["kernel"].split(", ")
        units = {"resident": 16, "resident 128 B": 8, "resident 64 B": 4}.get(kind, 32)
        channels = units * (8 if dtype in ("fp16", "bf16") else 4)
        words += [DTYPES[dtype], channels, OUTPUTS.index(output), row["architecture"]]
        rows.append(f"{int(kind != 'streamed')} {units if kind != 'streamed' else 4} {row['blocks_per_sm']}")
    chosen = emulator.run("schedules", *words).raw.decode().splitlines()
    found = zip(map(name, CORRELATIONS), chosen, rows, strict=True)
    differ = [f"{kernel}: {one}, not {other}" for kernel, one, other in found if one != other]
    assert not differ, f"plan.h, count_blocks_per_sm: {differ}"


@pytest.mark.parametrize("row", TABLE["kernels"], ids=name)
def test_the_second_kernel_waits_for_the_first(row: dict[str, Any]) -> None:
    """Programmatic dependent launch, from compute capability 9.0 on: the wait stands before every access to memory."""
    waits = int(row["architecture"] >= 90)
    assert (row["waits"], row["releases"]) == ((waits, 0) if row["kernel"] == "combine" else (0, waits))


@pytest.mark.parametrize("row", CORRELATIONS, ids=name)
def test_the_main_loop_holds_what_its_tile_needs(row: dict[str, Any]) -> None:
    """A warp's tile is 32 x 32 x 128 channels (resident; 32 and 64 in kernels of their own) or 64 x 32 x 32 (streamed)
    of 16 bits, in products of 16 x 8 x 16, so 64 (16, 32) and 32 of them; on sm_75 in products of 16 x 8 x 8. tf32 has
    half the channels in the same bytes.
    """
    units = {"resident 64 B": 4, "resident 128 B": 8}.get(row["kernel"].split(", ")[1], 16)
    loop, kernel = row["loop"], row["kernel"]
    resident, old = "resident" in kernel, row["architecture"] == 75
    assert loop["barriers"] == 1
    # Of 128 threads, each copies 8 KiB of targets in 4 pieces (2 KiB in 1, 4 KiB in 2); 12 KiB in 6.
    assert loop["async_copies"] == (0 if old else units // 4 if resident else 6)
    if kernel.startswith("fp32"):
        assert loop["issue_slots"] > loop["fp32_fma"] >= 32 * 64 * 16 // 32
        assert loop["tensor_core"] == loop["ldmatrix"] == 0
    else:
        assert loop["tensor_core"] == (4 * units if resident else 32) * (2 if old else 1)
        # Each feeds 4 products of targets; queries take 4 per chunk (streamed).
        assert loop["ldmatrix"] == (units if resident else 8 + 4)


def test_a_tile_takes_few_instructions_beside_its_products() -> None:
    """Of 32 x 32 positions, 128 channels of fp16, both means, on Orin: 354 before the factors were exchanged."""
    (row,) = (row for row in CORRELATIONS if name(row) == "sm_87 fp16, resident, both means")
    assert row["loop"]["tensor_core"] == 64
    assert 64 + 16 + 32 + 64 < row["loop"]["issue_slots"] <= 265


@pytest.mark.slow
@pytest.mark.native
def test_the_table_is_what_the_compiler_makes(tmp_path: Path) -> None:
    """The rows of 9.0, compiled now. Another version of nvcc may choose other registers; the counts must hold."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc not found: install the CUDA toolkit, or `make cuda`, and test by `make`")
    try:
        find_tool("nvdisasm", "")
    except BenchmarkError:
        pytest.skip("nvdisasm not found: pip install nvidia-cuda-nvdisasm")
    rows = [json.loads(json.dumps(row)) for row in inspect(90, tmp_path)]
    expected = [row for row in TABLE["kernels"] if row["architecture"] == 90]
    if nvcc_version() == TABLE["nvcc"]:
        assert rows == expected
    else:
        for row in rows:
            test_nothing_spills_and_blocks_share_a_multiprocessor(row)
            test_the_second_kernel_waits_for_the_first(row)
            if row["kernel"] != "combine":
                test_the_main_loop_holds_what_its_tile_needs(row)


def test_a_table_of_other_sources_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "cuda"
    shutil.copytree(counts.CUDA_SOURCES, changed)
    monkeypatch.setattr(counts, "CUDA_SOURCES", changed)
    assert source_digest() == TABLE["sources_sha256"]
    (changed / "plan.h").write_text((changed / "plan.h").read_text().replace("kStages = 3", "kStages = 4"))
    assert source_digest() != TABLE["sources_sha256"]
