"""Outputs at addresses: which are replaced, and the order in which files are put; errors that are tried once more."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import fsspec
import pytest

from avsbg.runtime.cluster import worker
from avsbg.runtime.cluster.collection import CollectionItem
from avsbg.runtime.cluster.worker import CollectionWorker, Job, _fetch, _fetch_summary, _put, _segment
from avsbg.runtime.errors import FetchError, MediaError, OutputError, WorkerError
from avsbg.runtime.segment.batch import BatchItem, BatchResult
from avsbg.runtime.segment.pipeline import Options


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An output that is to be copied."""
    for name in ("frames.jsonl", "masks/00000.png", "overlay.mp4", "summary.json", "a.txt"):
        (tmp_path / "target" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "target" / name).write_text(name)
    return tmp_path / "target"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("earlier", ["summary.json", "frames.jsonl"])
def test_an_earlier_run_is_replaced(target: Path, tmp_path: Path, earlier: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / earlier).write_text("earlier")
    (place / "old.png").write_text("earlier")
    _put(target, f"file://{place}")
    assert names(place) == names(target)


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_an_earlier_run_stays_until_the_new_one_is_there(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    files, place = fsspec.filesystem(protocol), f"{tmp_path}/place/video.mp4"
    files.makedirs(place)
    files.pipe({f"{place}/summary.json": b"earlier", f"{place}/old.png": b"earlier"})
    put = files.put_file

    def break_off(path: str, name: str) -> None:
        if name.endswith("summary.json"):
            raise KeyboardInterrupt
        put(path, name)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(files, "put_file", break_off)
        _put(target, f"{protocol}://{place}")
    assert {path: files.cat(path) for path in files.find(place)} == {
        f"{place}/old.png": b"earlier",
        f"{place}/summary.json": b"earlier",
    }
    _put(target, f"{protocol}://{place}")
    found = {path.removeprefix(f"{place}/"): files.cat(path).decode() for path in files.find(f"{tmp_path}/place")}
    assert found == {name: name for name in names(target)}
    files.rm(str(tmp_path / "place"), recursive=True)


@pytest.mark.parametrize("name", ["clip[1].mp4", "a*.mp4", "a?.mp4"])
def test_signs_of_a_pattern_in_a_name_stand_for_themselves(target: Path, name: str) -> None:
    files = fsspec.filesystem("memory")
    others = {f"/v/{other}/summary.json": b"another" for other in ("clip1.mp4", "ab.mp4", ".ab.mp4.partial")}
    earlier = {f"/v/{name}/{old}": b"earlier" for old in ("summary.json", "old/0.png")}
    try:
        files.pipe({**others, **earlier, f"/v/.{name}.partial/old.png": b"broken off"})
        _put(target, f"memory://v/{name}")
        found = {path: files.cat_file(path) for path in files.find("/v")}
        assert found == {**others, **{f"/v/{name}/{new}": new.encode() for new in names(target)}}
        assert not files.exists(f"/v/.{name}.partial")
    finally:
        files.store.clear()


def refuse_before_work(_: Path, output: str) -> None:
    """A video whose work, and whose source, must not be reached."""
    _segment(lambda _: pytest.fail("segmented"), "file:///nothing.mp4", output, replace=True)  # type: ignore[arg-type]


def test_what_is_no_earlier_run_stays(target: Path, tmp_path: Path) -> None:
    video, folder = tmp_path / "a.mp4", tmp_path / "folder"
    video.write_text("the source itself")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for place in (video, folder):
        for use in (_put, refuse_before_work):
            with pytest.raises(MediaError, match="exists and holds no earlier run") as caught:
                use(target, f"file://{place}")
            assert not isinstance(caught.value, OutputError)
    assert (video.read_text(), names(folder)) == ("the source itself", {"notes.txt"})


def test_a_file_named_as_a_run_stays(target: Path) -> None:
    """In an object store, and in fsspec's `memory://`, a file and a folder may have the same name."""
    files = fsspec.filesystem("memory")
    files.pipe({"/v/a.mp4/summary.json": b"{}", "/v/a.mp4": b"the source itself"})
    try:
        with pytest.raises(MediaError, match="exists and holds no earlier run"):
            _put(target, "memory://v/a.mp4")
        assert files.cat("/v/a.mp4") == b"the source itself"
    finally:
        files.store.clear()


def test_frames_come_first_and_the_summary_last(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[str] = []
    files = fsspec.filesystem("file")
    monkeypatch.setattr(files, "put_file", lambda _, name: put.append(Path(name).name))
    _put(target, f"file://{tmp_path}/place")
    assert (put[0], put[-1], len(put)) == ("frames.jsonl", "summary.json", 5)


def test_only_a_summary_that_is_not_there_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fetch_summary(f"file://{tmp_path}/none", tmp_path / "target")
    assert not (tmp_path / "target").exists()

    def deny(*_: object) -> None:
        raise PermissionError("access denied")

    monkeypatch.setattr(fsspec, "open", deny)
    with pytest.raises(MediaError, match=r"summary\.json cannot be fetched: access denied"):
        _fetch_summary(f"file://{tmp_path}/none", tmp_path / "target")


@pytest.mark.parametrize(
    ("errors", "state", "attempts"),
    [
        ([WorkerError("crashed")], "done", 2),
        ([TimeoutError("no answer")], "done", 2),
        ([FetchError("reset")] * 2, "failed", 2),
        ([MediaError("it is no video")], "failed", 1),
    ],
)
def test_only_what_a_second_try_can_mend_has_one(
    monkeypatch: pytest.MonkeyPatch, errors: list[Exception], state: str, attempts: int
) -> None:
    left = list(errors)

    def work(pair: tuple[str, str]) -> BatchResult:
        if left:
            raise left.pop(0)
        return BatchResult(BatchItem(*map(Path, pair)), "done")

    monkeypatch.setattr(worker, "IsolatedWorker", lambda _: nullcontext(work))
    with CollectionWorker(Job(nullcontext, Options(), "/out")) as segment:  # type: ignore[arg-type]
        result = segment(CollectionItem("/a.mp4", "a.mp4"))
    assert (result.state, result.attempts, left) == (state, attempts, [])
    assert result.error == (str(errors[-1]) if state == "failed" else None)


def test_a_video_that_is_not_there_is_no_error_that_may_pass(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(FetchError, match="cannot be fetched"):
        _fetch(f"file://{tmp_path}/folder.mp4", tmp_path / "copy")
    with pytest.raises(MediaError, match="there is no video at") as caught:
        _fetch(f"file://{tmp_path}/none.mp4", tmp_path / "copy")
    assert not isinstance(caught.value, FetchError)
