"""The rows of the front end and of the soak: what they hold, not how fast anything was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure import decoding as front_end
from avsbg.benchmarks.measure import sampling, soak
from avsbg.runtime.bundle import Bundle
from fixtures.videos import steady, tone, write_video


def test_front_end_rows(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr(front_end, "PAUSE", 0.001)
    # Not `time.sleep` itself: other threads of this process sleep too.
    monkeypatch.setattr(sampling, "time", SimpleNamespace(sleep=rests.append))
    video = write_video(tmp_path / "v.mp4", times=steady(25, 175), sound=tone(7))
    machine, row = front_end.measure(tiny.path, [video], "onnxruntime:plain", 3)
    assert isinstance(machine, front_end.MachineRow)
    assert isinstance(row, front_end.VideoRow)
    assert (machine.manifest_sha256, machine.backend) == (tiny.manifest_sha256, "onnxruntime:plain")
    assert (row.clips, row.width, row.height, row.frame_rate) == (2, 64, 48, 25)
    for spent in (row.front_end, row.network):
        assert len(spent.clock) == len(spent.processor) == 3
    # The network's threads, which spin for a while after it has answered, are not counted as the front end's.
    assert rests == [0.001] * 6
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{machine.model_dump_json()}\n{row.model_dump_json()}\n")
    assert "| v.mp4, 64 x 48, 25 fps |" in front_end.render(rows)


def test_soak_counts_what_came_out(tiny: Bundle, tmp_path: Path) -> None:
    result = soak.soak(tiny.path, 60, "onnxruntime")
    assert (result.seconds, result.dropped, result.mode) == (60, 0, "clip")
    assert all(size > 0 for _, size in result.resident)
    (tmp_path / "soak.json").write_text(result.model_dump_json())
    assert "60 masks for 60 s, 0 dropped" in soak.render(tmp_path / "soak.json")
    with pytest.raises(BenchmarkError, match="there is no bundle"):
        soak.soak(tmp_path / "nothing", 60, "onnxruntime")
