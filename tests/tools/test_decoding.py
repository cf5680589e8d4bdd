"""The rows of the front end, of start-up, of a stream's operators and of the soak: their content, no times."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure import sampling
from avsbg.runtime.bundle import Bundle
from fixtures.cli import run_avsbg
from fixtures.videos import steady, tone, write_video
from tools import decoding, soak, start_up, stream_profile


def test_front_end_rows(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr(decoding, "PAUSE", 0.001)
    # Not `time.sleep` itself: other threads of this process sleep too.
    monkeypatch.setattr(sampling, "time", SimpleNamespace(sleep=rests.append))
    video = write_video(tmp_path / "v.mp4", times=steady(25, 175), sound=tone(7))
    (row,) = decoding.measure(tiny.path, [video], "onnxruntime:plain", 3)
    assert (row.ran.files["manifest.json"], row.case["target"]) == (tiny.manifest_sha256, "onnxruntime:plain")
    assert [row.case[name] for name in ("clips", "width", "height", "frame_rate")] == [2, 64, 48, 25]
    parts = {"front_end", "decoding", "network"}
    assert set(row.metrics) == parts | {f"{part}_processor" for part in parts}
    assert all(len(metric.samples) == 3 for metric in row.metrics.values())
    # The network's threads, which spin for a while after it has answered, are not counted as the front end's.
    assert rests == [0.001] * 9
    assert "| v.mp4, 64 x 48, 25 fps |" in decoding.front_end_table([row])


def test_a_streams_operators_beside_those_of_its_clip(tiny_stream: Bundle) -> None:
    row = stream_profile.measure(tiny_stream.path)
    for graph in ("clip", "encode", "decode"):
        nodes = onnx.load(tiny_stream.file(tiny_stream.graph(graph).file)).graph.node
        assert row[graph].parts and set(row[graph].parts) <= {node.op_type for node in nodes}
        assert row[graph].number == pytest.approx(sum(row[graph].parts.values()))
    weights = [tiny_stream.file(file) for file in tiny_stream.graph("encode").external_data]
    assert row.case["weight_bytes"] == sum(file.stat().st_size for file in weights)
    table = stream_profile.profile_table([row])
    assert "once for 3 frames" in table and "| **together** |" in table


def test_start_up_rows(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = subprocess.run

    def run(arguments: tuple[str, ...], **options: Any) -> Any:
        if arguments[: len(start_up.COMMAND)] != start_up.COMMAND:
            return original(arguments, **options)
        result = run_avsbg("run", *arguments[len(start_up.COMMAND) :])
        return SimpleNamespace(returncode=result.code, stdout=result.out, stderr=result.err)

    monkeypatch.setattr(start_up.subprocess, "run", run)
    video = write_video(tmp_path / "v.mp4", times=steady(25, 50), sound=tone(2))
    (row,) = start_up.measure([tiny.path], video, ["onnxruntime"], 1)
    assert set(row.metrics) == {"first_mask", *start_up.STAGES}
    assert all(metric.samples[0] > 0 for metric in row.metrics.values())
    assert "| tiny | `onnxruntime` |" in start_up.start_up_table([row])
    with pytest.raises(BenchmarkError, match="there is no video"):
        start_up.measure([tiny.path], tmp_path / "missing.mp4", ["onnxruntime"], 1)


def test_soak_counts_what_came_out(tiny: Bundle, tmp_path: Path) -> None:
    result = soak.soak(tiny.path, 60, "onnxruntime")
    assert (result["masks"].value, result["dropped"].value, result.case["mode"]) == (60, 0, "clip")
    assert all(size > 0 for size in result["resident"].samples)
    assert "60 masks for 60 s, 0 dropped" in soak.soak_text([result])
    with pytest.raises(BenchmarkError, match="there is no bundle"):
        soak.soak(tmp_path / "nothing", 60, "onnxruntime")
