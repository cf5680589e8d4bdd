"""The table of engines in the documentation is the one that the committed rows make."""

from __future__ import annotations

import json

from avsbg.benchmarks.static.engines import table
from fixtures import ROOT

ROWS = [json.loads(line) for line in (ROOT / "benchmarks" / "results" / "engines.jsonl").read_text().splitlines()]


def test_the_table_in_the_documentation_is_that_of_the_rows() -> None:
    assert table(ROWS) in (ROOT / "docs" / "engines.md").read_text()


def test_every_engine_got_the_precision_asked_for() -> None:
    for row in ROWS:
        assert row["realised"]["differing"] == [], row["engine"]
        # tf32 is float32 in memory; products that the rules keep in float32 are fp32 in any engine.
        expected = {"fp32" if row["precision"] == "tf32" else row["precision"], "fp32"}
        assert set(row["realised"]["products"]) <= expected, row["engine"]


def test_the_plugin_halves_the_activation_memory_of_float32() -> None:
    memory = {
        (row["clips"], row["operator"]): row["memory"]["activation"]
        for row in ROWS
        if row["network"].startswith("avs-bg-") and row["precision"] == "fp32"
    }
    for clips in (1, 4):
        assert memory[clips, "plugin"] < 0.5 * memory[clips, "plain"]
