"""Throughput of collections: commands in turn, their rows, and what follows from them for more nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure import collection
from avsbg.benchmarks.measure.collection import measure_collection
from avsbg.benchmarks.report.collection import cost_table, throughput_table
from avsbg.benchmarks.results.schema import Measurement, Metric, read_rows, write_rows
from avsbg.runtime.bundle import Bundle

# An interpreter that starts a cluster, or writes the summaries of so many videos of 5 s, and notes what it was told.
PLAYED = """#!{python}
import json, pathlib, sys
code, *arguments = sys.argv[2:]
if "Cluster" in code:
    print("127.0.0.1:{cores}" if arguments == ["{cores}"] else "", flush=True)
    sys.stdin.read()
    sys.exit()
with open("{log}", "a") as log:
    print(*arguments, file=log)
videos, output = sorted(pathlib.Path(arguments[2]).iterdir()), pathlib.Path(arguments[-1])
assert not output.exists()
for video in videos[: {wrote}]:
    (output / video.name).mkdir(parents=True)
    spent = {{"inference": 0.5, "decode": 0.05, "overlay": 0.25}}
    summary = {{"seconds": 5, "seconds_spent": spent, "backend": {{"backend": arguments[4]}}}}
    text = json.dumps(summary)
    (output / video.name / "summary.json").write_text(text)
    pathlib.Path("{summary}").write_text(text)
"""


def play(folder: Path, *, wrote: int) -> Path:
    program = folder / "python"
    names = {"python": sys.executable, "log": folder / "log", "cores": 2, "wrote": wrote}
    names["summary"] = folder / "summary"
    program.write_text(PLAYED.format(**names))
    program.chmod(0o755)
    return program


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "_PAUSE", 0.0)
    monkeypatch.setattr(collection, "default_threads", lambda: 2)


def test_commands_take_turns_and_have_rows(tiny: Bundle, tmp_path: Path, progress) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(bytes(1000))
    how = {"python": play(tmp_path, wrote=3), "backend": "openvino", "count": 3, "samples": 2}
    rows = measure_collection(tiny.path, video, progress, **how)
    asked = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    # A round of warm-up, and two in an order that rotates.
    engines = [words[words.index("--engine") + 1] if "--engine" in words else words[0] for words in asked]
    assert engines == ["run", "local", "ray"] * 2 + ["local", "ray", "run"]
    over_ray = " ".join(asked[2])
    assert "--address 127.0.0.1:2 --workers 2 --threads 1" in over_ray
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl", "collection-speed") == rows
    assert [(row.label, row.case["workers"], row.case["threads"]) for row in rows] == [
        ("one process", 1, 2),
        ("local", 1, 2),
        ("ray", 2, 1),
    ]
    assert rows[0]["ratio"].value == 1.0
    assert (rows[2].case["video_seconds"], rows[2].case["video_bytes"]) == (15, 3000)
    summary = len((tmp_path / "summary").read_bytes())
    assert rows[2].case["output_bytes"] == 3 * summary
    assert (rows[2]["inference"].value, rows[2].ran.backend) == (1.5, {"backend": "openvino"})
    with pytest.raises(BenchmarkError, match="`avsbg run` wrote 2 results of 3 videos"):
        measure_collection(tiny.path, video, progress, **how | {"python": play(tmp_path, wrote=2)})
    with pytest.raises(BenchmarkError, match="make environments"):
        measure_collection(tiny.path, video, progress, **how | {"python": tmp_path / "none"})


def test_cost_follows_from_the_rates(tiny: Bundle, tmp_path: Path, progress) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(bytes(1000))
    how = {"python": play(tmp_path, wrote=3), "backend": "openvino", "count": 3, "samples": 2}

    def settle(row: Measurement) -> Measurement:
        seconds = {"one process": 6.0, "local": 6.0, "ray": 3.0}[row.label]
        changed = {"duration": Metric(unit="s", samples=(seconds, seconds)), "ratio": Metric(value=6 / seconds)}
        case = {**row.case, "video_bytes": 15_000_000, "output_bytes": 30_000_000}
        return row.model_copy(update={"metrics": row.metrics | changed, "case": case})

    rows = [settle(row) for row in measure_collection(tiny.path, video, progress, **how)]
    assert "| `avsbg batch --engine ray` | 2 | 1 | 5.0 | 2.00 |" in throughput_table(rows)
    told = cost_table(rows)
    # 1000 h at 5 s of video per second, of 1 MB each.
    lines = ["| 1 | 200 h | 200 h | 5 MB/s | 10 MB/s |", "| 10 | 20 h | 200 h | 50 MB/s | 100 MB/s |"]
    assert "\n".join([*lines, "| 100 | 2 h | 200 h | 500 MB/s | 1,000 MB/s |\n"]) in told
    # Of 5 s of video: 0.5 s of inference, 0.25 s of encoding, 0.05 s of decoding.
    assert "goes into the network, until it is 2.0 times as fast, and then into the encoder of overlays" in told
    assert "where it reads less than 5 MB/s or writes less than 10 MB/s, and a link of 10 Gbit/s" in told
    assert told.endswith("is full at 125 nodes.")
    for row in rows:
        del row.case["output_bytes"]
    told = cost_table(rows)
    assert "| 1 | 200 h | 200 h | 5 MB/s |\n" in told
    assert told.endswith("is full at 250 nodes. What is written was not counted.")
