"""Outputs of two programs are held against each other, and whatever differs is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from avsbg.runtime.bundle import Bundle
from fixtures.native_run import run_python
from fixtures.videos import steady, tone, write_video
from tools.native_parity import compare_outputs


def test_each_difference_is_named(tiny: Bundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", times=steady(5, 10), sound=tone(2))
    run_python(tiny, video, tmp_path / "theirs")
    ours = Path(shutil.copytree(tmp_path / "theirs", tmp_path / "ours"))
    assert compare_outputs(ours, tmp_path / "theirs", share=0.0) == []

    mask = np.array(Image.open(ours / "masks" / "00001.png"))
    mask[0, :32] ^= 255
    Image.fromarray(mask).save(ours / "masks" / "00001.png")
    assert compare_outputs(ours, tmp_path / "theirs", share=0.02) == []
    assert compare_outputs(ours, tmp_path / "theirs") == ["masks/00001.png: 1.04% of the pixels differ"]

    (ours / "masks" / "00001.png").rename(ours / "masks" / "00002.png")
    summary = json.loads((ours / "summary.json").read_text())
    summary["video"]["tracks"]["audio"]["codec"] = "flac"
    (ours / "summary.json").write_text(json.dumps(summary))
    lines = (ours / "frames.jsonl").read_text().splitlines()
    (ours / "frames.jsonl").write_text(lines[0])
    told = compare_outputs(ours, tmp_path / "theirs")
    assert [one.split()[0] for one in told] == ["video.tracks.audio.codec", "frames.jsonl", "more"]
