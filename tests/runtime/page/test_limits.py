"""Refusals of the page and the text of its errors, without a server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avsbg.errors import AvsbgError
from avsbg.progress import Progress
from avsbg.runtime.errors import BackendError, BundleError, MediaError, OutputError, WorkerError
from avsbg.runtime.media import bounds
from avsbg.runtime.media.container import decode_packets, open_media
from avsbg.runtime.page.limits import (
    MOST_PIXELS,
    Limits,
    PageRequest,
    PageResult,
    check_video,
    describe_error,
    run_request,
)
from avsbg.runtime.page.page import names_address
from fixtures.odd_videos import write_marked
from fixtures.videos import steady, tone, write_video


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", times=steady(4, 4), rate=4, sound=tone(1.0))
    limits = Limits(megabytes=1, seconds=10)
    assert check_video(video, limits).has_audio
    with video.open("ab") as stream:
        stream.truncate(2**20 + 1)
    with pytest.raises(MediaError, match=r"the file has 1\.0 MB; this page takes up to 1 MB"):
        check_video(video, limits)


def test_a_length_that_is_not_stated_is_that_of_the_packets(tmp_path: Path) -> None:
    recording = write_video(tmp_path / "live.mkv", times=steady(4, 16), rate=4, sound=tone(4.0), options={"live": "1"})
    assert check_video(recording, Limits(seconds=4)).duration is None
    stated = write_video(tmp_path / "stated.mkv", times=steady(4, 16), rate=4)
    text = stated.read_bytes()
    assert text.count(b"00:00:04.0") == 1
    stated.write_bytes(text.replace(b"00:00:04.0", b"00:00:01.0"))
    assert check_video(stated, Limits(seconds=4)).duration == 1
    for video in (recording, stated):
        with pytest.raises(MediaError, match=r"is longer than 2 s; this page takes up to 2 s\."):
            check_video(video, Limits(seconds=2))


@contextmanager
def open_decoder(_: Progress) -> Iterator[Callable[[PageRequest], PageResult]]:
    """Decode all frames of a video, which may be of any size, or take twice the memory that is allowed."""

    def decode_all(request: PageRequest) -> PageResult:
        if request.backend == "memory":
            bytes(2 * 2**30)
        with open_media(request.video) as container:
            sizes = {(frame.width, frame.height) for frame in decode_packets(container.demux(video=0), request.video)}
        return PageResult(request.video, request.video, {"sizes": sizes})

    yield decode_all


def test_a_process_makes_no_room_for_frames_beyond_the_limit(tmp_path: Path) -> None:
    large = write_video(tmp_path / "large.mp4", times=steady(4, 1), rate=4, size=(4096, 2704))
    with pytest.raises(MediaError, match=r"the video's frames are 4096 x 2704; this page takes up to 3840 x 2160"):
        check_video(large, Limits())

    def run(backend: str) -> None:
        run_request(open_decoder, PageRequest(large, tmp_path, backend), Limits(gigabytes=1), lambda *_: None)

    with pytest.raises(MediaError, match="cannot be decoded"):
        run("auto")
    with pytest.raises(WorkerError, match=r"the work takes more than 1 GB of memory, and was ended"):
        run("memory")


@pytest.mark.parametrize("suffix", [".flv", ".mpg", ".ts", ".avi"])
def test_a_bounded_process_opens_every_kind_of_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    codecs = {"codec": "mpeg2video", "audio": "mp2"} if suffix == ".mpg" else {}
    video = write_marked(tmp_path / f"video{suffix}", seconds=1, **codecs)
    monkeypatch.setattr(bounds, "_options", {"max_pixels": str(MOST_PIXELS)})
    assert check_video(video, Limits()).has_audio
    monkeypatch.setattr(bounds, "_MOST_TRACKS", 1)
    with pytest.raises(MediaError, match="the file has 2 tracks; at most 1 are taken"):
        check_video(video, Limits())


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
