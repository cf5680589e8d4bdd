"""The table of engines in the documentation is the one that the committed rows make."""

from __future__ import annotations

from avsbg.benchmarks.results.schema import read_rows
from fixtures import ROOT
from tools.engines import engine_table

ROWS = read_rows(ROOT / "benchmarks" / "results" / "engines.jsonl", "engine")


def test_the_table_in_the_documentation_is_that_of_the_rows() -> None:
    assert engine_table(ROWS) in (ROOT / "docs" / "engine-sizes.md").read_text()


def test_every_engine_got_the_precision_asked_for() -> None:
    for row in ROWS:
        assert row.ran.realised is not None and row.ran.realised["differing"] == [], row.label
        # tf32 is float32 in memory; products that the rules keep in float32 are fp32 in any engine but one with a rest
        # in float16, of which AVS-BG has none.
        expected = {"fp32" if row.case["precision"] == "tf32" else row.case["precision"], row.case.get("rest", "fp32")}
        assert set(row["products"].parts) <= expected, row.label


def test_the_plugin_halves_the_activation_memory_of_float32() -> None:
    memory = {
        (row.case["clips"], row.case["operator"]): row["activation_memory"].number
        for row in ROWS
        if row.ran.network.startswith("avs-bg-") and row.case["precision"] == "fp32"
    }
    for clips in (1, 4):
        assert memory[clips, "plugin"] < 0.5 * memory[clips, "plain"]
