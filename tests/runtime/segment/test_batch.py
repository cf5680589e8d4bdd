"""Many videos: resuming, and one bad file among good ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from avsbg.progress import Progress
from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.errors import BackendError, MediaError
from avsbg.runtime.processes import IsolatedWorker
from avsbg.runtime.segment import batch as batch_module
from avsbg.runtime.segment.batch import BatchItem, BatchResult, VideoWorker, find_videos, run_batch
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.segmenter import ClipSegmenter
from fixtures import tiny_bundle
from fixtures.odd_videos import burst, damage_packets, forget_codec, remux, write_marked
from fixtures.videos import steady, tone, write_video

OPTIONS = Options(masks="none", overlay=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos and something else, one of them in a folder of its own."""
    (tmp_path / "in/more").mkdir(parents=True)
    write_video(tmp_path / "in/a.mp4", times=steady(25, 50), sound=tone(2))
    write_video(tmp_path / "in/more/a.mp4", times=steady(25, 75), sound=tone(3))
    (tmp_path / "in/notes.txt").write_text("no video")
    return tmp_path / "in"


def batch(
    bundle: Bundle, items: list[BatchItem], options: Options = OPTIONS, *, redo: bool = False, **call: Any
) -> list[BatchResult]:
    with create("onnxruntime", bundle) as backend:
        return run_batch(VideoWorker(ClipSegmenter(backend), options, redo=redo), items, **call)


def states(results: list[BatchResult]) -> list[str]:
    return [result.state for result in results]


def test_folders_files_and_their_outputs(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert find_videos([folder / "a.mp4"], out) == [BatchItem(folder / "a.mp4", out)]
    items = find_videos([folder], out)
    assert [item.output.relative_to(out).as_posix() for item in items] == ["a.mp4", "more/a.mp4"]
    both = find_videos([folder / "a.mp4", folder / "notes.txt"], out)
    assert [item.output.name for item in both] == ["a.mp4", "notes.txt"]
    with pytest.raises(MediaError, match="both be written to"):
        find_videos([folder / "a.mp4", folder / "more/a.mp4"], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="holds no video"):
        find_videos([tmp_path / "empty"], out)


def test_what_is_finished_is_not_done_again(tiny: Bundle, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    items = find_videos([folder], out)
    assert states(batch(tiny, items)) == ["done", "done"]
    made = {item: (item.output / "summary.json").stat().st_mtime_ns for item in items}
    assert states(batch(tiny, items)) == ["finished before", "finished before"]
    assert {item: (item.output / "summary.json").stat().st_mtime_ns for item in items} == made
    # A new video is done, and what was removed.
    shutil.copy(folder / "a.mp4", folder / "b.mp4")
    shutil.rmtree(out / "a.mp4")
    assert states(batch(tiny, find_videos([folder], out))) == ["done", "done", "finished before"]
    # The key is that of the content, not of the name or time.
    (folder / "b.mp4").touch()
    assert states(batch(tiny, find_videos([folder], out))) == ["finished before"] * 3


def test_what_a_killed_run_left_is_removed_even_if_nothing_is_done(tiny: Bundle, folder: Path, tmp_path: Path) -> None:
    items = find_videos([folder / "a.mp4"], tmp_path / "out")
    batch(tiny, items)
    (tmp_path / ".out.a0b1c2d3.partial").mkdir()
    (tmp_path / ".out.a0b1c2d3.partial/new").mkdir()
    assert states(batch(tiny, items)) == ["finished before"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("change", ["content", "bundle", "options"])
def test_what_was_made_of_something_else_is_not_taken_for_it(
    tiny: Bundle, folder: Path, tmp_path: Path, change: str
) -> None:
    items = find_videos([folder], tmp_path / "out")
    batch(tiny, items)
    bundle, options = tiny, OPTIONS
    if change == "content":
        write_video(folder / "a.mp4", times=steady(25, 100), sound=tone(4))
    elif change == "bundle":
        bundle = tiny_bundle.make_bundle(tmp_path / "other", vectors=False)
    else:
        options = Options(masks="none", overlay=False, threshold=0.4)
    results = batch(bundle, items, options)
    assert states(results) == (["failed", "finished before"] if change == "content" else ["failed", "failed"])
    assert "--overwrite" in str(results[0].error)
    assert states(batch(bundle, items, options, redo=True)) == ["done", "done"]
    assert states(batch(bundle, items, options)) == ["finished before", "finished before"]


def test_one_bad_file_does_not_end_the_rest(tiny: Bundle, folder: Path, tmp_path: Path) -> None:
    write_video(folder / "b_mute.mp4", times=steady(25, 25))
    (folder / "c_broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:3000])
    (folder / "d_empty.mp4").touch()
    items = find_videos([folder], tmp_path / "out")
    results = batch(tiny, items, directory=tmp_path / "out")
    assert states(results) == ["done", "failed", "failed", "failed", "done"]
    assert ["--no-sound" in str(results[1].error), "c_broken.mp4" in str(results[2].error)] == [True, True]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "batch.json", "more"]
    document = json.loads((tmp_path / "out/batch.json").read_text())
    assert [one["state"] for one in document] == states(results)
    assert document[3]["error"] == results[3].error


def test_the_hash_of_a_video_that_fails_is_given_up(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stopped = tmp_path / "v.mp4", []
    path.write_bytes(bytes(100))

    def wait(path: Path, stop: threading.Event) -> str:
        stopped.append(stop.wait(60))
        return sha256(path, stop)

    monkeypatch.setattr(batch_module, "sha256", wait)
    assert states(batch(tiny, [BatchItem(path, tmp_path / "out")])) == ["failed"]
    assert stopped == [True]
    stop = threading.Event()
    assert sha256(path, stop) == sha256(path)
    stop.set()
    with pytest.raises(CancelledError, match=r"v\.mp4 was given up"):
        sha256(path, stop)


def test_a_clip_that_fails_leaves_nothing_to_the_next(tiny: Bundle, folder: Path, tmp_path: Path) -> None:
    """A network that fails inside a clip must not put its seconds before those of the next video."""

    class Failing(ClipSegmenter):
        calls = 0

        def push(self, second: Any) -> Iterator[Any]:
            yield from super().push(second)
            self.calls += 1
            if self.calls == 1:
                raise BackendError("out of memory")

    with create("onnxruntime", tiny) as backend:
        results = run_batch(VideoWorker(Failing(backend), OPTIONS), find_videos([folder], tmp_path / "out"))
    assert states(results) == ["failed", "done"]
    assert results[1].summary is not None
    assert results[1].summary["seconds"] == 3


def test_a_damaged_summary_is_not_an_earlier_run(tiny: Bundle, folder: Path, tmp_path: Path) -> None:
    items = find_videos([folder], tmp_path / "out")
    batch(tiny, items)
    for text in ("", "[]", '{"video": 3}'):
        (items[0].output / "summary.json").write_text(text)
        assert states(batch(tiny, items)) == ["failed", "finished before"]
    assert states(batch(tiny, items, redo=True)) == ["done", "done"]


@contextmanager
def open_crashing_worker(bundle: Path, progress: Progress) -> Iterator[Callable[[BatchItem], BatchResult]]:
    """A `VideoWorker` whose decoder crashes over a file of a certain name, as one with a bug does."""
    with create("onnxruntime", Bundle.open(bundle)) as backend:
        work = VideoWorker(ClipSegmenter(backend), OPTIONS, progress=progress)

        def segment(item: BatchItem) -> BatchResult:
            if item.path.name == "crash.mp4":
                os.kill(os.getpid(), signal.SIGSEGV)
            return work(item)

        yield segment


def test_fifty_files_of_which_ten_are_bad_and_one_crashes_the_decoder(tiny: Bundle, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "in/out"
    folder.mkdir()
    good = [
        write_marked(folder / "00.mp4", seconds=1),
        write_marked(folder / "01.mkv", seconds=1, audio="flac", layout="7.1", sounds=[burst(1, 8)]),
        write_marked(folder / "02.ts", seconds=1, audio="mp2"),
    ]
    for number in range(3, 39):
        shutil.copy(good[number % 3], folder / f"{number:02d}{good[number % 3].suffix}")
    shutil.copy(good[0], folder / "crash.mp4")
    content = good[1].read_bytes()
    (folder / "x0.mp4").touch()
    (folder / "x1.mp4").write_text("<!DOCTYPE html><title>404</title>")
    (folder / "x2.mkv").write_bytes(content[: len(content) // 2])
    forget_codec(write_marked(folder / "x3.mp4", seconds=1), "video")
    write_marked(folder / "x4.mp4", seconds=1, audio=None)
    damage_packets(write_marked(folder / "x5.avi", seconds=1, codec="mpeg4", audio="mp2"), "audio", [20])
    remux(good[0], folder / "x6.mkv", shift=lambda _, time: 100.0 * (time > 0.5))
    (folder / "x7.webm").write_bytes(bytes(range(256)) * 40)
    forget_codec(write_marked(folder / "x8.mp4", seconds=1), "audio")
    (folder / "x9.mov").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/segment.ts\n#EXT-X-ENDLIST\n")
    items = find_videos([folder], out)
    assert len(items) == 50
    with IsolatedWorker[BatchItem, BatchResult](partial(open_crashing_worker, tiny.path)) as worker:
        results = run_batch(worker, items, directory=out)
    failed = {result.item.path.name: str(result.error) for result in results if result.state == "failed"}
    assert sorted(failed) == ["crash.mp4", *(f"x{number}{suffix}" for number, suffix in enumerate(
        [".mp4", ".mp4", ".mkv", ".mp4", ".mp4", ".avi", ".mkv", ".webm", ".mp4", ".mov"]
    ))]  # fmt: skip
    assert all(name in reason for name, reason in failed.items()), "each reason names its file"
    assert "crashed (SIGSEGV)" in failed["crash.mp4"]
    assert [result.summary["seconds"] for result in results if result.summary is not None] == [1] * 39
    report = json.loads((out / "batch.json").read_text())
    assert [(one["state"], one["error"]) for one in report] == [(result.state, result.error) for result in results]
    # Its own outputs, which lie in the folder now, are no videos of it.
    assert find_videos([folder], out) == items
    assert find_videos([folder], tmp_path / "other")[0].path == items[0].path
    assert len(find_videos([folder], tmp_path / "other")) == 50


def test_an_unexpected_error_is_that_files_alone(tiny: Bundle, folder: Path, tmp_path: Path) -> None:
    class Failing(VideoWorker):
        def __call__(self, item: BatchItem) -> BatchResult:
            if item.path.parent == folder:
                raise AttributeError("'NoneType' object has no attribute 'name'")
            return super().__call__(item)

    with create("onnxruntime", tiny) as backend:
        results = run_batch(Failing(ClipSegmenter(backend), OPTIONS), find_videos([folder], tmp_path / "out"))
    assert states(results) == ["failed", "done"]
    assert "AttributeError: 'NoneType' object" in str(results[0].error)
