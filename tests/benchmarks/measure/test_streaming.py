"""The streaming benchmark on a network that shows what it was given: rows, counts, and that what is timed is a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure import streaming
from avsbg.benchmarks.measure.streaming import StreamBench
from avsbg.benchmarks.report.streaming import describe_stream
from avsbg.benchmarks.results.schema import Measurement, read_rows, write_rows
from avsbg.runtime.bundle import Bundle
from fixtures import ROOT
from tools.docs_tables import BLOCKS, RESULTS, streaming_text, update_page


@pytest.fixture(scope="module")
def bench(tiny_stream: Bundle) -> Any:
    with StreamBench(tiny_stream, "onnxruntime", threads=1) as opened:
        yield opened


def test_an_hour_at_full_speed_loses_nothing_and_holds_no_more(bench: StreamBench) -> None:
    lines: list[str] = []
    row = bench.soak(3600, lines.append)
    counts = [row[name].value for name in ("frames", "masks", "lost", "dropped", "incomplete")]
    assert counts == [3600, 3600, 0, 0, 0]
    assert len(row["resident"].samples) == len(lines) == 60
    assert row["growth"].number < 2 * 2**20
    assert "3600 masks, 0 lost" in describe_stream(row)


def test_frames_that_come_faster_than_the_network_are_missed_and_counted(
    bench: StreamBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr(streaming, "_SCENE", 4)
    original = type(bench.encode)._run

    def slow(self: Any, *arguments: Any) -> Any:
        time.sleep(0.02)
        return original(self, *arguments)

    monkeypatch.setattr(type(bench.encode), "_run", slow)
    row = bench.pace(200.0, 0.5)
    assert row["offered"].number == row["masks"].number + row["missed"].number
    assert row["missed"].number > 0
    assert row["late"].number > 0
    assert row["peak_memory"].number >= row["loaded_memory"].number * 0.5
    full = bench.pace(None, 0.3)
    assert (full["missed"].value, full["late"].value, full.case["rate"]) == (0, 0, None)
    assert full["offered"].number == full["masks"].number == len(full["latency"].samples) + 1


def test_rows_survive_their_file(bench: StreamBench, tmp_path: Path) -> None:
    rows: list[Measurement] = [bench.pace(50.0, 0.2), bench.difference(), bench.soak(16, lambda _: None)]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert all(map(describe_stream, rows))
    assert f"| 50 | {rows[0]['masks'].number / rows[0]['duration'].number:.2f} |" in streaming_text(rows)


def test_a_pair_is_a_clip_and_as_many_frames_of_a_stream(bench: StreamBench, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Any] = []
    original = type(bench.encode)._run

    def count(self: Any, *arguments: Any) -> Any:
        encoded.extend([self] * (self is bench.encode))
        return original(self, *arguments)

    def time_once(calls: dict[str, Any], **_: Any) -> dict[str, list[float]]:
        for call in calls.values():
            call()
        return {name: [6.0, 6.0, 6.0] for name in calls}

    monkeypatch.setattr(type(bench.encode), "_run", count)
    monkeypatch.setattr(streaming, "interleave", time_once)
    row = bench.pairs(3)
    frames = row.case["frames"]
    assert row.case["paired_frames"] == frames
    assert len(encoded) == 1 + frames  # one before the first that completes a mask
    assert row["stream"].samples == pytest.approx([6.0 / frames] * 3) and row["clip"].samples == (6.0, 6.0, 6.0)
    assert row["ratio"].number == pytest.approx(1 / frames) and "reaches 1.00 of its rate" in describe_stream(row)


def test_a_step_completes_one_mask() -> None:
    streaming._expect_one([object()])
    with pytest.raises(BenchmarkError, match="completed 0 masks"):
        streaming._expect_one([])


def test_the_page_shows_the_committed_rows() -> None:
    block = next(block for block in BLOCKS if block.files == ("streaming.jsonl",))
    text, wanted = update_page(block.page, ROOT)
    assert text == wanted
    rows = read_rows(ROOT / RESULTS / block.files[0])
    soak = [row for row in rows if row.kind == "stream-soak"]
    assert soak
    assert all(row["lost"].value == row["dropped"].value == 0 and row["frames"].number >= 3600 for row in soak)
    rated = [row for row in rows if row.kind == "stream-rate"]
    assert {row.case["rate"] for row in rated} == {1.0, 5.0, 10.0, None}
    assert all(row["masks"].number > 0 for row in rated)


def test_a_bundle_without_a_stream_is_refused(tiny: Bundle) -> None:
    with pytest.raises(Exception, match="no graphs for streams"):
        StreamBench(tiny, "onnxruntime", threads=1)
