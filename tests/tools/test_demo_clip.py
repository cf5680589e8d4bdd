"""The demo's clip: what is committed of it, and the moving picture of a run on it."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
from PIL import Image
from typer.testing import CliRunner

from avsbg.model.training.media import write_clip_video
from fixtures import ROOT
from tools.demo_clip import RATE, SECONDS, VOICES, app

MEDIA = ROOT / "docs/media"


def test_what_is_committed_is_small_has_sound_and_names_its_sources() -> None:
    clip, picture = MEDIA / "three-voices.mp4", MEDIA / "three-voices.png"
    assert clip.stat().st_size < 1e6 and picture.stat().st_size < 2e6
    with av.open(str(clip)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert video.frames == len(VOICES) * SECONDS * RATE and float(video.duration * video.time_base) == 15
        assert sound.codec_context.sample_rate == 16000
    with Image.open(picture) as image:
        assert image.n_frames == len(VOICES) * SECONDS
    record = json.loads((MEDIA / "three-voices.json").read_text())
    assert record["licence"] == "GPL-2.0-or-later"
    assert {Path(one["file"]).suffix for one in record["sources"]} == {".png", ".ogg"}
    assert len(record["sources"]) == 2 * len(VOICES)
    assert "docs/media/three-voices.mp4" in (ROOT / "NOTICE").read_text()


def test_the_picture_shows_a_frame_of_each_second_with_what_sounds(tmp_path: Path) -> None:
    count = len(VOICES) * SECONDS * RATE
    frames = np.repeat(np.arange(count, dtype=np.uint8)[:, None, None, None] * 4, 64, axis=1)
    frames = np.broadcast_to(frames, (count, 64, 64, 3))
    write_clip_video(tmp_path / "overlay.mp4", frames, np.zeros((16000, 1), np.int16), rate=RATE)
    result = CliRunner().invoke(app, ["picture", str(tmp_path), str(tmp_path / "out.png")])
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out.png") as image:
        assert image.n_frames == len(VOICES) * SECONDS
        shades = []
        for index in range(image.n_frames):
            image.seek(index)
            shades.append(int(np.asarray(image.convert("L"))[100, 100]))
    assert shades == sorted(shades) and shades[-1] - shades[0] > 150
