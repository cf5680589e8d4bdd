"""Outputs at addresses: which are replaced, and the order in which files are put."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from avsbg.runtime.cluster.worker import _fetch_summary, _put, _segment
from avsbg.runtime.errors import MediaError, OutputError


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
