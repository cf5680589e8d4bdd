"""The files of the page's clients: a limit on all of them, and the end of those that nobody removed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from avsbg.runtime.page.limits import Limits
from avsbg.runtime.page.storage import Storage


def test_files_together_have_a_limit(tmp_path: Path) -> None:
    storage = Storage(tmp_path, Limits(megabytes=1, workers=1, waiting=0))  # 1 MB of uploads, and as much of results
    assert asyncio.run(storage.has_room(2**20))
    (tmp_path / "upload").mkdir()
    (tmp_path / "upload/video.mp4").write_bytes(bytes(2**20))
    assert asyncio.run(storage.has_room(2**20 - 4096)) and not asyncio.run(storage.has_room(2**20))
    # What comes while it is not counted again, of however many uploads.
    assert storage.take(2**19) and not storage.take(2**19)
    assert asyncio.run(storage.has_room(2**19)), "what had come is gone"
    for number in range(300):
        (tmp_path / f"upload/{number}").touch()
    assert not asyncio.run(storage.has_room(0)), "a file takes a block at least"


def test_what_is_old_is_removed(tmp_path: Path) -> None:
    (tmp_path / "left/deeper").mkdir(parents=True)
    for name in ("tmpbrokenoff", "left/deeper/video.mp4"):
        (tmp_path / name).touch()
    Storage(tmp_path, Limits(minutes=1)).sweep()
    assert (tmp_path / "tmpbrokenoff").is_file() and (tmp_path / "left/deeper/video.mp4").is_file()
    Storage(tmp_path, Limits(minutes=-1)).sweep()
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())
