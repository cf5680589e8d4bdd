"""`avsbg visualize` as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from avsbg import cli
from avsbg.runtime.bundle import Bundle
from fixtures.videos import steady, tone, write_video


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["avsbg", "visualize", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0), " ".join(capsys.readouterr().err.split())


def test_mistakes_are_a_paragraph(tiny: Bundle, tmp_path: Path, monkeypatch, capsys) -> None:
    video = write_video(tmp_path / "video.mkv", times=steady(5, 10), rate=5, sound=tone(2))
    code, text = run(monkeypatch, capsys, tiny.path, video, "--pixel", "12")
    assert code == 1 and "'12' is no pixel. Write it as X,Y" in text
    code, text = run(monkeypatch, capsys, tiny.path, video, "--pixel", "64,0")
    assert code == 1 and "the pixel 64,0 is outside of" in text
    code, text = run(monkeypatch, capsys, tiny.path, video)
    assert code == 1 and "tiny has no attention maps" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["video.mkv"]


def test_torch_is_not_needed() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import avsbg.export.visualize.video, avsbg.export.visualize.correlation_slice as c\n"
        "import numpy as np; one = np.ones((3, 2, 2), np.float32)\n"
        "assert (c.VolumeSlicer()(one, one, 1, 1) == 3).all()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
