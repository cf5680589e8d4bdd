"""Refusals of the page and the text of its errors, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsbg.runtime.errors import MediaError
from avsbg.runtime.page.limits import PageRequest, check_video
from avsbg.runtime.page.page import names_address, remove_paths
from fixtures.videos import steady, tone, write_video


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", times=steady(4, 4), rate=4, sound=tone(1.0))
    check_video(video, 10, 1)
    with video.open("ab") as stream:
        stream.truncate(2**20 + 1)
    with pytest.raises(MediaError, match=r"the file has 1\.0 MB; this page takes up to 1 MB"):
        check_video(video, 10, 1)


def test_errors_name_no_place_of_the_server() -> None:
    request = PageRequest(Path("/srv/tmp/up loads/my video.mp4"), Path("/srv/tmp/page/one"))
    bundle = Path("/srv/our models/avs.bundle")
    for text, told in {
        f"{request.video} has no sound; see --no-sound.": "my video.mp4 has no sound; see “Without sound”.",
        f"the output {request.folder}/run cannot be written.": "the output run cannot be written.",
        f"clip.onnx of the bundle {bundle} has changed.": "clip.onnx of the bundle avs.bundle has changed.",
        "it needs '/usr/lib/x/libcuda.so', or a CPU/GPU.": "it needs 'libcuda.so', or a CPU/GPU.",
    }.items():
        assert remove_paths(text, bundle, request) == told


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ([{"path": "https://host/a.mp4", "meta": {}}], True),
        ([None, {"value": [{"path": "http://host/a.mp4"}]}], True),
        ([{"path": "/tmp/page/a.mp4", "url": "http://127.0.0.1:7860/file=/tmp/page/a.mp4"}, "auto", 0.5, False], False),
    ],
)
def test_addresses_are_found_wherever_they_are(value: object, names: bool) -> None:
    assert names_address(value) is names
