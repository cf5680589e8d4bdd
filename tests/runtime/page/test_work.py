"""The work on a request, in this process: silence that has to be asked for, and maps that cannot be drawn."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from avsbg.api import open_segmenter
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BundleError, MediaError
from avsbg.runtime.page.limits import Limits, PageRequest
from avsbg.runtime.page.work import open_page_work
from fixtures.videos import steady, write_video


def test_a_video_without_sound_and_maps_that_cannot_be_drawn(tiny: Bundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "silent.mp4", times=steady(4, 8), rate=4)

    def refuse(video: Path, folder: Path, *, silent: bool, threshold: float) -> Path:
        assert (video.name, folder.exists(), silent, threshold) == ("silent.mp4", False, True, 0.25)
        raise BundleError(f"{tiny.path} has changed.")

    network = partial(open_segmenter, tiny.path)
    with open_page_work(network, refuse, Limits(), lambda *_: None) as work:
        request = PageRequest(video, tmp_path / "work", "onnxruntime", threshold=0.25, attention=True)
        request.folder.mkdir()
        with pytest.raises(MediaError, match=r"has no sound, and the network uses it\. Choose “Without sound”"):
            work(request)
        result = work(replace(request, silent=True))
    assert (result.sheet, result.summary["seconds"]) == (None, 2)
    assert result.no_sheet == "the page cannot do this here. The reason is told where the page was started."
    assert result.overlay.is_file()
    with zipfile.ZipFile(result.archive) as archive:
        assert {"summary.json", "overlay.mp4", "masks/00000.png"} <= set(archive.namelist())
