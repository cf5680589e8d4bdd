"""Refusals of the page and the text of its errors, without a server."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from avsbg.errors import AvsbgError
from avsbg.runtime.errors import BackendError, BundleError, MediaError, OutputError
from avsbg.runtime.page.limits import Limits, PageRequest, check_video, describe_error
from avsbg.runtime.page.page import names_address
from fixtures.videos import steady, tone, write_video


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", times=steady(4, 4), rate=4, sound=tone(1.0))
    limits = Limits(megabytes=1, seconds=10)
    assert check_video(video, limits).has_audio
    with video.open("ab") as stream:
        stream.truncate(2**20 + 1)
    with pytest.raises(MediaError, match=r"the file has 1\.0 MB; this page takes up to 1 MB"):
        check_video(video, limits)


REQUEST = PageRequest(Path("/srv/tmp/up loads/my video.mp4"), Path("/srv/tmp/page/one"), "openvino")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MediaError(f"{REQUEST.video} is no video.", "Try another."), "my video.mp4 is no video. Try another."),
        (OutputError(f"the output {REQUEST.folder}/run cannot be written."), "the output run cannot be written."),
    ],
)
def test_an_error_of_a_request_names_its_files_without_their_places(error: AvsbgError, told: str) -> None:
    assert describe_error(error, REQUEST) == told


def test_errors_of_the_machine_are_told_where_the_page_was_started(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("avsbg.page"), "propagate", True)  # unless a command shows it elsewhere
    for error in (BundleError("/srv/avs.bundle has changed."), BackendError("it needs '/usr/lib/x/libcuda.so'.")):
        told = describe_error(error, REQUEST)
        assert told == "the backend openvino cannot do this here. The reason is told where the page was started."
        assert str(error) in caplog.messages[-1]


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
