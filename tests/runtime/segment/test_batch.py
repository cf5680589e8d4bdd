"""Many videos: resuming, and one bad file among good ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError, MediaError
from avsbg.runtime.segment.batch import BatchItem, BatchResult, VideoWorker, find_videos, run_batch
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.segmenter import ClipSegmenter
from fixtures import tiny_bundle
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
    assert "--force" in str(results[0].error)
    assert states(batch(bundle, items, options, redo=True)) == ["done", "done"]
    assert states(batch(bundle, items, options)) == ["finished before", "finished before"]


def test_one_bad_file_does_not_end_the_rest(tiny: Bundle, folder: Path, tmp_path: Path) -> None:
    write_video(folder / "b_mute.mp4", times=steady(25, 25))
    (folder / "c_broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:3000])
    (folder / "d_empty.mp4").touch()
    items = find_videos([folder], tmp_path / "out")
    results = batch(tiny, items, directory=tmp_path / "out")
    assert states(results) == ["done", "failed", "failed", "failed", "done"]
    assert ["--silent" in str(results[1].error), "c_broken.mp4" in str(results[2].error)] == [True, True]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "batch.json", "more"]
    document = json.loads((tmp_path / "out/batch.json").read_text())
    assert [one["state"] for one in document] == states(results)
    assert document[3]["error"] == results[3].error


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
